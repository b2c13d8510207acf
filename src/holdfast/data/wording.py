"""Raw rows of a user's file in our words: names and ids as words, and what a file does not say of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from holdfast import data, names
from holdfast.errors import DataError

Row = dict[str, Any]
Say = Callable[[str], None]

# What other collections call the two: XSTest's labels, and words like them.
LABELS = dict.fromkeys(("unsafe", "harmful", "toxic"), names.HAZARD) | dict.fromkeys(
    ("safe", "unharmful", "harmless", "benign"), names.LOOKALIKE
)
# Columns that are known to say it, whatever words or numbers they use.
_TELLING = {
    "set", "label", "safe", "is_safe", "unsafe", "is_unsafe", "harmful", "is_harmful", "safety", "toxic", "harm",
    "should_refuse", "refuse", "prompt_type", "data_type",
}  # fmt: skip

_TEXTS = ("prompt", "response", "chosen", "rejected", "reply")


def worded(raw: Sequence[Row], source: str, defaults: Callable[[int], dict[str, str]]) -> list[Row]:
    """Rows with names and ids as words, the default of its position where one says nothing, and the outer white space
    of prompts and answers gone: a template's header and an answer that begins with a blank are not told apart.

    Raises:
        DataError: row, and the column that holds a list or another thing with parts.
    """
    rows = []
    for i, r in enumerate(raw):
        try:
            row = r | {key: data.word(r, key, default) for key, default in defaults(i).items()}
        except TypeError as error:
            raise DataError(
                f"{source}: row {i} is not as it should be.", found=str(error)[:160], expected="a word or a number",
                do="correct or remove the row",
            ) from None  # fmt: skip
        rows.append(row | {k: row[k].strip() or row[k] for k in _TEXTS if isinstance(row.get(k), str)})
    return rows


def taken(say: Say, raw: Sequence[Row], column: str, source: str, meaning: str) -> None:
    """Say how many rows have nothing in a column, and what they are taken as."""
    count = sum(not _says(r, column) for r in raw)
    if count:
        say(f"{source}: {count} of {len(raw)} rows say no `{column}`: each taken as {meaning}")


# Parts of words of columns that say it under a name of their own: XSTest's types, "adversarial_harmful".
_SAID_AS = ("contrast", "harmful", "benign", "malicious", "unsafe", "harmless", "jailbreak")


def refuse_hidden(raw: Sequence[Row], source: str, key: str, section: str) -> None:
    """Refuse rows of which none says its `set` (or `kind`) while another column says who is safe: all would count as
    hazards."""
    if any(_says(r, key) for r in raw):
        return
    known = {*LABELS, names.HAZARD, names.WRAPPED, names.LOOKALIKE, names.CRAFT}
    for column in dict.fromkeys(c for r in raw for c in r if c not in _TEXTS):
        values = {str(r[column]).strip().lower() for r in raw if _says(r, column)}
        told = column in _TELLING and len(values) <= 4
        told |= len(values) <= 20 and any(w in v for w in _SAID_AS for v in values if len(v) < 40)
        if len(values) > 1 and (values <= known or told):
            raise DataError(
                f"{source}: no column `{key}` says which requests must be refused, but `{column}` seems to.",
                found=f"{column}: {', '.join(sorted(values))}"[:200],
                expected=f"a column `{key}`, or a name for it, with hazard and lookalike"
                + (" (or unsafe and safe)" if key == "set" else " (or craft)"),
                do=f"{section}.columns: {{{key}: {column}}}"
                + ("" if key == "set" and values <= known else ", with these words in it"),
            )  # fmt: skip


def _says(row: Row, column: str) -> bool:
    value = row.get(column)
    return value is not None and value == value and str(value).strip() != ""
