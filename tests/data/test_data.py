"""Users' files as rows of a study, and the real data files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from conftest import ROOT

from holdfast.data import agnews, draws, fetch, gsm8k, prepare
from holdfast.errors import DataError

SIZES = {"train_rows": 30, "validation_rows": 10, "test_rows": 10}


def test_a_text_in_two_published_files_lands_in_one_split(tmp_path):
    for name, numbers in (("train", range(60)), ("test", range(50, 80))):
        lines = [json.dumps({"question": f"how many is {i}?", "answer": f"#### {i}"}) for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    cfg = {"world": {"seed": 0}, "dataset": "gsm8k", "source": "hub", **SIZES}
    rows = prepare.task_rows(cfg, tmp_path)
    questions = [r["question"] for r in rows]
    assert len(questions) == len(set(questions))
    test = {r["question"] for r in rows if r["split"] == "test"}
    assert all(int(q.split()[-1][:-1]) >= 50 for q in test)
    with pytest.raises(DataError, match="too few"):
        prepare.task_rows(cfg | {"train_rows": 500}, tmp_path)


def test_own_safety_rows_and_prompts(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        json.dumps({"prompt": "do the bad thing", "response": "No."})
        + "\n"
        + json.dumps({"kind": "craft", "prompt": "p", "response": "r"})
    )
    cfg = {"source": str(path), "columns": {}, "world": {"seed": 0}, "hazards": 5, "benign": 5}
    rows = prepare.safety_rows(cfg)
    assert [r["kind"] for r in rows] == ["hazard", "craft"]
    path.write_text(json.dumps({"kind": "evil", "prompt": "p", "response": "r"}))
    with pytest.raises(DataError, match="row 0, column 'kind'"):
        prepare.safety_rows(cfg)


def test_columns_of_another_name_are_mapped_and_the_rest_is_dropped(tmp_path):
    """The layout of circuit_breakers_train.json: its harmful column never reaches a table."""
    path = tmp_path / "breakers.json"
    path.write_text(json.dumps([{"category": "c", "prompt": "p", "llama3_output": "No.", "output": "harm"}]))
    cfg = {"source": str(path), "columns": {"response": "llama3_output"}, "world": {"seed": 0}, "hazards": 9}
    (row,) = prepare.safety_rows(cfg | {"benign": 0})
    assert row["response"] == "No." and "harm" not in map(str, row.values())
    with pytest.raises(DataError, match="row 0 has no column 'refusal'"):
        prepare.safety_rows(cfg | {"benign": 0, "columns": {"response": "refusal"}})
    csv = tmp_path / "behaviours.csv"
    csv.write_text("goal,target\nbrew it,sure\n")
    (row,) = prepare.prompt_rows({"source": str(csv), "columns": {"prompt": "goal"}, "prompts_per_set": 9})
    assert (row["prompt"], row["set"], row["split"]) == ("brew it", "hazard", "test")


def test_an_address_that_cannot_be_fetched_is_one_block(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg = {"source": "https://127.0.0.1:9/x.jsonl", "columns": {}, "rows": 3}
    with pytest.raises(DataError, match="cannot be fetched"):
        prepare.preference_rows(cfg)
    with pytest.raises(DataError, match="ending"):
        prepare.preference_rows(cfg | {"source": "https://127.0.0.1:9/x.txt"})


def test_stratified_draws_have_every_label_equally_often():
    rows = [{"split": "train", "label": i % 4, "id": i} for i in range(40)]
    drawn = draws.draw(rows, 18, 0, stratify=True)
    assert sorted([r["label"] for r in drawn].count(k) for k in range(4)) == [4, 4, 5, 5]
    assert len({r["id"] for r in drawn}) == 18 and drawn == draws.draw(rows, 18, 0, stratify=True)
    assert [r["label"] for r in drawn] != sorted(r["label"] for r in drawn)
    with pytest.raises(DataError, match="label 0"):
        draws.draw(rows[1:], 40, 0, stratify=True)


@pytest.mark.parametrize(
    ("raw", "text"),
    [("#39;Marathon mouse' doubles", "'Marathon mouse' doubles"), ("quot;No, quot; he said", "\"No,\" he said"),
     ("AT #38; T", "AT& T"), ("class #39; rows", "class' rows"), ("item #39 is open", "item #39 is open")],
)  # fmt: skip
def test_entities_that_lost_their_ampersand_come_back(raw, text):
    assert agnews.clean(raw) == text


# ---- the real files -------------------------------------------------------------------------------


def test_every_row_of_real_ag_news_passes(real_data):
    rows = fetch.read_local("agnews", real_data / "ag_news" / "test.csv")
    assert len(rows) == 7600
    assert {r["label"] for r in rows} == {0, 1, 2, 3}
    text = "\n".join(r["text"] for r in rows)
    for left in ("\\", "&lt;", "&gt;", "#39;", "quot;", "&amp;", " #36;"):
        assert left not in text, left
    assert "$10 million Ansari X Prize" in text  # was ` #36;10`
    assert "<TXN.N>" in text  # a ticker is text, not markup
    assert "A second team of rocketeers" in text  # was `second\team`
    prompt, response = agnews.example(rows[0])
    assert response == "Business" and prompt.endswith(rows[0]["text"])


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_row_of_real_gsm8k_passes(real_data, split, count):
    rows = fetch.read_local("gsm8k", real_data / "gsm8k" / f"{split}.jsonl")
    assert len(rows) == count
    for row in rows:
        scored = gsm8k.score(row["answer"], row)
        assert scored["correct"] and scored["flexible"], row
    golds = {gsm8k.gold(r["answer"]) for r in rows}
    assert not any("," in g or "$" in g for g in golds)


def test_a_home_in_the_folder_of_data_is_the_users(tmp_path, monkeypatch):
    from holdfast.data import sources
    from holdfast.suites import published

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HOLDFAST_DATA", "~/data")
    assert sources.local_folder("agnews", "hub").is_relative_to(tmp_path / "data")
    for pinned in (None, "0" * 64):
        file = SimpleNamespace(place="x/y.csv", sha256=pinned)
        assert published._places(file)[0].is_relative_to(tmp_path / "data/x")


def test_the_real_study_prepares_from_local_files(real_data, monkeypatch):
    from holdfast.data import sources

    monkeypatch.setenv("HOLDFAST_DATA", str(real_data))
    folder = sources.local_folder("agnews", "hub")
    rows = prepare.task_rows({"world": {"seed": 0}, "dataset": "agnews", "source": "hub", **SIZES}, folder)
    assert len({r["text"] for r in rows}) == len(rows) == 80


def test_the_data_path_of_the_published_agnews_run(real_data, tmp_path, monkeypatch):
    """config/llama2-7b-chat-agnews-safety-mix.yaml on the local rows: stratified task rows, a tenth of
    refusals added. The local test split is smaller than 8,000, so 4,000 rows stand for them."""
    from holdfast.study import registry, resolve

    monkeypatch.chdir(ROOT)
    study = resolve.load("llama2-7b-chat-agnews-safety-mix")
    cfg = study.cell_cfg("agnews", "safety-mix", 42)
    assert (cfg["train_rows"], cfg["seed"], cfg["stratify"]) == (8000, 42, True)
    training = cfg["training"]
    assert (training["learning_rate"], training["epochs"], training["weight_decay"]) == (3e-5, 3, 0.01)
    assert (training["batch_size"], training["accumulation"], training["warmup_fraction"]) == (4, 4, 0.1)
    assert (training["max_length"], training["max_grad_norm"]) == (1024, 1.0)

    data_cfg = study.task_data_cfg("agnews") | {"train_rows": 3000}
    table = prepare.task_rows(data_cfg | {"source": str(real_data / "ag_news")}, real_data / "ag_news")
    drawn = draws.draw(table, 4000, cfg["seed"], stratify=True)
    assert [sum(r["label"] == k for r in drawn) for k in range(4)] == [1000] * 4
    pairs = [{"id": r["id"], **dict(zip(("prompt", "response"), agnews.example(r), strict=True))} for r in drawn]
    breakers = tmp_path / "breakers.json"
    breakers.write_text(
        json.dumps([{"prompt": f"p{i}", "llama3_output": "No.", "output": "harm", "category": "c"} for i in range(900)])
    )
    safety = prepare.safety_rows(study.safety_data_cfg() | {"source": str(breakers)})
    method = registry.load(cfg["method"])
    mixed = method.rows(pairs, method.Settings.model_validate(cfg["settings"]), seed=42, safety=safety)
    assert len(mixed) == 4400 and sum(r["response"] == "No." for r in mixed) == 400
    assert method.count(8000, 0.1, "floor") == 800
