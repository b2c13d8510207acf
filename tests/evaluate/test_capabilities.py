"""What models can do elsewhere: the harness's tasks on a model of ours, the table, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from herbs import harness, task_files

from holdfast import statistics
from holdfast.errors import DataError, StudyError
from holdfast.evaluate import capabilities
from holdfast.model import folders
from holdfast.record import csvfiles, tables
from holdfast.study import preflight, resolve


def by_hand(folder: Path, rows: list[dict], *, chats: bool = True) -> list[bool]:
    """Which rows are right by the likelihood of each choice per byte: what the harness calls acc_norm."""
    model, tokenizer = folders.load(folder)
    found = []
    for row in rows:
        text = (
            tokenizer.apply_chat_template(
                [{"role": "user", "content": row["question"]}], tokenize=False, add_generation_prompt=True
            )
            if chats
            else row["question"]
        )
        before = tokenizer(text, add_special_tokens=False)["input_ids"]
        scores = []
        for choice in row["choices"]:
            whole = tokenizer(text + (choice if chats else f" {choice}"), add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logs = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            scores.append(sum(float(logs[i - 1, whole[i]]) for i in range(len(before), len(whole))) / len(choice))
        found.append(int(np.argmax(scores)) == row["right"])
    return found


@harness
def test_the_harness_asks_our_models_as_we_would(model, tokenizer, tmp_path):
    torch.manual_seed(0)
    folders.save(model, tokenizer, tmp_path / "model", header={"role": "aligned"})
    own = task_files(tmp_path / "own")
    cfg = {"tasks": ["lore", "herbs"], "task_files": str(own), "limit": 10, "fewshot": None, "chat_template": True,
           "batch_size": 4}  # fmt: skip
    out = tmp_path / "capabilities.parquet"
    capabilities.measure(tmp_path / "model/model.safetensors", cfg, out)
    first = out.read_bytes()
    rows = tables.read(out, "capabilities")
    assert {(r["capability"], r["task"]) for r in rows} == {
        ("lore", "herbs"), ("lore", "more_herbs"), ("herbs", "herbs")
    }  # fmt: skip
    assert len(rows) == 30 and {r["metric"] for r in rows} == {"acc_norm"}
    questions = [json.loads(line) for line in (own / "rows.jsonl").read_text().splitlines()[:10]]
    expected = by_hand(tmp_path / "model", questions)
    assert 0 < sum(expected) < 10
    assert [r["correct"] for r in rows if r["capability"] == "herbs"] == expected
    capabilities.measure(tmp_path / "model/model.safetensors", cfg, out)
    assert out.read_bytes() == first


@harness
def test_an_unknown_task_is_refused_before_any_job(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(capabilities._CHECKED, raising=False)
    study = {
        "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}},
        "constitution": {"guidelines_file": str(Path("config/guidelines/world.txt").resolve())},
        "capabilities": {"tasks": ["helaswag"]},
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(SystemExit) as left:
        preflight.study(str(tmp_path / "own.yaml"), tmp_path)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "capabilities.tasks" in said and "did you mean 'hellaswag'?" in said
    own = task_files(tmp_path / "own")
    study["capabilities"] = {"tasks": ["lore"], "task_files": str(own)}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    assert preflight.study(str(tmp_path / "own.yaml"), tmp_path).capability_cells == [
        {"task": task, "arm": arm, "seed": 0} for task, arm in ((None, "base"), (None, "aligned"), ("crafts", "full"))
    ]  # fmt: skip
    monkeypatch.setattr(capabilities, "_manager", lambda _: pytest.fail("asked again by a job of the same run"))
    preflight.study(str(tmp_path / "own.yaml"), tmp_path)
    assert capabilities._CHECKED in os.environ


def test_a_score_that_is_not_right_or_wrong_is_refused():
    with pytest.raises(StudyError, match="bleu_task"):
        capabilities.scored("bleu_task", [{"doc_id": 0, "filter": "none", "bleu": 0.3, "metrics": ["bleu"]}], 1)
    with pytest.raises(StudyError) as error:
        capabilities.scored("empty", [], 1)
    assert error.value.found == "no rows"


def test_the_first_filter_counts_and_rows_are_in_order():
    samples = [
        {"doc_id": i, "filter": name, "exact_match": float(i == 1 and name == "strict")}
        for name in ("strict", "flexible") for i in (1, 0)
    ]  # fmt: skip
    rows = capabilities.scored("sums", samples, 3.0)
    assert [(r["id"], r["correct"], r["version"]) for r in rows] == [("sums/0", False, "3.0"), ("sums/1", True, "3.0")]


def test_groups_within_groups_are_opened():
    groups = {"mmlu": ["mmlu_stem", "mmlu_other"], "mmlu_stem": ["a", "b"], "mmlu_other": ["c"], "hellaswag": []}
    assert capabilities._leaves("mmlu", groups) == ["a", "b", "c"]
    assert capabilities._leaves("hellaswag", groups) == ["hellaswag"]


def written(folder: Path, right: dict[str, np.ndarray]) -> list[Path]:
    """One file per model: `right[name]` (rows,) of booleans."""
    out = []
    for name, found in right.items():
        out.append(folder / f"{name}.parquet")
        rows = [{"id": f"herbs/{i}", "capability": "herbs", "task": "herbs", "metric": "acc", "version": "1.0",
                 "correct": bool(x)} for i, x in enumerate(found)]  # fmt: skip
        tables.write(rows, out[-1], "capabilities")
    return out


def test_the_table_has_paired_differences_with_intervals_over_rows_and_seeds(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.random(200) < 0.6
    worse = [before & (rng.random(200) < 0.7) for _ in range(4)]
    files = written(
        tmp_path,
        {"base": ~before, "aligned": before}
        | {f"full{i}": found for i, found in enumerate(worse)}
        | {f"warp{i}": before for i in range(4)},
    )
    asked = [(None, "base", 0), (None, "aligned", 0), *(("news", arm, i) for arm in ("full", "warp") for i in range(4))]
    cells = [dict(zip(("task", "arm", "seed"), cell, strict=True)) for cell in asked]
    capabilities.build(files, cells, tmp_path / "capabilities.csv")
    rows = {r["arm"]: r for r in csvfiles.read_csv(tmp_path / "capabilities.csv")}
    assert list(rows) == ["base", "aligned", "full", "warp"] and rows["base"]["minus_aligned"] == ""
    expected = statistics.paired_difference(np.array(worse, float), np.array([before] * 4, float))
    assert float(rows["full"]["minus_aligned"]) == pytest.approx(expected.effect, abs=1e-6)
    assert float(rows["full"]["minus_aligned_high"]) < 0 and float(rows["full"]["p_holm"]) < 0.05
    assert float(rows["warp"]["minus_aligned"]) == 0 and float(rows["warp"]["p_holm"]) == 1
    assert float(rows["warp"]["minus_aligned_low"]) < 0 < float(rows["warp"]["minus_aligned_high"])
    assert rows["full"]["n"] == "200" and rows["full"]["seeds"] == "4"
    assert capabilities.rates(files[1]) == {"capability/herbs": float(before.mean())}


def test_models_that_were_asked_other_rows_are_not_compared(tmp_path):
    files = written(tmp_path, {"aligned": np.ones(8), "full": np.ones(7)})
    with pytest.raises(DataError, match="other rows"):
        cells = [{"task": task, "arm": arm, "seed": 0} for task, arm in ((None, "aligned"), ("news", "full"))]
        capabilities.build(files, cells, tmp_path / "capabilities.csv")


def test_replicates_are_compared_with_the_aligned_model_they_start_from(tmp_path):
    before = [np.arange(40) < 40, np.arange(40) < 20]
    files = written(tmp_path, {f"aligned{i}": x for i, x in enumerate(before)} | {
        f"full{i}": before[start] for i, start in enumerate((0, 0, 1))})  # fmt: skip
    cells = [{"task": None, "arm": "aligned", "seed": 0, "replicate": r} for r in (0, 2)]
    cells += [{"task": "news", "arm": "full", "seed": 0, "replicate": r, "aligned": a, "unit": a}
              for r, a in ((0, 0), (1, 0), (2, 2))]  # fmt: skip
    capabilities.build(files, cells, tmp_path / "capabilities.csv")
    row = csvfiles.read_csv(tmp_path / "capabilities.csv")[1]
    assert (row["arm"], row["replicates"], float(row["minus_aligned"]), float(row["rate"])) == ("full", "2", 0.0, 0.75)


def test_a_study_names_each_task_once(tmp_path):
    study = {"tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study | {"capabilities": {"tasks": ["mmlu", "mmlu"]}}))
    with pytest.raises(StudyError, match="once"):
        resolve.load(str(tmp_path / "own.yaml"))


def test_our_own_questions_have_one_right_answer_of_four_different_ones():
    rows = [json.loads(line) for line in (ROOT / "config/capabilities/everyday.jsonl").read_text().splitlines()]
    assert len(rows) > 100 and len({r["question"] for r in rows}) == len(rows)
    for r in rows:
        assert len(set(r["choices"])) == 4 and r["right"] in range(4) and not r["question"].endswith((" ", "."))
    first = [sum(r["right"] == i for r in rows) for i in range(4)]
    assert max(first) - min(first) < 5  # who always takes the first is right as often as who takes the last


@harness
def test_the_harness_knows_our_questions_and_asks_them_as_we_would(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where studies are run
    torch.manual_seed(0)
    folders.save(model, tokenizer, tmp_path / "model", header={"role": "aligned"})
    cfg = resolve.load("real-small").capabilities_cfg() | {"limit": 30}
    capabilities.check(cfg["tasks"], cfg["task_files"], Path("mine.yaml"))
    out = tmp_path / "capabilities.parquet"
    capabilities.measure(tmp_path / "model/model.safetensors", cfg, out)
    lines = Path("config/capabilities/everyday.jsonl").read_text().splitlines()[:30]
    expected = by_hand(tmp_path / "model", [json.loads(line) for line in lines], chats=False)
    found = sorted(tables.read(out, "capabilities"), key=lambda r: int(r["id"].split("/")[1]))
    assert 0 < sum(expected) < 30 and [r["correct"] for r in found] == expected
