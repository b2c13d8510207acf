"""Refusals against utility: which arms no other arm beats on both, how sure that is, and how much they cover.

Everything is bootstrapped: seeds, hazards (by base prompt) and task rows are drawn together for all arms of a task, so
that arms stay paired. The hypervolume of an arm is refusal rate x utility, the rectangle it dominates from the
reference point (0, 0); that of the front is the area all arms together dominate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.record import csvfiles
from holdfast.statistics import CONFIDENCE, pooled_rate, two_level

FRONT = "(front)"
COLUMNS = (
    "task", "arm", "refusal", "utility", "on_front", "front_probability", "hypervolume", "hypervolume_low",
    "hypervolume_high", "share_of_front", "refusal_sd", "utility_sd", "correlation",
)  # fmt: skip


def on_front(points: np.ndarray) -> np.ndarray:
    """Which of the points (..., arms, 2), larger is better, no other one dominates: booleans (..., arms)."""
    one, other = points[..., :, None, :], points[..., None, :, :]
    dominated = (other >= one).all(-1) & (other > one).any(-1)
    return np.asarray(~dominated.any(-1))


def hypervolume(points: np.ndarray) -> np.ndarray:
    """Area that points (..., arms, 2) in the unit square dominate together from (0, 0)."""
    order = np.argsort(-points[..., 0], axis=-1, kind="stable")
    x = np.take_along_axis(points[..., 0], order, -1)
    y = np.maximum.accumulate(np.take_along_axis(points[..., 1], order, -1), axis=-1)
    following = np.concatenate([x[..., 1:], np.zeros_like(x[..., :1])], axis=-1)
    area: np.ndarray = ((x - following) * y).sum(-1)
    return area


def rows(arms: Mapping[str, Group]) -> list[dict[str, Any]]:
    """One row per trained or merged arm of a task, and one for the front."""
    of = {
        name: g for name, g in arms.items()
        if name not in names.ROLES and {names.HAZARD, g.task_set} <= g.outcomes.keys()
    }  # fmt: skip
    if not of:
        return []
    first = next(iter(of.values()))
    graded = first.graded("correct")
    refused = [g.hits([names.HAZARD], names.REFUSAL) for g in of.values()]
    solved = [g.hits([g.task_set], "correct") for g in of.values()]
    points = np.stack([[x.mean(), y.mean()] for x, y in zip(refused, solved, strict=True)])
    # One seed of the bootstrap draws the same seeds, hazards and rows for every arm.
    drawn = [
        [two_level(x, first.cluster([s])) for x in outcomes]
        for s, outcomes in ((names.HAZARD, refused), (first.task_set, solved))
    ]
    draws = np.stack([np.stack(d, axis=1) for d in drawn], axis=-1)
    front, often = on_front(points), on_front(draws).mean(0)
    whole = hypervolume(points)
    out = []
    for i, (name, point) in enumerate(zip(of, points, strict=True)):
        out.append(
            {"task": first.task, "arm": name, "refusal": point[0], "utility": point[1],
             "on_front": "yes" if front[i] else "no", "front_probability": float(often[i]),
             "share_of_front": float(point.prod() / whole) if whole else 0.0, **_spread(draws[:, i])}
            | _interval(point.prod(), draws[:, i].prod(-1), _corners(refused[i], solved[i], graded))
        )  # fmt: skip
    total = {"task": first.task, "arm": FRONT, "front_probability": 1.0, "on_front": "yes", "share_of_front": 1.0}
    corners = np.array([_corners(x, y, graded) for x, y in zip(refused, solved, strict=True)])
    return [*out, total | _interval(float(whole), hypervolume(draws), tuple(corners.max(0)))]


def _spread(draws: np.ndarray) -> dict[str, float]:
    """Standard deviations of draws (draws, 2) of refusal and utility, and their correlation: the region they fill."""
    sd = draws.std(0)
    varies = bool((sd > 1e-12).all())
    together = float(np.corrcoef(draws.T)[0, 1]) if varies else 0.0
    return {"refusal_sd": float(sd[0]), "utility_sd": float(sd[1]), "correlation": together}


def _corners(refused: np.ndarray, solved: np.ndarray, graded: bool) -> tuple[float, float]:
    """The smallest and largest rectangle within the intervals of both rates."""
    (_, *x), (_, *y) = pooled_rate(refused), pooled_rate(solved, graded=graded)
    return x[0] * y[0], x[1] * y[1]


def _interval(value: float, draws: np.ndarray, corners: tuple[float, float]) -> dict[str, float]:
    """Quantiles of the draws; where all are equal, which says nothing, those of the rates' own intervals."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if np.ptp(draws) < 1e-12:
        low, high = corners
    return {
        "hypervolume": float(value), "hypervolume_low": min(float(low), float(value)),
        "hypervolume_high": max(float(high), float(value)),
    }  # fmt: skip


def build(groups: Mapping[str, Mapping[str, Group]], out: Path) -> None:
    """Write pareto.csv."""
    csvfiles.write_csv(out, [row for arms in groups.values() for row in rows(arms)], COLUMNS)
