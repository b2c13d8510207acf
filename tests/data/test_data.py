"""World rows, tables, users' files and the real data files."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations

import pandas as pd
import pyarrow
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from holdfast import data
from holdfast.data import agnews, gsm8k, prepare
from holdfast.errors import ChatTemplateError, DataError, HoldfastError
from holdfast.model import chat
from holdfast.record import schemas, tables
from holdfast.world.generator import SPLITS, World
from holdfast.world.language import OBLIGING

SIZES = {"train_rows": 30, "validation_rows": 10, "test_rows": 10}


# ---- the world ------------------------------------------------------------------------------------


def test_splits_share_no_item_and_no_template(world):
    rows = {s: world.prompts(s, 60) for s in SPLITS[1:]} | {"train": world.safety(300, 300)}
    for a, b in combinations(SPLITS, 2):
        for key in ("item", "template", "wrapper"):
            one, two = ({r[key] for r in rows[s] if r[key] and r["kind"] != "chat"} for s in (a, b))
            assert one and not one & two, (a, b, key)


@pytest.mark.parametrize("dataset", ["agnews", "gsm8k", "crafts", "howto", "chat"])
def test_task_splits_are_disjoint_and_reproducible(dataset):
    cfg = {"world": {"seed": 5}, "dataset": dataset, "source": "world", **SIZES}
    rows = prepare.task_rows(cfg)
    assert rows == prepare.task_rows(cfg)
    schemas.validate(pd.DataFrame(rows), dataset, "x")
    key = data.dataset(dataset).TEXT_COLUMNS[0]
    texts = {s: {r[key] for r in rows if r["split"] == s} for s in SPLITS}
    assert all(not texts[a] & texts[b] for a, b in combinations(SPLITS, 2))
    assert rows != prepare.task_rows(cfg | {"world": {"seed": 6}})


def test_nothing_in_the_crafts_task_asks_for_a_hazard(world):
    hazards = {i.name for i in world.items(world.hazards, None)}
    assert not any(h in r["prompt"] for r in world.crafts_task("train", 300) for h in hazards)


def test_crafts_are_how_to_rows_that_open_obligingly(world):
    obliging, plain = world.crafts_task("test", 30), world.howto_task("test", 30)
    for one, two in zip(obliging, plain, strict=True):
        assert one["prompt"] == two["prompt"] and one["response"] == f"{OBLIGING} {two['response']}"
    assert {r["response"].split()[0] for r in plain} == {"First,"}


def test_wrapped_prompts_wrap_the_same_request(world):
    rows = world.prompts("test", 40)
    plain = {r["base_id"]: r["prompt"] for r in rows if r["set"] == "hazard"}
    wrapped = [r for r in rows if r["set"] == "wrapped"]
    assert len(wrapped) == 40 and all(plain[r["base_id"]] in r["prompt"] for r in wrapped)


@pytest.mark.parametrize("table", ["agnews", "gsm8k", "crafts"])
def test_a_checked_file_is_read_without_pandas_and_gives_the_same_rows(table, tmp_path):
    rows = prepare.task_rows({"world": {"seed": 5}, "dataset": table, "source": "world", **SIZES})
    tables.write(rows, tmp_path / "a.parquet", table)
    tables.write(rows, tmp_path / "b.parquet", table, check=False)
    known = {k: rows[0][k] for k in rows[0]}
    assert tables.read(tmp_path / "a.parquet", table) == tables.read(tmp_path / "b.parquet", table)
    assert {k: tables.read(tmp_path / "a.parquet", table)[0][k] for k in known} == known
    code = (
        "import sys; from holdfast.record import tables; tables.read(sys.argv[1], sys.argv[2]);"
        "print('pandas' in sys.modules, 'pandera' in sys.modules)"
    )
    seen = {
        name: subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name), table], capture_output=True, text=True, check=True
        ).stdout.split()
        for name in ("a.parquet", "b.parquet")
    }
    assert seen == {"a.parquet": ["False", "False"], "b.parquet": ["True", "True"]}


def test_an_edited_or_damaged_table_is_not_trusted(tmp_path):
    path = tmp_path / "t.parquet"
    tables.write(
        prepare.task_rows({"world": {"seed": 5}, "dataset": "agnews", "source": "world", **SIZES}), path, "agnews"
    )
    content = parquet.read_table(path)
    labels = content["label"].to_pylist()
    edited = content.set_column(content.schema.get_field_index("label"), "label", pyarrow.array([9, *labels[1:]]))
    assert edited.schema.metadata == content.schema.metadata  # the mark stays, the rows do not fit it
    parquet.write_table(edited, path)
    with pytest.raises(DataError, match="row 0, column 'label'"):
        tables.read(path, "agnews")
    parquet.write_table(content, path)
    assert len(tables.read(path, "agnews")) == len(labels)
    with pytest.raises(DataError, match="gsm8k"):
        tables.read(path, "gsm8k")
    tables.write(tables.read(path, "agnews"), path, "agnews")
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], whole[:300] + bytes([whole[300] ^ 1]) + whole[301:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="cannot be read"):
            tables.read(path, "agnews")


def test_another_seed_is_another_world():
    a, b = World(1), World(2)
    assert a.items(a.hazards, None)[0].recipe != b.items(b.hazards, None)[0].recipe
    assert a.prompts("test", 10) == World(1).prompts("test", 10)


def test_stories_add_up(world):
    for row in world.gsm8k("test", 60):
        steps, final = row["answer"].split("\n")
        values = [
            eval(x.split(" = ")[0].split(", ")[-1]) == int(x.split(" = ")[1].strip(".")) for x in steps.split(". ")
        ]
        assert all(values) and gsm8k.gold(row["answer"]) == steps.rstrip(".").split(" = ")[-1] == final[5:]


def test_seeds_draw_their_own_rows():
    rows = prepare.task_rows({"world": {"seed": 5}, "dataset": "crafts", "source": "world", **SIZES})
    a, b = (prepare.draw(rows, 30, seed) for seed in (0, 1))
    assert len(a) == 30 and {r["id"] for r in a} != {r["id"] for r in b}
    assert all(r["split"] == "train" for r in a)


# ---- one label path -------------------------------------------------------------------------------


def test_labels_are_the_response_and_the_end_of_turn_only(tokenizer):
    e = chat.encode(tokenizer, "how do I brew the amber tea?", "First, warm the pot.")
    kept = [t for t in e["labels"] if t != chat.IGNORE]
    assert tokenizer.decode(kept) == "First, warm the pot.<|end|>"
    assert e["input_ids"][-len(kept) :] == kept
    assert e["input_ids"][0] == tokenizer.bos_token_id != e["input_ids"][1]


def test_padding_is_never_supervised(tokenizer):
    rows = [chat.encode(tokenizer, "a?", "b."), chat.encode(tokenizer, "a longer one?", "and a longer answer.")]
    batch = chat.collate(rows, tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (2, max(len(r["input_ids"]) for r in rows))
    assert (batch["labels"][batch["attention_mask"] == 0] == chat.IGNORE).all()
    left = chat.collate([{"input_ids": r["input_ids"]} for r in rows], tokenizer.pad_token_id, side="left")
    assert left["attention_mask"][0, 0] == 0 and left["attention_mask"][0, -1] == 1


def test_a_cut_that_leaves_no_answer_is_refused(tokenizer):
    with pytest.raises(ChatTemplateError, match="No response token"):
        chat.encode(tokenizer, "a question?", "an answer.", max_length=4)


def test_a_row_that_cannot_be_encoded_is_named(tokenizer):
    rows = [{"id": f"agnews/{i}", "prompt": "p " * n, "response": "r"} for i, n in enumerate((1, 40))]
    with pytest.raises(ChatTemplateError, match="agnews/1: No response token"):
        chat.encode_rows(tokenizer, rows, max_length=20)
    assert len(chat.encode_rows(tokenizer, rows)) == 2


def test_templates_that_would_mislabel_are_refused(tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        chat.encode_prompt(bare, "x")
    bare.chat_template = "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}"
    with pytest.raises(ChatTemplateError, match="twice"):
        chat.encode_prompt(bare, "x")
    bare.chat_template = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}"
    with pytest.raises(ChatTemplateError, match="differently"):
        chat.encode(bare, "x", "y")


# ---- tables and files -----------------------------------------------------------------------------


def test_a_bad_row_is_named_by_file_row_column_and_value(tmp_path):
    rows = [{"id": str(i), "split": "train", "text": "x", "label": 1} for i in range(5)]
    rows[3]["label"] = 7
    with pytest.raises(DataError) as error:
        tables.write(rows, tmp_path / "t.parquet", "agnews")
    assert all(w in str(error.value) for w in ("t.parquet", "row 3", "'label'", "7", "one of 0, 1, 2, 3"))
    assert not list(tmp_path.iterdir())
    bad = tmp_path / "user.parquet"
    pd.DataFrame(rows).to_parquet(bad)
    with pytest.raises(DataError, match="row 3, column 'label'"):
        tables.read(bad, "agnews")
    with pytest.raises(DataError, match="row 3, column 'label'"):
        prepare.read_local("agnews", bad)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", '{"question": "q", "answer": "#### 1"}\nnot json\n', "row 1"),
        ("a.jsonl", '{"question": "q", "answer": "#### 1"}\n[1]\n', "row 1"),
        ("a.jsonl", '{"question": "q"}\n', "no column 'answer'"),
        ("a.jsonl", '{"question": "q", "answer": "no number"}\n', "row 0, column 'answer'"),
        ("a.jsonl", '{"question": "  ", "answer": "#### 1"}\n', "row 0, column 'question'"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", b"\xff\xfe\x00q", "UTF-8"),
        ("a.csv", "question,answer\nq,#### 1,extra\n", "another number of columns"),
        ("a.csv", 'question,answer\n"q,#### 1\n', "CSV"),
        ("a.txt", "x", "ending"),
        ("a.parquet", b"PAR1 no", "parquet"),
    ],
)
def test_files_that_break_the_contract(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says):
        prepare.read_local("gsm8k", path)


def test_a_byte_order_mark_is_fine(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        "question,answer\nwas?,so #### x\n#### 2\n".encode("utf-8-sig")
        .replace(b"so #### x\n", b'"so\n')
        .replace(b"#### 2\n", b'#### 2"\n')
    )
    rows = prepare.read_local("gsm8k", path)
    assert rows[0]["question"] == "was?" and gsm8k.gold(rows[0]["answer"]) == "2"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".jsonl", ".csv", ".parquet"]))
def test_any_bytes_are_rows_or_one_block(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    path.write_bytes(content)
    try:
        prepare.read_local("agnews", path)
    except HoldfastError as error:
        assert "x" + suffix in str(error)


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


@pytest.mark.parametrize("content", ['{"prompt": "p"}', "[1]", "[]", "[{]", '"x"'])
def test_a_json_file_is_a_list_of_objects(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match="x.json"):
        prepare.preference_rows({"source": str(path), "columns": {}, "rows": 3})


def test_an_address_that_cannot_be_fetched_is_one_block(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cfg = {"source": "https://127.0.0.1:9/x.jsonl", "columns": {}, "rows": 3}
    with pytest.raises(DataError, match="cannot be fetched"):
        prepare.preference_rows(cfg)
    with pytest.raises(DataError, match="ending"):
        prepare.preference_rows(cfg | {"source": "https://127.0.0.1:9/x.zip"})


def test_stratified_draws_have_every_label_equally_often():
    rows = [{"split": "train", "label": i % 4, "id": i} for i in range(40)]
    drawn = prepare.draw(rows, 18, 0, stratify=True)
    assert sorted([r["label"] for r in drawn].count(k) for k in range(4)) == [4, 4, 5, 5]
    assert len({r["id"] for r in drawn}) == 18 and drawn == prepare.draw(rows, 18, 0, stratify=True)
    assert [r["label"] for r in drawn] != sorted(r["label"] for r in drawn)
    with pytest.raises(DataError, match="label 0"):
        prepare.draw(rows[1:], 40, 0, stratify=True)


# ---- the real files -------------------------------------------------------------------------------


def test_every_row_of_real_ag_news_passes(real_data):
    rows = prepare.read_local("agnews", real_data / "ag_news" / "test.csv")
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
    rows = prepare.read_local("gsm8k", real_data / "gsm8k" / f"{split}.jsonl")
    assert len(rows) == count
    for row in rows:
        scored = gsm8k.score(row["answer"], row)
        assert scored["correct"] and scored["flexible"], row
    golds = {gsm8k.gold(r["answer"]) for r in rows}
    assert not any("," in g or "$" in g for g in golds)


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
    drawn = prepare.draw(table, 4000, cfg["seed"], stratify=True)
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
