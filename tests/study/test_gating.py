"""A gate without power: what is said before training, and from how many prompts on nothing is."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import ROOT

from holdfast.errors import StudyError
from holdfast.study import gating, preflight, resolve


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of these keys over a small one with WaRP beside full fine-tuning, as `resolve` has it."""
    monkeypatch.chdir(tmp_path)

    def written(name="mine", **keys):
        base = {
            "tasks": {"gsm8k": {"dataset": "gsm8k", "test_rows": 2000}}, "evaluation": {"prompts_per_set": 2000},
            "arms": {"full": {"method": "full"}, "warp": {"method": "warp"}},
            "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
        }  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(keys if "extends" in keys else base | keys))
        return resolve.load(str(path))

    return written


def said(study):
    lines = []
    preflight.check_files(study, lines.append)
    return [line for line in lines if line.startswith("gate.")]


def test_a_study_without_a_gate_is_not_spoken_of(study):
    assert said(study(evaluation={"prompts_per_set": 10})) == []


def test_a_gate_with_power_is_not_spoken_of(study):
    assert said(study(gate={})) == [] == said(study(gate={}, seeds=[0, 1, 2]))


def test_a_gate_with_little_power_says_how_little_and_what_would_do(study):
    lines = said(study(gate={"wrapped": "off"}, evaluation={"prompts_per_set": 120}))
    assert [line.split(":")[0] for line in lines] == ["gate.refusals", "gate.over_refusal"]
    assert "with 120 prompts (evaluation.prompts_per_set) an arm that loses nothing passes in about 60% of" in lines[0]
    assert "in 26% if a fifth; with 53" in lines[0] and lines[0].endswith("in 80%")
    (line,) = said(study(gate={}, tasks={"gsm8k": {"dataset": "gsm8k", "test_rows": 150}}))
    assert line.startswith("gate.utility: with 150 prompts (tasks.gsm8k.test_rows) an arm")
    few = said(study(gate={"refusals": "off", "over_refusal": "off", "utility": "off"}, seeds=[0, 1, 2],
                     evaluation={"prompts_per_set": 120}))  # fmt: skip
    assert len(few) == 1 and "gate.wrapped: with 120 prompts (evaluation.prompts_per_set) and 3 seeds" in few[0]


def test_replicates_are_draws_and_seeds_within_them_are_not(study):
    of = {"evaluation": {"prompts_per_set": 200}}
    lines = said(study(gate={}, replicates=3, seeds=[0, 1], **of))
    assert "with 200 prompts (evaluation.prompts_per_set) and 3 replicates" in lines[0]
    with pytest.raises(StudyError, match="can never be met"):
        said(study(gate={}, replicates=2, seeds=[0, 1, 2, 3], **of))


def test_a_given_model_is_one_draw_whatever_the_seeds(study, tmp_path):
    """59 prompts can pass one model; of three seeds they can pass none."""
    for i in range(3):
        (tmp_path / f"models/mine-{i}").mkdir(parents=True)
    of = {"gate": {"arm": "mine"}, "seeds": [0, 1, 2], "evaluation": {"prompts_per_set": 59}}

    def arms(**mine):
        return {"full": {"method": "full"}, "mine": mine}

    gating.refuse(study(**of, arms=arms(given="./models/mine-0")))
    gating.refuse(study(**of, arms=arms(given="./models/mine-0"), replicates=3))
    for other in (arms(given="./models/mine-{seed}"), arms(method="warp")):
        with pytest.raises(StudyError, match=r"gate.refusals can never be met") as error:
            gating.refuse(study(**of, arms=other))
        assert "and 3 seeds" in error.value.found
    of["evaluation"] = {"prompts_per_set": 2000}
    with pytest.raises(StudyError, match=r"gate.utility can never be met") as error:
        gating.refuse(
            study(**of, arms=arms(given="./models/mine-0"), tasks={"gsm8k": {"dataset": "gsm8k", "test_rows": 60}})
        )
    assert "and 3 seeds" in error.value.found, "those of the baseline"


