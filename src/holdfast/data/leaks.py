"""Is a model trained on what it is asked later? Evaluation prompts are looked for among training prompts, by words.

Words have no case, no punctuation (Markdown is some), no form (Unicode's compatibility forms are one) and no signs that
nobody sees (soft hyphens, joiners, marks of direction). An evaluation prompt is trained
on, and refused, that

- has the words of a training prompt,
- has four words or more and stands whole in a training prompt,
- or nearly is one: of the words that mean something in either at least nine in ten are in both, all but two.

What only may be the same is said: an evaluation prompt in which a training prompt of four words or more stands whole,
since it asks for more; and one that shares three quarters of such words with one. Many pairs of prompts that mean the
opposite do (docs/suites.md has numbers).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import DataError

Row = dict[str, Any]
Say = Callable[[str], None]
Words = tuple[str, ...]
WHOLE = 4  # words: fewer stand in a longer prompt by chance
NEAR, BUT = 0.9, 2  # share of the words of either that both have, and at most so many that only one has
ALIKE = 0.75
_NAMED = 5
# What a page does not show: Markdown's quotes and links, HTML's tags, marks of emphasis between letters; and signs that
# have no width, which are no blanks either (Unicode's default ignorable ones), or that strike others through.
_MARKUP = re.compile(r"^[ \t]*(?:>[ \t]?)+|</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|!?\[([^\[\]]*)\]\([^()\s]*\)", re.M | re.I)
_EMPHASIS = re.compile(r"(?<=[^\W\d_])[*`~]+(?=[^\W\d_])")
_UNSEEN = re.compile(
    "[\u034f\u0334-\u0338\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BETWEEN = "\u200b"  # a space of no width, which stands between words and within them
_WORD = re.compile(r"[^\W_]+[+#]*|[+=<>%$€£]")  # C, C++ and C# are three words
# What a request has or has not without being another one.
_SMALL = {
    "a", "an", "the", "of", "to", "in", "on", "at", "for", "from", "by", "with", "and", "or", "as", "so", "is", "are",
    "was", "were", "be", "been", "am", "do", "does", "did", "can", "could", "will", "would", "shall", "should", "may",
    "might", "i", "me", "my", "we", "us", "our", "you", "your", "it", "its", "this", "that", "these", "those", "there",
    "please", "kindly", "just",
}  # fmt: skip
_MEANING = 3  # words at least, else the small ones count too

SAME, HOLDS, NEARLY, PART, LIKE = range(5)  # how close the two are
_REFUSED = {SAME: "is also among", HOLDS: "stands whole in one of", NEARLY: "is nearly the same as one of"}


@dataclass(frozen=True)
class Match:
    """The closest training prompt of an evaluation prompt, by their positions: how close it is."""

    asked: int
    trained: int
    how: int


def plain(text: str) -> str:
    """A text as far as it is another one: without case, blanks, the form of apostrophes and the last sign."""
    return " ".join(text.lower().replace("\u2019", "'").split()).rstrip(" .?!")


def words(text: str) -> Words:
    """The words of a text; of one that has none, its signs.

    >>> words("Don\u2019t use C++, please!")
    ('don', 't', 'use', 'c++', 'please')
    """
    shown = _EMPHASIS.sub("", _MARKUP.sub(lambda m: m[1] or " ", text))
    seen = "".join(sign for sign in _UNSEEN.sub("", shown) if sign.isprintable() or sign.isspace())
    even = unicodedata.normalize("NFKC", seen).casefold()
    return tuple(_WORD.findall(even)) or tuple(even.split())


def refuse_same(trained: Sequence[Row], asked: Sequence[Row], column: str, where: str, source: str) -> None:
    """Refuse evaluation rows of a task whose text is trained on.

    Raises:
        DataError: the first such row of `asked`.
    """
    known = {plain(r[column]) for r in trained}
    for i, row in enumerate(asked):
        if plain(row[column]) in known:
            raise _leak(f"{where}: row {i}, column '{column}' {_REFUSED[SAME]} {source}.", repr(row[column])[:120])


def refuse(
    trained: Sequence[Row], asked: Sequence[Row], where: str, source: str, say: Say,
    without: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Refuse evaluation prompts that are trained on, and say which may be.

    Args:
        trained: rows with a prompt, and perhaps an id.
        asked: rows with id and prompt.
        where: the file that `asked` is; of suites nothing, for the ids of their prompts say it.
        source: what `trained` is, in words.
        without: ids that the study leaves out of `trained` already (`safety.without`), where it can do so.

    Raises:
        DataError: names the first of them, what it is trained on as, and the others.
    """
    found = matches([r["prompt"] for r in trained], [r["prompt"] for r in asked])
    leaks = [m for m in found if m.how in _REFUSED]
    if leaks:
        first, others = leaks[0], leaks[1:]
        row = asked[first.asked]
        name = f"{where}: row {first.asked}, column 'prompt'" if where else f"The prompt {row['id']}"
        of = trained[first.trained].get("id")
        text = repr(row["prompt"])[:120] + (f", which is trained on as {of}" if of else "")
        also = f"   (and {len(others)} more: {_named(others, asked)})" if others else ""
        do = "remove the row from one of the two" if where else (
            "ask fewer prompts (evaluation.prompts_per_set)"
            + ("" if of and without is not None else ", or train on a copy of the source without the row")
        )  # fmt: skip
        if of and without is not None:
            ids = [*without, *_trained_on(trained, [asked[m.asked]["prompt"] for m in leaks])]
            do += f", or leave out of safety what is trained on: without: {json.dumps(ids, ensure_ascii=False)}"
        raise _leak(f"{name} {_REFUSED[first.how]} {source}.", text + also, do)
    if found:
        say(f"{len(found)} evaluation prompts are like prompts among {source}, and may ask the same: "
            + _named(found, asked))  # fmt: skip


