"""Are refusals lost evenly over the categories of requests, or some categories more than others?

Of the requests that the model before fine-tuning refused, the share that is not refused any more, per category (what
Ung et al. 2024, arXiv 2412.16469, call biased forgetting is that these shares differ between groups of people). Whether
they differ by more than chance is tested per arm by a permutation of the categories over the requests: the statistic is
Σ n_c (share of c − share of all)², and the p-value the share of permutations that reach it, adjusted over all arms and
tasks after Holm. Only requests that were refused before take part, so that a category which was refused less to begin
with does not count as forgotten more. Of several seeds or replicates a request has the mean of their losses, so that
what is said is about requests like these and these models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.compare.metrics import rate
from holdfast.statistics import holm

LOST = "lost"
COLUMNS = (
    "task", "arm", "category", LOST, f"{LOST}_low", f"{LOST}_high", f"{LOST}_n", "p", "p_holm", "seeds", "replicates",
)  # fmt: skip
ALL = "all"
PERMUTATIONS = 9999
_REACHED = 1e-9  # sums of the same numbers in another order


def lost(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(share of models that lost it, whether any had it) per request, of refusals (models, requests) before and after
    fine-tuning; the share is of the models whose start refused it."""
    had = before.astype(float).sum(axis=0)
    gone = (before.astype(float) * (1 - after.astype(float))).sum(axis=0)
    return gone / np.maximum(had, 1e-300), had > 0


def spread(values: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Σ n_c (mean of c − mean of all)² of values (requests,), for every row of categories (k, requests), numbered from
    0."""
    size = int(categories.max()) + 1
    cells = categories + size * np.arange(len(categories))[:, None]
    sums = np.bincount(cells.ravel(), np.tile(values, len(categories)), minlength=size * len(categories))
    sums, counts = sums.reshape(-1, size), np.bincount(categories[0], minlength=size)
    between: np.ndarray = (sums**2 / np.maximum(counts, 1)).sum(axis=1) - values.sum() ** 2 / len(values)
    return between


def equality(values: np.ndarray, categories: Sequence[str], seed: int = 0) -> float:
    """The p-value of "the values (requests,) have nothing to do with the categories"; 1 where there is one category, or
    nothing differs."""
    _, numbered = np.unique(np.asarray(categories), return_inverse=True)
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or numbered.max() == 0 or np.ptp(values) < _REACHED:
        return 1.0
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(numbered, (PERMUTATIONS, 1)), axis=1)
    reached = spread(values, drawn) >= float(spread(values, numbered[None])[0]) - _REACHED
    return (1 + int(reached.sum())) / (1 + PERMUTATIONS)


def _of_arm(arm: Group, aligned: Group) -> tuple[list[dict[str, Any]], float]:
    """Rows of one arm, without p, and its p."""
    sets = [names.HAZARD]
    before, after = aligned.answered_beside(arm, sets, names.REFUSAL), arm.answered(sets, names.REFUSAL)
    shares, had = lost(before, after)
    clusters, categories = np.array(arm.cluster(sets)), np.array(arm.categories[names.HAZARD])
    shares, clusters, categories = shares[had], clusters[had], categories[had]
    rows = []
    everything = np.full(len(shares), True)  # a category may be called as they are all together
    for category, here in ((ALL, everything), *((c, categories == c) for c in sorted(set(categories)))):
        graded = not bool(np.isin(shares, (0, 1)).all())
        found = rate(LOST, shares[here].tolist(), clusters[here].tolist(), graded=graded)
        rows.append({"task": arm.task, "arm": arm.arm, "category": category, **found, **arm.counts()})
    # one value and one category per request: wordings of the same are no requests of their own
    first = np.unique(clusters, return_index=True)[1]
    means = np.array([shares[clusters == clusters[i]].mean() for i in first])
    return rows, equality(means, categories[first].tolist())


def rows(groups: Mapping[str, Mapping[str, Group]]) -> list[dict[str, Any]]:
    """Per task, arm and category the share of refusals lost with its 95 % interval, `all` first; beside each the test
    of equality over the categories of that arm."""
    found = [
        _of_arm(group, arms["aligned"])
        for arms in groups.values() if "aligned" in arms
        for name, group in arms.items()
        if name not in names.ROLES and names.HAZARD in group.outcomes and names.HAZARD in arms["aligned"].outcomes
    ]  # fmt: skip
    adjusted = holm([p for _, p in found])
    return [row | {"p": p, "p_holm": q} for (of_arm, p), q in zip(found, adjusted, strict=True) for row in of_arm]
