"""Which method comes first over all tasks, and which of them can be told apart?

Every task of every replicate ranks the families of a sweep by the area under their curve of refusals against utility
(`curves`). Mean ranks are held against the critical difference of Nemenyi's test after Friedman's (Demšar 2006, JMLR 7,
1-30): two families whose mean ranks are closer than that are not told apart. Tasks of one replicate start from one
base, so that blocks are fewer than they look; the interval beside a mean rank is that of Student's t over
replicates alone. Of a single replicate the seeds take their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare import curves, forms
from holdfast.compare.groups import Group
from holdfast.statistics import CONFIDENCE, student

COLUMNS = (
    "family", "form", "rank", "rank_low", "rank_high", "families", "tasks", "seeds", "replicates",
    "critical_difference", "p",
)  # fmt: skip


def ranked(scores: np.ndarray) -> np.ndarray:
    """Ranks (blocks, families) of scores of that shape: the largest of a block is 1, equal ones share their mean."""
    from scipy.stats import rankdata

    out: np.ndarray = rankdata(-np.asarray(scores).round(9), axis=1)
    return out


def critical_difference(families: int, blocks: int) -> float:
    """How far the mean ranks of two of so many families must be apart over so many blocks (Nemenyi):
    q sqrt(k (k + 1) / 6 N), q the studentised range over sqrt 2.

    >>> round(critical_difference(4, 14), 2)
    1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(CONFIDENCE, families, math.inf)) / math.sqrt(2)
    return q * math.sqrt(families * (families + 1) / (6 * blocks))


def friedman(scores: np.ndarray) -> float:
    """P of Friedman's test that all families are alike; 1 where every block has them all equal, or where there are
    fewer than three families or two blocks."""
    from scipy.stats import friedmanchisquare

    if scores.shape[0] < 2 or scores.shape[1] < 3 or np.ptp(ranked(scores), axis=1).max() == 0:
        return 1.0
    return float(friedmanchisquare(*np.asarray(scores).round(9).T).pvalue)


def rows(
    groups: Mapping[str, Mapping[str, Group]], validation: Mapping[str, Mapping[str, Group]]
) -> list[dict[str, Any]]:
    """One row per family that runs on every task, the first one first; none where fewer than two do."""
    found = {task: curves.families(arms, validation[task]) for task, arms in groups.items()}
    shared = [name for name in next(iter(found.values()), {}) if all(name in of for of in found.values())]
    if len(shared) < 2:
        return []
    areas = {
        task: np.stack([of[name].mixed["area"].hits([names.HAZARD], names.REFUSAL).mean(axis=1) for name in shared], 1)
        for task, of in found.items()
    }
    units = min(len(a) for a in areas.values())
    blocks = np.concatenate([a[:units] for a in areas.values()])
    ranks = ranked(blocks).reshape(len(areas), units, len(shared))
    by_unit = ranks.mean(axis=0)
    mean = by_unit.mean(axis=0)
    told = {
        "families": len(shared), "tasks": len(areas), "p": friedman(blocks),
        **next(iter(found.values()))[shared[0]].mixed["area"].beside.counts(),
        "critical_difference": critical_difference(len(shared), len(blocks)),
    }  # fmt: skip
    out = []
    arms = {name: next(iter(found.values()))[name].arm for name in shared}
    for i in np.argsort(mean, kind="stable"):
        row = {"family": shared[i], "form": forms.form(shared[i], arms[shared[i]]), "rank": float(mean[i]), **told}
        if units > 1:
            reach = student(units - 1) * float(by_unit[:, i].std(ddof=1)) / math.sqrt(units)
            row |= {"rank_low": max(1.0, mean[i] - reach), "rank_high": min(float(len(shared)), mean[i] + reach)}
        out.append(row)
    return out