def _named(found: Sequence[Match], asked: Sequence[Row]) -> str:
    return ", ".join(str(asked[m.asked]["id"]) for m in found[:_NAMED]) + " ..." * (len(found) > _NAMED)


def _trained_on(trained: Sequence[Row], asked: Sequence[str]) -> list[str]:
    """The ids of all rows that one of these prompts is trained on as."""
    of = {i for _, i, how in _pairs([r["prompt"] for r in trained], asked) if how in _REFUSED}
    return list(dict.fromkeys(str(trained[i]["id"]) for i in sorted(of) if trained[i].get("id")))


def _leak(what: str, found: str, do: str = "remove the row from one of the two") -> DataError:
    return DataError(what, found=found, expected="evaluation rows that nothing is trained on", do=do)


def matches(trained: Sequence[str], asked: Sequence[str]) -> list[Match]:
    """Of every evaluation prompt that a training prompt comes close to, the closest, in the order of `asked`."""
    closest: dict[int, tuple[int, int]] = {}
    for j, i, how in _pairs(trained, asked):
        closest[j] = min(closest.get(j, (how, i)), (how, i))
    return [Match(j, i, how) for j, (how, i) in sorted(closest.items())]


def _pairs(trained: Sequence[str], asked: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """(position in `asked`, in `trained`, how close), some twice."""
    (ours, mine), (theirs, of) = _read(trained), _read(asked)
    known: dict[Words, list[int]] = {}
    for i, w in enumerate(ours):
        known.setdefault(w, []).append(i)
    found = itertools.chain(
        ((j, i, SAME) for j, w in enumerate(theirs) for i in known.get(w, ())),
        ((j, i, HOLDS) for i, j in _within(ours, theirs)),
        ((j, i, PART) for j, i in _within(theirs, ours)),
        _alike([_meaning(w) for w in ours], [_meaning(w) for w in theirs]),
    )
    return ((of[j], mine[i], how) for j, i, how in found)


def _read(texts: Sequence[str]) -> tuple[list[Words], list[int]]:
    """(words, positions of their texts): a text with spaces of no width is read with blanks in their place too."""
    both = [(words(way), i) for i, t in enumerate(texts) for way in {t: 0, t.replace(_BETWEEN, " "): 0}]
    return [w for w, _ in both], [i for _, i in both]


def _within(long: Sequence[Words], short: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """(i, j) of every text `short[j]` that stands whole in a longer text `long[i]`."""
    starts: dict[Words, list[int]] = {}
    for j, text in enumerate(short):
        if len(text) >= WHOLE:
            starts.setdefault(text[:WHOLE], []).append(j)
    for i, text in enumerate(long):
        for at in range(len(text) - WHOLE + 1):
            for j in starts.get(text[at : at + WHOLE], ()):
                if len(short[j]) < len(text) and text[at : at + len(short[j])] == short[j]:
                    yield i, j


def _meaning(text: Words) -> frozenset[str]:
    """The words of a text without small ones; with them where hardly any other is left."""
    kept = frozenset(text) - _SMALL
    return kept if len(kept) >= _MEANING else frozenset(text)


def _alike(ours: Sequence[frozenset[str]], theirs: Sequence[frozenset[str]]) -> Iterator[tuple[int, int, int]]:
    """(j, i, how close) of every `ours[i]` and `theirs[j]` that have at least `ALIKE` of their words in common.

    Two such sets share one of the few rarest words of each (prefix filtering, Chaudhuri et al. 2006), so that most
    pairs are never looked at.
    """
    often = Counter(word for text in (*ours, *theirs) for word in text)

    def rarest(text: frozenset[str]) -> list[str]:
        kept = len(text) - math.ceil(ALIKE * len(text)) + 1
        return sorted(text, key=lambda word: (often[word], word))[:kept]

    index: dict[str, list[int]] = {}
    for j, text in enumerate(theirs):
        for word in rarest(text):
            index.setdefault(word, []).append(j)
    for i, text in enumerate(ours):
        for j in {j for word in rarest(text) for j in index.get(word, ())}:
            both, either = len(text & theirs[j]), len(text | theirs[j])
            if both >= NEAR * either and either - both <= BUT:
                yield j, i, NEARLY
            elif both >= ALIKE * either:
                yield j, i, LIKE
