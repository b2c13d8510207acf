"""The pandera contract of every table: which columns, which values, and the one error that names a bad cell.

Imported where a table is made or where a file does not say that it was checked (`record.tables`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from holdfast import names
from holdfast.errors import DataError

MAX_CHARACTERS = 100_000

_LENGTH = pa.Check(
    lambda s: s.astype(str).str.len().between(1, MAX_CHARACTERS), error=f"between 1 and {MAX_CHARACTERS} characters"
)
_SOLID = pa.Check(lambda s: s.astype(str).str.strip() != "", error="text that is not blank")
_ANSWERED = pa.Check(
    lambda s: s.astype(str).str.contains(r"(?:^|\n)####\s*[-+]?\$?[0-9][0-9,]*(?:\.[0-9]+)?\s*$", regex=True),
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


_SETS = "hazard|wrapped|lookalike|craft"


def _set() -> pa.Column:
    return pa.Column(str, pa.Check.str_matches(rf"^({_SETS}|task:[a-z0-9-]+)$"))


def _prompt_set() -> pa.Column:
    """Of a safety prompt; rows of tasks are asked by themselves."""
    return pa.Column(str, pa.Check.str_matches(rf"^({_SETS})$", error=f"one of {_SETS.replace('|', ', ')}"))


def _score() -> pa.Column:
    return pa.Column(float, pa.Check.in_range(0, 1, error="between 0 and 1"), nullable=True, coerce=True)


def _wrapper() -> pa.Column:
    """What a wrapped request is wrapped in, with {request} in its place; a table without it has none."""
    return pa.Column(str, default="")


def _schema(unique: list[str] | None = None, **columns: pa.Column) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(columns, strict="filter", ordered=False, add_missing_columns=True, unique=unique)


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
        id=_id(), split=_split(), set=_prompt_set(), base_id=pa.Column(str), category=pa.Column(str), prompt=_text(),
        response=pa.Column(str), wrapper=_wrapper(),
    ),
    "agnews": _schema(id=_id(), split=_split(), text=_text(), label=pa.Column(int, _one_of(0, 1, 2, 3))),
    "gsm8k": _schema(id=_id(), split=_split(), question=_text(), answer=pa.Column(str, [_LENGTH, _ANSWERED])),
    "crafts": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "howto": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "notes": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    "chat": _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), category=pa.Column(str)),
    **dict.fromkeys(
        ("table", "sst2", "samsum", "math"),
        _schema(id=_id(), split=_split(), prompt=_text(), response=_text(), gold=_text(), turns=pa.Column(str),
                row=pa.Column(str)),
    ),
    "responses": _schema(  # two tasks may ask the same row
        unique=["set", "id"], id=pa.Column(str), set=_set(), base_id=pa.Column(str), category=pa.Column(str),
        prompt=pa.Column(str), text=pa.Column(str), tokens=pa.Column(int, pa.Check.ge(0)),
        finish=pa.Column(str, _one_of(*names.FINISHES)),
        wrapper=_wrapper(), generation=pa.Column(str, default=""),
    ),
    "judge_pairs": _schema(
        id=_id(), prompt=_text(), reply=pa.Column(str),
        label=pa.Column(str, _one_of("good", "bad")), evaluation=_text(),
    ),
    "judge_examples": _schema(id=_id(), prompt=_text(), response=_text()),
    "opinions": _schema(id=_id(), set=_set(), label=pa.Column(str), score=_score(), text=pa.Column(str)),
    "capabilities": _schema(
        unique=["capability", "id"], id=pa.Column(str), capability=pa.Column(str), task=pa.Column(str),
        metric=pa.Column(str), version=pa.Column(str), correct=pa.Column(bool),
    ),
    "verdicts": _schema(
        id=pa.Column(str), set=_set(), base_id=pa.Column(str), category=pa.Column(str), judge=pa.Column(str),
        label=pa.Column(str), outcome=pa.Column(str, _one_of(*names.OPINIONS, "correct", "wrong", "invalid")),
        score=_score(), text=pa.Column(str), wrapper=_wrapper(), flexible=pa.Column(bool),
        parsed=pa.Column(str), gold=pa.Column(str),
        # Files of earlier releases do not say the judge's version, nor how the answer ended.
        version=pa.Column(str, default=""), finish=pa.Column(str, _one_of(*names.FINISHES, ""), default=""),
    ),
}  # fmt: skip


def validate(frame: pd.DataFrame, table: str, source: Path | str) -> pd.DataFrame:
    """The frame with exactly the table's columns, in schema order.

    Raises:
        DataError: names the file, the row (0-based, header not counted), the column and the value.
    """
    schema = SCHEMAS[table]
    missing = [c for c, column in schema.columns.items() if c not in frame.columns and column.default is None]
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
    known = {"not_nullable": "a value", "field_uniqueness": "a value that no other row has",
             "multiple_fields_uniqueness": "what no other row has together"}  # fmt: skip
    if check.startswith("dtype"):
        return f"type {check.removeprefix('dtype(').rstrip(')').strip(chr(39))}"
    return known.get(check, check)


def checked(rows: Any, table: str, path: Path | str) -> pd.DataFrame:
    """`validate` of a frame or of dicts; no rows at all give an empty table."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        frame = frame.reindex(columns=list(SCHEMAS[table].columns))
    return validate(frame, table, path)
