"""What is a suite? Its files, its licence, and how a record of theirs becomes a row of ours.

A file names the columns that are read. What stands in others (the openings of harmful answers in some) is dropped
before anything looks at it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast import names
from holdfast.errors import DataError
from holdfast.record import userfiles

Row = dict[str, Any]
Reader = Callable[[bytes, str, Sequence[str]], list[Row]]


def records(raw: bytes, name: str, columns: Sequence[str]) -> list[Row]:
    """These columns of a table (.csv .jsonl .json .parquet); a column is known by its name in lower case.

    Raises:
        DataError: no table, or a record without one of the columns.
    """
    found = userfiles.parsed(raw, name)
    for column in columns:
        missing = next((i for i, r in enumerate(found) if column not in r), None)
        if missing is not None:
            raise DataError(
                f"{name}: row {missing} has no column '{column}'.", found=", ".join(map(str, found[missing]))[:160],
                expected=", ".join(columns), do="take the file as it was published",
            )  # fmt: skip
    return [{column: r[column] for column in columns} for r in found]


def listed(raw: bytes, name: str, columns: Sequence[str]) -> list[Row]:
    """The same of an object that holds a list for every column."""
    held = json.loads(raw)
    return [dict(zip(columns, values, strict=True)) for values in zip(*(held[c] for c in columns), strict=True)]


@dataclass(frozen=True)
class File:
    """One published file.

    Attributes:
        place: where a copy may lie below HOLDFAST_DATA.
        address: where it is fetched from, at a pinned revision; without a digest the page that has it.
        sha256: of the only bytes that are taken for it; None where no revision could be pinned: then it is read from
            a copy of the user's alone, in any format of tables.
        columns: those that are read.
        row: number and record -> a row of ours, None where the record is none of ours.
        sets: the prompt sets of its rows.
        split: the published split it is, and so the only one it may be asked for; empty where it is none.
        read: bytes, name and columns -> records.
    """

    place: str
    address: str
    sha256: str | None
    columns: tuple[str, ...]
    row: Callable[[int, Row], Row | None]
    sets: tuple[str, ...] = (names.HAZARD,)
    split: str = ""
    read: Reader = records


@dataclass(frozen=True)
class Suite:
    """A suite: its licence and its files."""

    licence: str
    files: tuple[File, ...]


def asked(suite: str, key: object, of: str, prompt: str, kind: str = "") -> Row:
    """The row of a prompt: its id begins with the suite's name, and so does its category.

    Args:
        of: the prompt set.
        kind: what the suite calls its kind of request, where it has kinds.
    """
    return {
        "id": f"{suite}/{key}", "set": of, "category": f"{suite}: {kind}" if kind else suite, "prompt": prompt,
    }  # fmt: skip
