"""Which of several answers is to be preferred, by rules? Pairs for DPO from the propositions of the refusal judge.

Rule based rewards (Mu et al. 2024, arXiv 2411.01111) ask a model for yes or no to propositions about an answer
(refuses? judges? discloses?), add them up with fitted weights, and say by rules which behaviour is better for a kind of
request. Here the propositions are the speech acts that the refusal judge finds, with the weights it was fitted with;
the rules are the order of its labels below, for a request that is to be refused and for one that is to be answered. No
model is asked, and nothing is trained on the way: an answer's reward is its place in that order, and what two answers
in the same place differ in is no preference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import DataError
from holdfast.judges import Row, refusal
from holdfast.record import userfiles

REFUSE, ANSWER = "refuse", "answer"
# Better ones first; labels of one step are equally good.
RULES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    REFUSE: (("full_refusal",), ("moralising",), ("partial_refusal",), ("compliance",)),
    ANSWER: (("compliance",), ("partial_refusal",), ("full_refusal", "moralising")),
}
COLUMNS = ("prompt", "chosen", "rejected", "wanted", "chosen_label", "rejected_label")
TIED, UNREAD, ALONE = "tied", "unread", "alone"


def place(label: str, wanted: str) -> int | None:
    """Where a label stands in the rules for a request, 0 the best; None of what the judge cannot read.

    >>> place("partial_refusal", "refuse"), place("compliance", "answer"), place("degenerate", "answer")
    (2, 0, None)
    """
    return next((i for i, step in enumerate(RULES[wanted]) if label in step), None)


def read(paths: Sequence[Path], wanted: str) -> list[Row]:
    """Rows {prompt, response, wanted} of files with several answers per request.

    Args:
        wanted: what is to be done with a request, where the file has no column `wanted`.

    Raises:
        DataError: a row lacks a text, or wants something else.
    """
    rows = []
    for path in paths:
        for i, r in enumerate(userfiles.table(path)):
            row: Row = {"prompt": r.get("prompt"), "response": r.get("response", r.get("completion"))}
            row["wanted"] = r.get("wanted") or wanted
            texts = all(isinstance(row[k], str) and row[k].strip() for k in ("prompt", "response"))
            if not texts or row["wanted"] not in RULES:
                raise DataError(
                    f"{path}: row {i} is no answer to a request.",
                    found=", ".join(f"{k} {str(v if v is None else repr(v))[:40]}" for k, v in row.items()),
                    expected=f"prompt, response and perhaps wanted: {' | '.join(RULES)}", do="correct the file",
                )  # fmt: skip
            rows.append(row)
    return rows


def pairs(rows: Sequence[Row], fitted: refusal.Weights | None = None) -> tuple[list[Row], dict[str, int]]:
    """One pair per request whose answers differ by the rules: the best against the worst, of equally good ones the one
    that the judge is surest of, then the first; and how many requests gave none: `tied`, `unread` (fewer than two
    answers that can be read), `alone` (one answer).

    Args:
        fitted: weights of the judge; those shipped.
    """
    asked: dict[tuple[str, str], list[str]] = {}
    for r in rows:
        answers = asked.setdefault((r["prompt"], r["wanted"]), [])
        if r["response"] not in answers:
            answers.append(r["response"])
    out, none = [], dict.fromkeys((TIED, UNREAD, ALONE), 0)
    for (prompt, wanted), answers in asked.items():
        judged = [_judged(prompt, text, wanted, fitted) for text in answers]
        known = [j for j in judged if j is not None]
        if len(known) < 2:
            none[ALONE if len(answers) < 2 else UNREAD] += 1
            continue
        best, worst = min(known, key=lambda j: (j[0], -j[1])), max(known, key=lambda j: (j[0], j[1]))
        if best[0] == worst[0]:
            none[TIED] += 1
            continue
        out.append(dict(zip(COLUMNS, (prompt, best[3], worst[3], wanted, best[2], worst[2]), strict=True)))
    return out, none


def _judged(prompt: str, text: str, wanted: str, fitted: Any) -> tuple[int, float, str, str] | None:
    """(place, how sure the judge is of refusal or its absence, label, text) of an answer that can be read."""
    found = refusal.judge(prompt, text, fitted)
    label = "moralising" if found.moralising else found.label
    at = None if found.degenerate or found.other_language else place(label, wanted)
    return None if at is None else (at, abs(found.refused - 0.5), label, text)
