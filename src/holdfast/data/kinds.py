"""The kinds of scorers: how does each read an answer, and when is it right?

Each is made of what a study tells it and scores an answer to a row of a table: {correct, invalid, parsed, gold}, and
perhaps `flexible` (a laxer reading) and `score` (a share instead of right or wrong). What is read of the answer is
compared with what is read of the row's `gold`; an answer of which nothing can be read is invalid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from holdfast.data import LETTERS, boxed, gsm8k
from holdfast.errors import DataError

Row = dict[str, Any]
Told = Mapping[str, Any]
Reader = Callable[[str], str | None]
Score = Callable[[str, Row], Row]
_LETTER_FIRST = re.compile(r"\s*[(\[*\"']*([A-Za-z])[)\]*\"']*(?:[.:,)]|\s*$|\s*\n)")
_LETTER_TOLD = re.compile(r"\b(?i:answer|option|choice)\b(?:\s+(?i:is))?\s*:?\s*[(\[*]*([A-Z])\b")


def _words(text: str) -> str:
    return " ".join(text.split())


def _compared(read: Reader, gold: Reader) -> Score:
    """Right is an answer of which the same is read as of the gold."""

    def score(text: str, row: Row) -> Row:
        found, wanted = read(text), gold(row["gold"])
        return {"correct": found is not None and found == wanted, "invalid": found is None, "parsed": found or "",
                "gold": wanted or ""}  # fmt: skip

    return score


def _pattern(words: str, flags: int = re.I) -> re.Pattern[str]:
    """Finds some words, with any blanks between them, where they are no part of longer ones."""
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words.split())) + r"(?!\w)", flags)


def _mentioned(names: Mapping[str, Iterable[str]]) -> Reader:
    """The name that is mentioned first, itself or by a synonym; of two that begin together the longer one."""
    patterns = [(name, _pattern(word)) for name, others in names.items() for word in (name, *others)]

    def read(text: str) -> str | None:
        found = [(m.start(), -len(m[0]), name) for name, pattern in patterns if (m := pattern.search(text))]
        return min(found)[2] if found else None

    return read


def label(names: Mapping[str, Sequence[str]]) -> Score:
    read = _mentioned(names)
    known = {word.casefold(): name for name, others in names.items() for word in (*others, name)}
    return _compared(read, lambda gold: known.get(_words(gold).casefold()) or read(gold))


def choice(columns: Sequence[str]) -> Score:
    def score(text: str, row: Row) -> Row:
        options = _options(row, columns)
        return _compared(lambda said: _chosen(said, options), lambda gold: _chosen(gold, options))(text, row)

    return score


def _options(row: Row, columns: Sequence[str]) -> dict[str, str]:
    """Letter -> text of a row's options: of several columns, or of one that holds a list.

    Raises:
        DataError: a column is not there, or holds no options.
    """
    raw = json.loads(row["row"])
    held = [raw.get(c.strip().lower()) for c in columns]
    options = held[0] if len(held) == 1 else held
    if not isinstance(options, list) or not 1 < len(options) <= len(LETTERS) or None in options:
        raise DataError(
            f"{row['id']}: the scorer `choice` finds no options.", found=f"{options!r:.120}",
            expected=f"options in {', '.join(columns)}: a list in one column, or one in each of several",
            do="correct the row, or the scorer of the task",
        )  # fmt: skip
    return {LETTERS[i]: _words(str(option)) for i, option in enumerate(options)}


def _chosen(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer chooses: it is the option's text; it begins with a letter, or says that
    one is the answer; or it mentions the text of an option."""
    said = _words(text).casefold().rstrip(".")
    for letter, option in options.items():
        if said == option.casefold().rstrip("."):
            return letter
    for pattern in (_LETTER_FIRST.match, _LETTER_TOLD.search):
        if (found := pattern(text)) and found[1].upper() in options:
            return found[1].upper()
    letters = {option: letter for letter, option in options.items() if option}
    mentioned = _mentioned(dict.fromkeys(letters, ()))(text)
    return letters[mentioned] if mentioned else None


def number(told: Told) -> Score:
    marker, tolerance = told.get("marker"), told.get("tolerance")
    marked = re.compile(re.escape(marker or "") + r"(\-?[0-9\.\,]+)")  # as in gsm8k

    def read(text: str) -> str | None:
        if not marker:
            return gsm8k.flexible(text)
        found = marked.search(text)
        return gsm8k.normalise(found[1]) if found else None

    def same(one: str | None, other: str | None) -> bool:
        if one is None or other is None or tolerance is None:
            return one is not None and one == other
        try:
            return abs(float(one) - float(other)) <= float(tolerance)
        except ValueError:
            return False

    def score(text: str, row: Row) -> Row:
        first, last, wanted = read(text), gsm8k.flexible(text), read(row["gold"]) or gsm8k.flexible(row["gold"])
        return {"correct": same(first, wanted), "flexible": same(last, wanted), "invalid": first is None,
                "parsed": first or "", "gold": wanted or ""}  # fmt: skip

    return score


def exact(told: Told) -> Score:
    def read(text: str) -> str | None:
        return (_words(text).casefold() if told.get("casefold") else _words(text)) or None

    return _compared(read, read)


def regex(pattern: str) -> Score:
    compiled = re.compile(pattern)

    def read(text: str) -> str | None:
        found = compiled.search(text)
        return _words(found[1]) or None if found and found[1] is not None else None

    return _compared(read, lambda gold: read(gold) or _words(gold))


def contains(told: Told) -> Score:
    flags = re.I if told.get("casefold") else 0

    def score(text: str, row: Row) -> Row:
        there = _pattern(row["gold"], flags).search(text) is not None
        return {"correct": there, "invalid": not text.strip(), "parsed": _words(text), "gold": _words(row["gold"])}

    return score


def json_field(field: str) -> Score:
    def read(text: str) -> str | None:
        """The field of the first object in a text, as JSON."""
        start = text.find("{")
        try:
            found = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
        except (ValueError, RecursionError):
            return None
        return _as_json(found[field]) if isinstance(found, dict) and field in found else None

    def gold(text: str) -> str:
        try:
            return read(text) or _as_json(json.loads(text))
        except (ValueError, RecursionError):
            return _as_json(text)

    return _compared(read, gold)


def _as_json(value: Any) -> str:
    """A value as JSON: 2.0 is 2, and blanks around words do not count."""
    if isinstance(value, str):
        value = _words(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def in_box(_: bool) -> Score:
    def read(text: str) -> str | None:
        found = boxed.inside(text)
        return None if found is None else boxed.plain(found) or None

    return _compared(read, lambda gold: read(gold) or boxed.plain(gold))


def rouge(told: Told) -> Score:
    from rouge_score import rouge_scorer

    variant = told["variant"]
    library = rouge_scorer.RougeScorer([variant], use_stemmer=True)

    def score(text: str, row: Row) -> Row:
        share = float(library.score(row["gold"], text)[variant].fmeasure)
        said, wanted = _words(text), _words(row["gold"])
        return {"correct": said == wanted, "invalid": not said, "score": share, "parsed": said, "gold": wanted}

    return score
