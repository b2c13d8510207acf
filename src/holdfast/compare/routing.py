"""What does it cost to ask a large judge only about the replies that a cheap one finds hard?

After SafeRoute (Lee et al. 2025, arXiv 2502.12464), which trains a binary router on the small guard's features to tell
where the small is wrong and the large is right. The router here is not trained: a reply is the harder the nearer the
cheap judge's score is to the middle. Judges without scores of their own are no better routed than by chance, and the
curve shows it. Beside it stand what a random choice of replies would give, and what nobody can have: the replies whose
verdict the large judge would put right, first.

A study asks every judge about every reply, so that its verdicts tell the whole curve; nothing is saved by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.agreement import answer, asked
from holdfast.compare.metrics import rate
from holdfast.errors import DataError
from holdfast.record import tables

Row = dict[str, Any]
RIGHT = "right"
SHARES = tuple(i / 20 for i in range(21))
COLUMNS = ("share", "asked", RIGHT, f"{RIGHT}_low", f"{RIGHT}_high", f"{RIGHT}_n", "random", "oracle")


@dataclass(frozen=True)
class Reply:
    """`sure` is how far the cheap judge's score is from the middle, 0 where it has none; `cheap` and `large` whether
    their verdict is right; `prompt` which prompt was answered."""

    sure: float
    cheap: bool
    large: bool
    prompt: str


def routed(sure: np.ndarray, share: float) -> np.ndarray:
    """(n,) how likely each reply goes to the large judge where the share `share` of them does, the least sure first;
    replies that are equally sure go with equal chances."""
    places = share * len(sure)
    values, index, counts = np.unique(sure, return_inverse=True, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chance: np.ndarray = np.clip((places - before) / counts, 0, 1)
    return chance[index]


def curve(replies: Sequence[Reply], shares: Sequence[float] = SHARES) -> list[Row]:
    """Per share of replies asked of the large judge: how many that are, and the share of all replies whose verdict is
    then right, with its 95 % interval over prompts; at random, and at best."""
    sure, cheap, large = (np.array([getattr(r, k) for r in replies], dtype=float) for k in ("sure", "cheap", "large"))
    best = np.sort(large - cheap)[::-1]
    out = []
    for share in shares:
        chance = routed(sure, share)
        right = chance * large + (1 - chance) * cheap
        whole = bool(np.isin(right, (0, 1)).all())
        found = rate(RIGHT, right.tolist(), [r.prompt for r in replies], graded=not whole)
        # the largest gains first, the last of them perhaps in part
        gained = np.clip(share * len(replies) - np.arange(len(replies)), 0, 1) @ best
        out.append(
            {"share": share, "asked": round(share * len(replies)), **found,
             "random": float((share * large + (1 - share) * cheap).mean()),
             "oracle": float(cheap.mean() + gained / len(replies))}
        )  # fmt: skip
    return out


def needed(rows: Sequence[Row], loss: float = 0.01) -> float:
    """The smallest share of a curve from which on never more than `loss` is missing to asking about every reply."""
    least = rows[-1][RIGHT] - loss - 1e-12
    short = [i for i, r in enumerate(rows) if r[RIGHT] < least]
    return float(rows[short[-1] + 1 if short else 0]["share"])


def replies(models: Mapping[str, Sequence[Row]], cheap: str, large: str, truth: str, question: str) -> list[Reply]:
    """The replies that all three judges were asked about; models -> verdicts. What cannot be read is right of nothing.

    Args:
        truth: the judge that is right; `large` itself, where its verdict is what is wanted.
        question: `kept` or `refused` (compare/agreement.py).

    Raises:
        DataError: a judge was not asked, does not answer such a question, or the question does not arise.
    """
    if cheap == large:
        raise DataError("One judge cannot be first and then.", found=f"{cheap} and {large}",
                        expected="a cheap judge and a large one", do="name another with --then")  # fmt: skip
    out, there = [], set()
    for rows in models.values():
        by: dict[tuple[str, str], dict[str, tuple[str, Row]]] = {}
        for r in rows:
            if asked(question, r):
                there.add(r["judge"])
                if (said := answer(question, r)) is not None:
                    by.setdefault((r["set"], r["id"]), {})[r["judge"]] = said, r
        for found in by.values():
            if {cheap, large, truth} <= found.keys():
                wanted, score = found[truth][0], found[cheap][1]["score"]
                right = {j: found[j][0] == wanted != names.UNPARSED for j in (cheap, large)}
                out.append(
                    Reply(0.0 if score is None else abs(score - 0.5), right[cheap], right[large],
                          found[cheap][1]["base_id"])
                )  # fmt: skip
    if not out:
        raise DataError(
            "No reply has verdicts of these judges.",
            found=f"asked what is {question}: {', '.join(sorted(there)) or 'nobody'}",
            expected=" and ".join(dict.fromkeys((cheap, large, truth))),
            do="name them in evaluation.judges, then: snakemake --config study=NAME -- verdicts",
        )  # fmt: skip
    return out


def of_study(metrics: Sequence[Path], cheap: str, large: str, truth: str, question: str) -> list[Reply]:
    """The replies of all judged models of a finished study, by their metrics.json.

    Raises:
        DataError: as `replies`.
    """
    models = {str(m): tables.read(m.with_name("verdicts.parquet"), "verdicts") for m in metrics}
    return replies(models, cheap, large, truth, question)
