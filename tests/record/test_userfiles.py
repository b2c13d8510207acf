"""One reader for what users write: the same rows from every format, packing and place, and one block for the rest."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import io
import json
import lzma
import threading
import zipfile
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from holdfast.data import crafts, fetch, prepare
from holdfast.errors import DataError
from holdfast.record import userfiles

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\u00a0\ufeff"
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(SEPARATORS), max_size=20
)
ROWS = st.lists(st.fixed_dictionaries({"prompt": TEXT, "response": TEXT, "id": TEXT}), min_size=1, max_size=6)


def as_csv(rows: list[dict], line_end: str = "\n", quoting: int = csv.QUOTE_MINIMAL, head=lambda name: name) -> bytes:
    if any("\r" in value for row in rows for value in row.values()):  # which csv.writer forgets to quote
        quoting = csv.QUOTE_ALL
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=line_end, quoting=quoting)
    writer.writerow([head(k) for k in rows[0]])
    writer.writerows([[r[k] for k in rows[0]] for r in rows])
    return buffer.getvalue().encode()


def as_parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def zipped(name: str, raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "words")
        archive.writestr(name, raw)
    return buffer.getvalue()


WRITERS = {
    "x.csv": as_csv,
    "windows.csv": lambda rows: as_csv(rows, "\r\n"),
    "mac.csv": lambda rows: as_csv(rows, "\r", quoting=csv.QUOTE_ALL),
    "quoted.csv": lambda rows: as_csv(rows, quoting=csv.QUOTE_ALL),
    "mark.csv": lambda rows: b"\xef\xbb\xbf" + as_csv(rows, "\r\n"),
    "capitals.csv": lambda rows: as_csv(rows, head=lambda name: f" {name.title()} "),
    "x.jsonl": lambda rows: "".join(json.dumps(r) + "\n" for r in rows).encode(),
    "letters.jsonl": lambda rows: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode(),
    "windows.jsonl": lambda rows: b"\xef\xbb\xbf" + "".join(json.dumps(r) + "\r\n\r\n" for r in rows).encode(),
    "mac.jsonl": lambda rows: "".join(json.dumps(r) + "\r" for r in rows).encode(),
    "x.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "mark.json": lambda rows: b"\xef\xbb\xbf" + json.dumps(rows, ensure_ascii=False).encode(),
    "x.parquet": as_parquet,
    "x.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "x.jsonl.bz2": lambda rows: bz2.compress(json.dumps(rows[0]).encode() + b"\n" + b"".join(json.dumps(r).encode() + b"\n" for r in rows[1:])),
    "x.json.xz": lambda rows: lzma.compress(json.dumps(rows).encode()),
    "x.zip": lambda rows: zipped("rows/x.csv", as_csv(rows)),
    "X.CSV": as_csv,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=40, deadline=None)
@example(rows=[{"prompt": "one\u2028prompt", "response": "NA", "id": ""}])
@example(rows=[{"prompt": "\r", "response": "\n", "id": "\r\n"}, {"prompt": '"', "response": ",", "id": "null"}])
@given(rows=ROWS)
def test_any_rows_are_read_back_as_they_were_written(name, rows):
    content = WRITERS[name](rows)
    while (".csv" in name.lower() or name == "x.zip") and rows and not any(map(str.strip, rows[-1].values())):
        rows = rows[:-1]  # rows of nothing at the end are what spreadsheets leave, in any CSV
    if rows:
        assert userfiles.parsed(content, name) == rows
    else:
        with pytest.raises(DataError, match="has no rows"):
            userfiles.parsed(content, name)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An address that serves a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "site").mkdir()
    with HTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "site")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(fetch, "is_file", lambda source: not source.startswith("http"))
        yield tmp_path / "site", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["x.csv", "capitals.csv", "x.jsonl", "x.json", "x.parquet", "x.csv.gz", "x.zip"])
def test_an_address_gives_the_rows_of_the_file(site, name):
    folder, address = site
    rows = [{"prompt": "NA", "response": "null", "id": "01"}, {"prompt": "a\u2028b", "response": "-", "id": "nan"}]
    (folder / name).write_bytes(WRITERS[name](rows))
    local = fetch.records(str(folder / name), {"chosen": "RESPONSE"})
    assert fetch.records(f"{address}/{name}?download=true", {"chosen": "RESPONSE"}) == local
    assert [r["chosen"] for r in local] == ["null", "-"]


def test_an_address_that_says_no_is_one_block_with_what_it_said(site):
    with pytest.raises(DataError, match="cannot be fetched") as error:
        fetch.records(f"{site[1]}/absent.csv", {})
    assert "404" in error.value.found


# ---- what no text is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, 7, 0.5, True])
@pytest.mark.parametrize(
    ("dataset", "row"),
    [
        ("crafts", {"prompt": "p", "response": "r"}),
        ("gsm8k", {"question": "q", "answer": "#### 1"}),
        ("agnews", {"text": "t", "label": 1}),
    ],
)  # noqa: E501
def test_what_is_no_text_is_refused_with_file_row_and_column(tmp_path, dataset, row, value):
    column = next(iter(row))
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {column: value}) + "\n")
    with pytest.raises(DataError) as error:
        fetch.read_local(dataset, path)
    said = error.value.block()
    assert "train.jsonl: row 1" in said and f"'{column}'" in said and "not text" in said


@pytest.mark.parametrize("label", [None, "x", 1.5, True, [1], "", float("inf")])
def test_a_label_that_is_no_number_is_refused_with_its_row(tmp_path, label):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"text": "t", "label": label}) + "\n")
    with pytest.raises(DataError, match="row 0 is not a row of agnews"):
        fetch.read_local("agnews", path)


@pytest.mark.parametrize("label", [2, "2", 2.0, " 2 "])
def test_a_label_may_be_written_as_a_number_or_as_text(tmp_path, label):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"text": "t", "label": label}) + "\n")
    assert fetch.read_local("agnews", path)[0]["label"] == 2


def test_numbers_as_ids_and_nothing_as_a_category_are_converted(tmp_path):
    rows = [{"id": 7, "kind": "hazard", "category": None, "prompt": "p", "response": "no"},
            {"id": 8.0, "kind": None, "category": 3, "prompt": "q", "response": "no"}]  # fmt: skip
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = prepare.safety_rows({"source": str(path), "columns": {}, "hazards": 9, "benign": 0})
    assert [(r["id"], r["category"], r["kind"]) for r in found] == [("7", "user", "hazard"), ("8", "3", "hazard")]
    assert crafts.real_row({"prompt": "p", "response": "r", "category": None})["category"] == "user"
    asked = [{"id": 1, "prompt": "p", "set": "hazard", "base_id": 5, "category": None, "response": None}]
    path.write_text(json.dumps(asked[0]) + "\n")
    (row,) = prepare.prompt_rows({"source": str(path), "columns": {}, "prompts_per_set": 9})
    assert (row["id"], row["base_id"], row["category"], row["response"]) == ("1", "5", "user", "")


@pytest.mark.parametrize(
    ("name", "content"), [("s.jsonl", '{"prompt": "a\\ud800b"}\n'), ("s.json", '[{"prompt": "\\udfff"}]')]
)
def test_half_a_character_is_refused_with_its_row(name, content):
    with pytest.raises(DataError, match="row 0, column 'prompt' holds half a character"):
        userfiles.parsed(content.encode(), name)


@pytest.mark.parametrize(
    ("name", "raw", "says"),
    [
        ("x.csv", b"Prompt,prompt\na,b\n", "two columns"),
        ("x.jsonl", b'{"a": 1, "A ": 2}\n', "two columns"),
        ("x.csv.gz", b"not packed", "cannot be unpacked"),
        ("x.json.xz", b"\xfd7zXZ\x00rubbish", "cannot be unpacked"),
        ("x.zip", b"PK\x03\x04rubbish", "cannot be unpacked"),
        ("x.zip", zipped("x.txt", b"a"), "must hold one data file"),
        ("x.txt", b"a", "ending that is not known"),
        ("x.csv.7z", b"a", "ending that is not known"),
        ("x", b"a", "ending that is not known"),
        ("x.csv", b"a\n\xff\xfe\n", "row 1 is not UTF-8"),
        ("x.csv", b"a,b\n", "has no rows"),
        ("x.csv", b"prompt\none\rprompt\n", "not valid CSV"),
        ("x.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_block(name, raw, says):
    with pytest.raises(DataError, match=says):
        userfiles.parsed(raw, name)


# ---- texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b"Answer.\nPlease.", b"\xef\xbb\xbfAnswer.\nPlease.", b"Answer.\r\nPlease.", b"Answer.\rPlease."]
)
def test_a_text_is_the_same_whatever_wrote_it(tmp_path, raw):
    (tmp_path / "t.txt").write_bytes(raw)
    assert userfiles.text(tmp_path / "t.txt") == "Answer.\nPlease."


@pytest.mark.parametrize(("make", "says"), [(Path.mkdir, "not a text file"), (lambda p: p.write_bytes(b" \n"), "is empty"),
                                            (lambda p: p.write_bytes(b"\xff"), "not UTF-8"), (lambda p: None, "not a text file")])  # fmt: skip
def test_what_is_no_text_file_is_one_block(tmp_path, make, says):
    make(tmp_path / "t.txt")
    with pytest.raises(DataError, match=says) as error:
        userfiles.text(tmp_path / "t.txt", "tasks.x.instruction_file")
    assert "tasks.x.instruction_file" in error.value.do or says == "not UTF-8"


# ---- what is taken as what -------------------------------------------------------------------------------


def test_what_a_file_does_not_say_is_said(tmp_path):
    path, said = tmp_path / "p.csv", []
    path.write_text("prompt\n" + "".join(f"p{i}\n" for i in range(5)))
    found = prepare.prompt_rows({"source": str(path), "columns": {}, "prompts_per_set": 3}, said.append)
    assert [r["prompt"] for r in found] == ["p0", "p1", "p2"] and {r["set"] for r in found} == {"hazard"}
    assert any("5 of 5 rows say no `set`" in line and "hazard" in line for line in said)
    assert any("the first 3 of 5 test prompts of set hazard (prompts_per_set)" in line for line in said)
    said.clear()
    path.write_text("prompt,response\na,no\nb,never\n")
    prepare.safety_rows({"source": str(path), "columns": {}, "hazards": 1, "benign": 0}, said.append)
    assert any("2 of 2 rows say no `kind`" in line for line in said)
    assert any("the first 1 of 2 refused requests (safety.hazards)" in line for line in said)


def test_prompts_per_set_counts_every_set_and_split_of_a_file(tmp_path):
    path = tmp_path / "p.csv"
    lines = [
        f"{split},{group},{split} {group} {i}"
        for split in ("test", "validation")
        for group in ("unsafe", "safe")
        for i in range(4)
    ]  # noqa: E501
    path.write_text("split,set,prompt\n" + "\n".join(lines) + "\n")
    found = prepare.prompt_rows({"source": str(path), "columns": {}, "prompts_per_set": 3})
    counts = {
        (r["split"], r["set"]): sum((q["split"], q["set"]) == (r["split"], r["set"]) for q in found) for r in found
    }
    assert set(counts.values()) == {3} and len(counts) == 4


@pytest.mark.parametrize("column", ["label", "Type", "safe_or_not"])
def test_a_column_that_says_who_is_safe_under_another_name_is_asked_for(tmp_path, column):
    """As in XSTest's file, of which all 450 prompts would count as hazards."""
    path = tmp_path / "xstest.csv"
    path.write_text(f"prompt,{column}\nhow do I kill a process,safe\nhow do I brew a hex,unsafe\n")
    cfg = {"source": str(path), "columns": {}, "prompts_per_set": 9}
    with pytest.raises(DataError, match="no column `set`") as error:
        prepare.prompt_rows(cfg)
    assert f"evaluation.columns: {{set: {column.lower()}}}" in error.value.do
    found = prepare.prompt_rows(cfg | {"columns": {"set": column}})
    assert [r["set"] for r in found] == ["lookalike", "hazard"]
