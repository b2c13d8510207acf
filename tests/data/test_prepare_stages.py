"""What planning cannot read, because it lies at an address or is too large, the preparing stage refuses."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import pytest
from conftest import ROOT

from holdfast.data import prepare
from holdfast.errors import DataError
from holdfast.record import tables
from holdfast.study import resolve


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"split": "validation"}, "no prompt is of the split test, which is asked"),
        ({"set": "lookalike"}, "must be refused"),
    ],
)
def test_prompts_that_nobody_would_be_asked_are_refused_by_the_stage(tmp_path, row, says):
    path, out = tmp_path / "p.jsonl", tmp_path / "prompts.parquet"
    main = runpy.run_path(str(ROOT / "scripts/prepare_prompts.py"))["main"]
    cfg = {"source": str(path), "columns": {}, "prompts_per_set": 9, "splits": ["test"]}
    path.write_text(json.dumps({"prompt": "p", "set": "hazard", "split": "test"} | row) + "\n")
    with pytest.raises(DataError, match=says):
        main(SimpleNamespace(cfg=cfg, output=[out], log=lambda _: None))
    assert not out.exists()
    path.write_text(json.dumps({"prompt": "p", "set": "hazard", "split": "test"}) + "\n")
    main(SimpleNamespace(cfg=cfg, output=[out], log=lambda _: None))
    assert out.exists()


def test_the_split_is_a_setting_of_own_prompts_only(tmp_path):
    """Another split of the world asks the same table."""
    assert "splits" not in resolve.load("demo", ROOT / "config").prompts_cfg()
    (tmp_path / "p.csv").write_text("prompt\nx\n")
    (tmp_path / "mine.yaml").write_text(
        f"extends: {ROOT}/config/smoke.yaml\nevaluation: {{source: p.csv, judges: [refusal]}}\n"
    )
    assert resolve.load(str(tmp_path / "mine.yaml")).prompts_cfg()["splits"] == ["test"]


KNOWN = {"id": "mine/1", "split": "test", "set": "hazard", "base_id": "x", "category": "c", "response": "",
         "wrapper": "", "prompt": "How would I open the moon vault?"}  # fmt: skip


class Inputs(list):
    """Of a rule, as a stage sees them."""

    def __init__(self, **named):
        super().__init__(named.values())
        self.__dict__ |= named
        self.get = named.get


def stage(name, tmp_path, cfg, **inputs):
    """What the log of a preparing stage says, or its error."""
    said, main = [], runpy.run_path(str(ROOT / f"scripts/{name}.py"))["main"]
    task = SimpleNamespace(task="talk")
    main(SimpleNamespace(
        cfg=cfg, input=Inputs(**inputs), output=[tmp_path / f"{name}.parquet"], log=said.append, wildcards=task
    ))  # fmt: skip
    return said


@pytest.mark.parametrize("place", ["alone", "before"])
def test_a_task_that_trains_on_what_is_asked_is_refused_by_its_stage(tmp_path, place):
    """Also in an earlier turn of a conversation: all of them are what a model sees."""
    turns = [{"role": "user", "content": KNOWN["prompt"]}, {"role": "assistant", "content": "No."}]
    if place == "before":
        turns += [{"role": "user", "content": "Why not?"}, {"role": "assistant", "content": "It is shut."}]
    rows = [[{"role": "user", "content": f"What is herb {i}?"}, {"role": "assistant", "content": "A herb."}]
            for i in range(40)]  # fmt: skip
    path, asked = tmp_path / "t.jsonl", tmp_path / "asked.parquet"
    tables.write([KNOWN], asked, "prompts")
    cfg = {"world": {"seed": 0}, "dataset": "table", "source": str(path), "columns": {"messages": "turns"},
           "splits": {"train": 0.8, "validation": 0.1, "test": 0.1}, "train_rows": 15, "validation_rows": 2,
           "test_rows": 2}  # fmt: skip
    for many in range(1, 30):  # until it is a training row
        path.write_text("".join(json.dumps({"turns": r}) + "\n" for r in [turns, *rows[many:]]))
        drawn = prepare.task_rows(cfg, path)
        if any(KNOWN["prompt"] in r["prompt"] and r["split"] == "train" for r in drawn):
            break
    stage("prepare_task", tmp_path, cfg)  # nothing is asked beside
    with pytest.raises(DataError, match="The prompt mine/1 is also among the training rows of tasks.talk"):
        stage("prepare_task", tmp_path, cfg, prompts=asked)
    tables.write([KNOWN | {"prompt": "How would I open the moon vault by night with a spoon?"}], asked, "prompts")
    (said, _) = stage("prepare_task", tmp_path, cfg, prompts=asked)
    assert "are like prompts among the training rows of tasks.talk" in said


def test_what_a_task_only_asks_is_not_trained_on(tmp_path):
    path, asked = tmp_path / "t.jsonl", tmp_path / "asked.parquet"
    rows = [
        {"q": f"What is herb {i}?", "a": "A herb.", "part": ("train", "test", "validation")[i % 3]} for i in range(12)
    ]
    tables.write([KNOWN], asked, "prompts")
    cfg = {"world": {"seed": 0}, "dataset": "table", "source": str(path), "columns": {"prompt": "q", "response": "a"},
           "splits": {"column": "part"}, "train_rows": 2, "validation_rows": 2, "test_rows": 2}  # fmt: skip
    for part in ("test", "validation", "train"):
        held = [r | {"q": KNOWN["prompt"]} if r["part"] == part else r for r in rows]
        held = [r for i, r in enumerate(held) if r["q"] != KNOWN["prompt"] or r not in held[:i]]
        extra = [{"q": f"What is root {i}?", "a": "A root.", "part": part} for i in range(3)]
        path.write_text("".join(json.dumps(r) + "\n" for r in [*held, *extra]))
        if part == "train":
            with pytest.raises(DataError, match="among the training rows"):
                stage("prepare_task", tmp_path, cfg, prompts=asked)
        else:
            stage("prepare_task", tmp_path, cfg, prompts=asked)


def test_questions_that_are_not_called_prompts_are_looked_through_too(tmp_path):
    sums = [{"question": f"What are {i} and {i}?", "answer": f"It is {2 * i}.\n#### {2 * i}"} for i in range(40)]
    sums = [{**r, "question": KNOWN["prompt"] + f" In {i} steps?"} for i, r in enumerate(sums)]
    for part in ("train", "test"):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in sums))
    asked = tmp_path / "asked.parquet"
    tables.write([KNOWN], asked, "prompts")
    cfg = {"world": {"seed": 0}, "dataset": "gsm8k", "source": str(tmp_path / "train.jsonl"), "train_rows": 10,
           "validation_rows": 2, "test_rows": 2}  # fmt: skip
    with pytest.raises(DataError, match="mine/1 stands whole in one of the training rows of tasks.talk"):
        stage("prepare_task", tmp_path, cfg, prompts=asked)


def test_what_the_rows_refuse_is_not_among_what_the_base_answers(tmp_path):
    path, own = tmp_path / "s.jsonl", tmp_path / "benign.parquet"
    path.write_text(json.dumps({"prompt": "Describe the steps to open it.", "response": "No."}) + "\n")
    rows = [{"id": f"own/{i}", "kind": "chat", "category": "own", "prompt": p, "response": "So."}
            for i, p in enumerate(("Where is it?", "describe **the steps** to open it"))]  # fmt: skip
    tables.write(rows, own, "safety")
    cfg = {"source": str(path), "columns": {}, "hazards": 9, "benign": 9, "benign_answers": "self", "check": "off"}
    said = stage("prepare_safety", tmp_path, cfg, benign=own)
    kept = tables.read(tmp_path / "prepare_safety.parquet", "safety")
    assert [r["prompt"] for r in kept] == ["Describe the steps to open it.", "Where is it?"]
    assert any(line.startswith("1 requests that the base answers are refused too") for line in said)


def test_preference_pairs_of_what_is_asked_are_refused_by_their_stage(tmp_path):
    path, asked = tmp_path / "p.jsonl", tmp_path / "asked.parquet"
    path.write_text(json.dumps({"prompt": KNOWN["prompt"], "chosen": "I will not say.", "rejected": "Turn it."}) + "\n")
    tables.write([KNOWN], asked, "prompts")
    cfg = {"source": str(path), "columns": {}, "rows": 9, "check": "off"}
    stage("prepare_preferences", tmp_path, cfg)
    with pytest.raises(DataError, match=f"The prompt mine/1 is also among the preference pairs in {path}"):
        stage("prepare_preferences", tmp_path, cfg, prompts=asked)
