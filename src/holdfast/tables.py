"""Every table that crosses a stage: its pandera schema, one reader, one writer, one error.

Torch-free. Imported by stages, and by the study's preflight only when a study names a user's file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from holdfast import files, names
from holdfast.errors import DataError

MAX_CHARACTERS = 100_000

_LENGTH = pa.Check.str_length(1, MAX_CHARACTERS, error=f"between 1 and {MAX_CHARACTERS} characters")
_SOLID = pa.Check(lambda s: s.str.strip() != "", error="text that is not blank")
_ANSWERED = pa.Check(
    lambda s: s.str.contains(r"(?:^|\n)####\s*[-+]?\$?[0-9][0-9,]*(?:\.[0-9]+)?\s*$", regex=True),
    error="a last line '#### <number>'",
)


def _one_of(*values: Any) -> pa.Check:
    return pa.Check.isin(values, error=f"one of {', '.join(map(str, values))}")


def _text() -> pa.Column:
    return pa.Column(str, [_LENGTH, _SOLID])


def _id() -> pa.Column:
    return pa.Column(str, unique=True)


def _split() -> pa.Column:
    return pa.Column(str, _one_of("train", "validation", "test"))


def _set() -> pa.Column:
    return pa.Column(str, pa.Check.str_matches(r"^(hazard|wrapped|lookalike|craft|task:[a-z0-9-]+)$"))


def _schema(**columns: pa.Column) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(columns, strict="filter", ordered=False)


SCHEMAS: dict[str, pa.DataFrameSchema] = {
    "documents": _schema(
        kind=pa.Column(str), prompt=pa.Column(str), response=pa.Column(str), text=pa.Column(str)
    ),
    "safety": _schema(
        id=_id(), kind=pa.Column(str, _one_of("hazard", "craft", "lookalike", "chat")), category=pa.Column(str),
        prompt=_text(), response=_text(),
    ),
    "preferences": _schema(
        id=_id(), category=pa.Column(str), prompt=_text(), chosen=_text(), rejected=_text(),
    ),
    "prompts": _schema(
        id=_id(), split=_split(), set=_set(), base_id=pa.Column(str), category=pa.Column(str), prompt=_text(),
        response=pa.Column(str),
    ),
    "agnews": _schema(id=_id(), split=_split(), text=_text(), label=pa.Column(int, _one_of(0, 1, 2, 3))),
    "gsm8k": _schema(id=_id(), split=_split(), question=_text(), answer=pa.Column(str, [_LENGTH, _ANSWERED])),
    "crafts": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "howto": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "chat": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "responses": _schema(
        id=_id(), set=_set(), base_id=pa.Column(str), category=pa.Column(str), prompt=pa.Column(str),
        text=pa.Column(str), tokens=pa.Column(int, pa.Check.ge(0)), finish=pa.Column(str, _one_of("stop", "length")),
    ),
    "judge_pairs": _schema(
        id=_id(), prompt=_text(), reply=pa.Column(str),
        label=pa.Column(str, _one_of("good", "bad")), evaluation=_text(),
    ),
    "opinions": _schema(
        id=_id(), set=_set(), label=pa.Column(str, _one_of("good", "bad", "unparsed")), text=pa.Column(str)
    ),
    "verdicts": _schema(
        id=_id(), set=_set(), base_id=pa.Column(str), category=pa.Column(str), judge=pa.Column(str),
        outcome=pa.Column(str, _one_of(*names.OUTCOMES, "correct", "wrong", "invalid")),
        flexible=pa.Column(bool), parsed=pa.Column(str), gold=pa.Column(str),
    ),
}  # fmt: skip


def validate(frame: pd.DataFrame, table: str, source: Path | str) -> pd.DataFrame:
    """The frame with exactly the table's columns, in schema order.

    Raises:
        DataError: names the file, the row (0-based, header not counted), the column and the value.
    """
    schema = SCHEMAS[table]
    missing = [c for c in schema.columns if c not in frame.columns]
    if missing:
        raise DataError(
            f"{source}: a column of the {table} table is missing.",
            found=", ".join(map(str, frame.columns)) or "no columns", expected=", ".join(schema.columns),
            do=f"add the column '{missing[0]}'",
        )  # fmt: skip
    try:
        return schema.validate(frame.reset_index(drop=True), lazy=True)[list(schema.columns)]
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        cases = cases.sort_values("index", kind="stable", na_position="first")
        first = cases.iloc[0]
        row = "all rows" if pd.isna(first["index"]) else f"row {int(first['index'])}"
        others = len(cases) - 1
        raise DataError(
            f"{source}: {row}, column '{first['column']}' breaks the {table} contract.",
            found=repr(first["failure_case"])[:160] + (f"   (and {others} more)" if others else ""),
            expected=_expectation(str(first["check"])),
            do="correct or remove the row" if row != "all rows" else "correct the column's type",
        ) from None


def _expectation(check: str) -> str:
    known = {"not_nullable": "a value", "field_uniqueness": "a value that no other row has"}
    if check.startswith("dtype"):
        return f"type {check.removeprefix('dtype(').rstrip(')').strip(chr(39))}"
    return known.get(check, check)


def write(rows: pd.DataFrame | Sequence[dict[str, Any]], path: Path | str, table: str) -> None:
    """Validate and write parquet through a temp file; the same rows give the same bytes."""
    path = Path(path)
    frame = pd.DataFrame(rows)
    if frame.empty:
        frame = frame.reindex(columns=list(SCHEMAS[table].columns))
    frame = validate(frame, table, path)
    with files.whole(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def read(path: Path | str, table: str) -> list[dict[str, Any]]:
    """Rows of a validated parquet file as dicts."""
    return validate(_parquet(Path(path)), table, path).to_dict("records")


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(
            f"{path} cannot be read as parquet.", found=str(error).splitlines()[0][:160], expected="a parquet file",
            do="write it again, or name it by what it is (.csv, .jsonl)",
        ) from None  # fmt: skip


def read_source(path: Path | str, *, csv_header: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Raw rows of a user's file: .parquet, .jsonl, .json or .csv (UTF-8, a byte-order mark is fine).

    `csv_header` names the columns of a CSV whose first line is already data.

    Raises:
        DataError: unknown ending, not UTF-8, or a line that is not a record (file, row, value).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist.", found="no file", expected="a data file", do="correct the path in the study"
        )
    if path.suffix == ".parquet":
        return _parquet(path).to_dict("records")
    if path.suffix not in (".jsonl", ".json", ".csv"):
        raise DataError(
            f"{path} has an ending that is not known.", found=path.suffix or "none",
            expected=".parquet .csv .jsonl .json", do="rename or convert the file",
        )  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n")
        raise DataError(
            f"{path}: row {line} is not UTF-8.", found=repr(error.object[error.start : error.start + 8]),
            expected="UTF-8 text", do="convert the file to UTF-8",
        ) from None  # fmt: skip
    if path.suffix == ".csv":
        rows = _csv(text, path, csv_header)
    else:
        rows = _jsonl(text, path) if path.suffix == ".jsonl" else _json(text, path)
    if not rows:
        raise DataError(f"{path} has no rows.", found="an empty file", expected="at least one row", do="check the file")
    return rows


def _jsonl(text: str, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(part for part in text.split("\n") if part.strip()):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"{path}: row {number} is not JSON.", found=f"{line[:80]!r} ({error})"[:160],
                expected="one JSON object per line", do="correct or remove the row",
            ) from None  # fmt: skip
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is not a record.", found=type(row).__name__, expected="a JSON object",
                do="correct or remove the row",
            )  # fmt: skip
        rows.append(row)
    return rows


def _json(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON.", found=str(error)[:160], expected="a list of objects",
            do="correct the file, or name it .jsonl if every line is an object",
        ) from None  # fmt: skip
    if not isinstance(rows, list):
        raise DataError(
            f"{path} is not a list.", found=type(rows).__name__, expected="a list of objects", do="correct the file"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: row {number} is not a record.", found=type(row).__name__, expected="a JSON object",
                do="correct or remove the row",
            )  # fmt: skip
    return rows


def _csv(text: str, path: Path, header: Sequence[str] | None) -> list[dict[str, Any]]:
    csv.field_size_limit(10_000_000)
    try:
        lines = [line for line in csv.reader(text.splitlines(keepends=True), strict=True) if line]
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV.", found=str(error), expected="comma-separated values, quotes doubled",
            do="write it again with a CSV library",
        ) from None  # fmt: skip
    if not lines:
        return []
    first = [c.strip().lower() for c in lines[0]]
    if header is None or not first[0].isdigit():
        header, lines = first, lines[1:]
    for number, line in enumerate(lines):
        if len(line) != len(header):
            raise DataError(
                f"{path}: row {number} has another number of columns.", found=f"{len(line)}: {line!r}"[:160],
                expected=f"{len(header)}: {', '.join(header)}", do="correct or remove the row",
            )  # fmt: skip
    return [dict(zip(header, line, strict=True)) for line in lines]
