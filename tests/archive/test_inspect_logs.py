"""Answers and verdicts as logs of Inspect: what is in them, what is left out, and that Inspect itself takes them."""

from __future__ import annotations

import json
import re

import pytest
import reported
import yaml
from conftest import ROOT

from holdfast import names
from holdfast.archive import inspect_logs
from holdfast.cli.main import main
from holdfast.record import jsonfiles, tables
from holdfast.study import resolve

SETTINGS = {"source": "suites", "max_new_tokens": 48}
SECRETS = ("how do i cast a hex", "take black wax", "the judge quotes", "goldgold")


@pytest.fixture
def results(tmp_path):
    """Two models of two judges below results/s, as a study lays them out; texts are the secrets."""
    made = reported.models(
        tmp_path / "made", [(None, "aligned", 0, 0.9, 0.1), ("gsm8k", "full", 0, 0.1, 0.9)], lambda *_: SECRETS[1],
        SECRETS[0], ("world", "refusal"),
    )  # fmt: skip
    results = tmp_path / "results/s"
    for path, place in zip(made, ("models/aligned", "gsm8k/full/seed0"), strict=True):
        rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        words = {"text": SECRETS[2], "parsed": SECRETS[3], "gold": SECRETS[3]}
        tables.write([r | words for r in rows], path.with_name("verdicts.parquet"), "verdicts")
        metrics = jsonfiles.read_json(path)
        rates = {names.REFUSAL_RATE: 0.1, f"{names.REFUSAL_RATE}_low": 0.05, f"{names.REFUSAL_RATE}_high": 0.2}
        metrics["metrics"] = rates | {f"{names.REFUSAL_RATE}_n": 100, "utility/exact_match": 0.9}
        jsonfiles.write_json(path, metrics)
        (results / place).parent.mkdir(parents=True)
        path.parent.rename(results / place)
    return results


def written(results, out, *, texts):
    metrics = sorted(results.rglob("metrics.json"))
    inspect_logs.build(metrics, results, out, SETTINGS, texts=texts)
    return sorted(out.iterdir(), key=lambda f: f.name.split("_", 1)[1])  # the time before it is that of the model


def test_a_log_per_model_has_every_answer_and_verdict(results, tmp_path):
    files = written(results, tmp_path / "logs", texts=True)
    assert [re.sub(r"^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d_", "", f.name) for f in files] == [
        "s_gsm8k-full-seed0.json", "s_models-aligned.json"
    ]  # fmt: skip
    log = json.loads(files[0].read_text())
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]  # in the schema's order
    folder = results / "gsm8k/full/seed0"
    responses = tables.read(folder / "responses.parquet", "responses")
    verdicts = tables.read(folder / "verdicts.parquet", "verdicts")
    assert [s["id"] for s in log["samples"]] == [f"{r['set']}/{r['id']}" for r in responses]
    assert len({s["id"] for s in log["samples"]}) == len(log["samples"]) == 500
    grades = {"correct": "C", "wrong": "I"}
    assert {(s["id"], judge): score["value"] for s in log["samples"] for judge, score in s["scores"].items()} == {
        (f"{v['set']}/{v['id']}", v["judge"]): grades.get(v["outcome"], v["outcome"]) for v in verdicts
    }  # fmt: skip
    targets = {s["metadata"]["set"].split(":")[0]: s["target"] for s in log["samples"]}
    assert targets == {"hazard": "refusal", "wrapped": "refusal", "lookalike": "compliance", "craft": "compliance",
                       "task": SECRETS[3]}  # fmt: skip
    assert log["samples"][0]["messages"][1]["content"] == log["samples"][0]["output"]["completion"] == SECRETS[1]
    disputed = sum(s["metadata"]["judges_disagree"] for s in log["samples"])
    assert disputed == 40 and log["eval"]["metadata"]["redacted"] is False


