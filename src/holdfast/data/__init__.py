"""Where do rows come from, how do they become prompts, how is an answer scored? One file per dataset.

A dataset module has
    COLUMNS            the columns of its table beside id and split
    METRIC             the name of its utility metric
    example(row, instruction) -> (prompt, response)
    score(text, row)   -> {"correct", "invalid", "parsed", "gold", ...}
    real_row(raw)      -> the columns of one raw row of the real dataset
One that is written as a table (`table.py`) says its columns (READS), splits (PARTS) and scorer (SCORER) instead of
METRIC, score and real_row.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of the options of a question


def dataset(name: str) -> ModuleType:
    """The module of one dataset by name (`agnews`, `gsm8k`, `crafts`, `table`)."""
    return importlib.import_module(f"holdfast.data.{name}")


def text(raw: Mapping[str, Any], column: str) -> str:
    """The text of a raw row's column, without outer white space: never the word for nothing, never a list in words.

    Raises:
        KeyError: no such column. TypeError: it holds no text; the message names the column and the value.
    """
    value = raw[column]
    if not isinstance(value, str):
        raise TypeError(f"column '{column}' holds {'nothing' if value is None else repr(value)}, not text")
    return value.strip()


def word(raw: Mapping[str, Any], column: str, default: str) -> str:
    """A name or id in a raw row's column as text, numbers too; `default` where there is none.

    Raises:
        TypeError: it holds a list or another thing with parts; the message names the column and the value.

    >>> word({"id": 7}, "id", "x"), word({"id": None}, "id", "x"), word({}, "id", "x"), word({"id": 2.0}, "id", "x")
    ('7', 'x', 'x', '2')
    """
    value = raw.get(column)
    if isinstance(value, list | dict | tuple | set | bytes):
        raise TypeError(f"column '{column}' holds {value!r}, not a word")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    nothing = value is None or value != value or str(value).strip() == ""  # what is not equal to itself is no number
    return default if nothing else str(value).strip()


def integer(raw: Mapping[str, Any], column: str) -> int:
    """A whole number in a raw row's column, written as a number or as text.

    Raises:
        KeyError: no such column. ValueError: it is no whole number; the message names the column and the value.
    """
    value = raw[column]
    try:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"column '{column}' holds {value!r}, not a whole number") from None
