"""The contract of small result tables that are CSV: checked before they are written, with the one error that names a
bad cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandera.pandas as pa

from holdfast.record import csvfiles, schemas


def _number(*checks: pa.Check) -> pa.Column:
    return pa.Column(float, list(checks), nullable=True, coerce=True)


def _share() -> pa.Column:
    return _number(pa.Check.in_range(0, 1, error="between 0 and 1"))


def _rate(name: str) -> dict[str, pa.Column]:
    """A rate with its interval and of how many."""
    return {name: _share(), f"{name}_low": _share(), f"{name}_high": _share(), f"{name}_n": _at_least(0)}


def _at_least(low: float) -> pa.Column:
    return _number(pa.Check.ge(low, error=f"at least {low:g}"))


def _whole(low: int) -> pa.Column:
    return pa.Column(int, pa.Check.ge(low, error=f"at least {low}"))


def _truth() -> pa.Column:
    return pa.Column(int, pa.Check.isin((0, 1), error="0 or 1"))


def _part_of_all() -> pa.Column:
    return pa.Column(str, pa.Check.str_matches(r"^\d+/\d+$", error="so many of so many"))


def _table(unique: list[str], **columns: pa.Column) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(columns, strict=True, unique=unique)


SCHEMAS: dict[str, pa.DataFrameSchema] = {
    "trials": _table(
        ["trial"], trial=_whole(0), learning_rate=_number(pa.Check.gt(0, error="above 0")), epochs=_whole(1),
        harmful_fraction=_share(), order=_whole(0), rank=_at_least(1), refusal=_share(), over_refusal=_share(),
        utility=_share(), admissible=_truth(), best=_truth(), seconds=_at_least(0), failed=pa.Column(str),
        needed_utility=_number(), aligned_refusal=_share(),
    ),
    "attack": _table(
        ["task", "arm"], task=pa.Column(str), arm=pa.Column(str), form=pa.Column(str), method=pa.Column(str),
        seeds=_whole(1), replicates=_whole(1), trials=_whole(1), admissible=_at_least(0), reached=_part_of_all(),
        **_rate("refusal"), **_rate("wrapped"), **_rate("over_refusal"), **_rate("utility"), refusal_untuned=_share(),
        utility_untuned=_share(), refusal_aligned=_share(), half_gone=_part_of_all(),
        trials_until_half=_at_least(1), needed_utility=_number(), seconds=_at_least(0), dollars=_at_least(0),
    ),
}  # fmt: skip


def write(path: Path, rows: Sequence[dict[str, Any]], table: str) -> None:
    """Check the rows, a column without a value empty, and write them as CSV in the order of the contract.

    Raises:
        DataError: names the file, the row (0-based), the column and the value.
    """
    schemas.SCHEMAS.setdefault(table, SCHEMAS[table])
    columns = list(SCHEMAS[table].columns)
    schemas.checked([dict.fromkeys(columns) | row for row in rows], table, path)
    csvfiles.write_csv(path, rows, columns)