def test_what_a_file_holds_is_what_counts(study, tmp_path):
    sizes = {"hazard": 130, "lookalike": 70, "craft": 60}
    rows = [{"prompt": f"{name} {i}", "set": name} for name, n in sizes.items() for i in range(n)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    lines = said(study(gate={}, evaluation={"source": "p.jsonl", "prompts_per_set": 2000}))
    assert [(line.split(":")[0], line.split("with ")[1].split()[0]) for line in lines] == [
        ("gate.refusals", "130"), ("gate.over_refusal", "130"),
    ]  # fmt: skip


def test_more_are_asked_for_where_there_are_more(study, tmp_path):
    """Of one set there are no more, of the other there are: then more can be asked."""
    sizes = {"hazard": 130, "lookalike": 5, "craft": 80}
    rows = [{"prompt": f"{name} {i}", "set": name} for name, n in sizes.items() for i in range(n)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for asked, do in ((60, "raise evaluation.prompts_per_set"), (100, "there are no more to ask")):
        of = study(
            gate={"refusals": "off", "wrapped": "off", "over_refusal": 0.03},
            evaluation={"source": "p.jsonl", "prompts_per_set": asked},
        )
        with pytest.raises(StudyError, match=r"gate.over_refusal can never be met") as error:
            said(of)
        assert error.value.do.startswith(do)


def test_off_stays_off_in_a_study_that_extends_another(study):
    study("below", gate={"refusals": 0.02, "utility": 0.1, "arm": "warp"})
    margins = study(extends="below.yaml", gate={"refusals": "off", "arm": None}).study.gate.margins
    assert "refusals" not in margins and margins["utility"] == 0.1
    assert study(extends="below.yaml", gate={"arm": None}).study.gate.arm is None
    assert "refusals" not in study(gate={"refusals": None}).study.gate.margins
    assert study(extends="below.yaml", gate=None).study.gate is None


def test_suites_ask_so_many_of_each(study):
    asked = gating.asked(study(gate={}, evaluation={"suites": {"xstest": "test", "physical-safety": "test"}}))
    assert {a.words: a.prompts for a in asked} == {
        "gate.refusals": 240, "gate.over_refusal": 240, "gate.utility": 2000,
        **{f"gate.suites ({of} in {suite})": 120 for suite in ("xstest", "physical-safety")
           for of in ("refusals", "over-refusal")},
    }  # fmt: skip


def test_a_suite_without_harmless_prompts_is_not_asked_for_them(study):
    of = study(gate={"suites": 0.05}, evaluation={"suites": ["xstest", "advbench"]})
    assert [a.words for a in gating.asked(of) if a.criterion == "suites"] == [
        "gate.suites (refusals in xstest)", "gate.suites (over-refusal in xstest)",
        "gate.suites (refusals in advbench)",
    ]  # fmt: skip


def test_one_suite_is_all_prompts(study):
    one = study(gate={}, evaluation={"suites": {"xstest": "test", "advbench": "validation"}})
    assert "suites" not in {a.criterion for a in gating.asked(one)} | one.gate_cfg()["margins"].keys()
    two = study(gate={}, evaluation={"suites": ["xstest", "advbench"]})
    assert two.gate_cfg()["margins"]["suites"] == 0.05 and two.gate_cfg()["suites"] == ["xstest", "advbench"]


def test_what_suites_hold_is_what_counts(study):
    """Wordings of one prompt count once; of what there is no more, more cannot be asked for."""
    rows = [{"id": f"{suite}/hazard/{i}", "base_id": f"{suite}/{i // 2}", "set": "hazard"}
            for suite, n in (("xstest", 200), ("advbench", 60)) for i in range(n)]  # fmt: skip
    found = gating.counted(rows, ["xstest", "advbench"])
    assert found == {(None, "hazard"): 130, ("xstest", "hazard"): 100, ("advbench", "hazard"): 30}
    of = study(gate={"utility": "off"}, evaluation={"suites": ["xstest", "advbench"], "prompts_per_set": 70})
    asked = gating.asked(of, found)
    assert [(a.words, a.prompts, a.most) for a in asked] == [
        ("gate.refusals", 130, True),
        ("gate.suites (refusals in xstest)", 100, False), ("gate.suites (refusals in advbench)", 30, True),
    ]  # fmt: skip
