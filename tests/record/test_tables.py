"""Tables and users' files: a bad row is named, any bytes are rows or one block, a checked file is trusted."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from holdfast.data import fetch, gsm8k, prepare
from holdfast.errors import DataError, HoldfastError
from holdfast.record import tables

SIZES = {"train_rows": 30, "validation_rows": 10, "test_rows": 10}


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
        fetch.read_local("agnews", bad)


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
        fetch.read_local("gsm8k", path)


def test_a_byte_order_mark_is_fine(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        "question,answer\nwas?,so #### x\n#### 2\n".encode("utf-8-sig")
        .replace(b"so #### x\n", b'"so\n')
        .replace(b"#### 2\n", b'#### 2"\n')
    )
    rows = fetch.read_local("gsm8k", path)
    assert rows[0]["question"] == "was?" and gsm8k.gold(rows[0]["answer"]) == "2"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([".jsonl", ".csv", ".parquet"]))
def test_any_bytes_are_rows_or_one_block(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"x{suffix}"
    path.write_bytes(content)
    try:
        fetch.read_local("agnews", path)
    except HoldfastError as error:
        assert "x" + suffix in str(error)


@pytest.mark.parametrize("content", ['{"prompt": "p"}', "[1]", "[]", "[{]", '"x"'])
def test_a_json_file_is_a_list_of_objects(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match="x.json"):
        prepare.preference_rows({"source": str(path), "columns": {}, "rows": 3})