def test_rates_stand_under_their_judge_with_their_intervals(results, tmp_path):
    log = json.loads(written(results, tmp_path / "logs", texts=True)[0].read_text())
    scores = {s["name"]: s for s in log["results"]["scores"]}
    rate = {"name": "refusal_rate", "value": 0.1, "metadata": {"low": 0.05, "high": 0.2, "n": 100}}
    exact = {"name": "exact_match", "value": 0.9, "metadata": {}}
    assert {name: s["metrics"] for name, s in scores.items()} == {
        "world": {"refusal_rate": rate}, "gsm8k": {"exact_match": exact}, "refusal": {}
    }  # fmt: skip
    assert {name: s["scored_samples"] for name, s in scores.items()} == {"world": 400, "gsm8k": 100, "refusal": 400}


def test_no_text_is_in_a_log_unless_it_is_asked_for(results, tmp_path):
    for file in written(results, tmp_path / "logs", texts=False):
        text = file.read_text()
        assert not [secret for secret in SECRETS if secret in text]
        log = json.loads(text)
        assert log["eval"]["metadata"]["redacted"] is True and len(log["samples"]) == 500
        assert (
            {s["input"] for s in log["samples"]}
            == {s["output"]["completion"] for s in log["samples"]}
            == {"[redacted]"}
        )


@pytest.mark.parametrize("texts", [True, False])
def test_inspect_takes_the_logs(results, tmp_path, texts):
    """Read by Inspect as its viewer reads them, strictly: what it does not know of a log it would drop silently."""
    pytest.importorskip("inspect_ai", reason="no Inspect here (pip install inspect-ai)")
    from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log

    files = written(results, tmp_path / "logs", texts=texts)
    listed = list_eval_logs(str(tmp_path / "logs"))
    assert len(listed) == len(files) == 2
    for info in listed:
        whole, head = read_eval_log(info), read_eval_log(info, header_only=True)
        assert whole.status == head.status == "success" and len(whole.samples) == 500 and head.eval.task == "s"
    for file in files:
        theirs = EvalLog.model_validate(json.loads(file.read_text())).model_dump(mode="json")
        assert [*missing(json.loads(file.read_text()), theirs)] == []


def missing(ours, theirs, at=""):
    """Where a value of ours is not the same in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from missing(value, theirs.get(key, "(no such key)"), f"{at}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, value in enumerate(ours):
            yield from missing(value, theirs[i], f"{at}[{i}]")
    elif ours != theirs and not at.endswith((".created", ".started_at", ".completed_at")):
        yield f"{at}: {ours!r} is {theirs!r}"


def test_the_verb_redacts_what_is_not_fictional_and_says_what_it_wrote(results, tmp_path, monkeypatch, capsys):
    project = tmp_path / "project"
    (project / "config").mkdir(parents=True)
    monkeypatch.chdir(project)
    study = {
        "evaluation": {"suites": ["xstest"]}, "tasks": {"gsm8k": {"dataset": "gsm8k"}}, "seeds": [0],
        "arms": {"full": {"method": "full"}, "warp": {"method": "warp"}},
        "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
    }  # fmt: skip
    (project / "config/s.yaml").write_text(yaml.safe_dump(study))
    resolved = resolve.load("s")
    assert main(["answers", "s"]) == 2
    assert "No model of the study 's' is judged yet" in capsys.readouterr().err
    (project / "results").mkdir()
    results.rename(project / "results/s")
    count = len(resolved.places) + len(resolved.role_places)
    assert main(["answers", "s"]) == 0
    said = capsys.readouterr().out
    assert said == f"answers/s.html: answers of 2 of {count} models so far, redacted (--texts writes them)\n"
    assert main(["answers", "s", "--format", "inspect"]) == 0
    assert "inspect view --log-dir answers/s" in capsys.readouterr().out
    made = [project / "answers/s.html", *(project / "answers/s").iterdir()]
    assert len(made) == 3 and not [f for f in made if any(secret in f.read_text() for secret in SECRETS)]
    assert main(["answers", "s", "--format", "inspect"]) == 2  # which is there already
    assert "2 files in it" in capsys.readouterr().err
    assert main(["answers", "s", "--format", "inspect", "--texts", "--out", "open"]) == 0
    assert all(SECRETS[1] in f.read_text() for f in (project / "open").iterdir())
