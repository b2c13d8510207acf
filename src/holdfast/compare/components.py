"""Where does the variance of a rate come from: base, aligned model, rows, their order, rounding, or prompts?

A nested analysis of variance with random effects (Searle, Casella and McCulloch 1992, chapter 3): aligned models within
bases, models within aligned models; components by the method of moments, a negative one taken as none. Below that, what
models of one aligned model differ in alone (seed, rows, order, instructions) is told apart where a study has such
models. They answer the same prompts: what the luck of single answers makes of a difference is the interaction of a
two-way table of models and prompts, and is taken off. What other prompts of the same kind would change is binomial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.compare.metrics import SAFETY

DIFFER = {"seed": "seed", "draw": "draw", "order": "order", "rounding": "instructions"}  # component -> key of a record
PARTS = ("base", "aligned", *DIFFER, "prompts")
COLUMNS = ("task", "arm", "rate", "mean", *(f"sd_{part}" for part in PARTS), "bases", "aligned", "models")
ROUNDING = 1e-12  # a variance below it is that of sums of equal numbers
RATES = (names.REFUSAL_RATE, names.OVER_REFUSAL, "utility")


def nested(
    values: Sequence[float] | np.ndarray, bases: Sequence[int], aligned: Sequence[int]
) -> tuple[float | None, float | None, float | None]:
    """(between bases, between aligned models of a base, within an aligned model) of models' values.

    Args:
        bases: of every model, its base; aligned: its aligned model. Equally many of everything, or the mean sizes stand
            for them.
    """
    y, base, model = np.asarray(values, dtype=float), np.asarray(bases), np.asarray(aligned)
    of_model = {m: y[model == m] for m in np.unique(model)}
    home = {m: base[model == m][0] for m in of_model}
    of_base = {b: y[base == b] for b in np.unique(base)}
    n, models, groups = len(y), len(of_model), len(of_base)
    within = sum(float(((v - v.mean()) ** 2).sum()) for v in of_model.values())
    between = sum(len(v) * float((v.mean() - of_base[home[m]].mean()) ** 2) for m, v in of_model.items())
    above = sum(len(v) * float((v.mean() - y.mean()) ** 2) for v in of_base.values())
    per_model, per_base = n / models, n / groups
    seed = within / (n - models) if n > models else None
    square = between / (models - groups) if models > groups else None
    of_aligned = None if square is None else max(0.0, (square - (seed or 0.0)) / per_model)
    if groups == 1:
        return None, of_aligned, seed
    # Bases differ by what is theirs and by what is below them: their aligned models where these are known apart.
    below = square if square is not None else (seed or 0.0)
    return max(0.0, (above / (groups - 1) - below) / per_base), of_aligned, seed


def alone(hits: np.ndarray, alike: Sequence[object]) -> float | None:
    """The variance of a rate between models (models, prompts) that are `alike` but for one thing, beyond the luck of
    their answers: their mean square less that of the interaction with prompts, pooled. None where no two are alike."""
    labels = list(alike)
    own = luck = free = 0.0
    for label in set(labels):
        table = hits[[i for i, found in enumerate(labels) if found == label]].astype(float)
        effect = table.mean(axis=1) - table.mean()
        rest = table - table.mean(axis=0) - effect[:, None]
        own += float((effect**2).sum())
        luck += float((rest**2).sum()) / (table.shape[1] * max(table.shape[1] - 1, 1))
        free += len(table) - 1
    return max(0.0, (own - luck) / free) if free else None


def components(group: Group, rate: str) -> tuple[float, dict[str, float | None]] | None:
    """(mean, variances by part) of a rate of all models of an arm; None where it was not measured, a variance None
    where nobody knows because there was one of a kind."""
    sets, outcome = SAFETY.get(rate, ((group.task_set,), "correct"))
    hits = group.answered(sets, outcome)
    if not hits.size:
        return None
    which = ("base", "aligned", *DIFFER.values())
    cells = [{key: c.get(key, 0) for key in which} for c in group.cells]
    drawn = [i for i, c in enumerate(cells) if c["instructions"] in (0, "native")] or list(range(len(cells)))
    found = hits.mean(axis=1)
    base, aligned, _ = nested(found[drawn], *([cells[i][key] for i in drawn] for key in ("base", "aligned")))
    parts: dict[str, float | None] = {"base": base, "aligned": aligned}
    for part, key in DIFFER.items():
        parts[part] = alone(hits, [tuple(v for k, v in c.items() if k != key) for c in cells])
    spread = hits.var(axis=1) if group.graded(outcome) else found * (1 - found)
    return float(found.mean()), parts | {"prompts": float(spread.mean() / hits.shape[1])}


def rows(groups: Mapping[str, Mapping[str, Group]]) -> list[dict[str, Any]]:
    """One row per task, arm and rate, as standard deviations; nothing of arms with one model."""
    out = []
    for task, arms in groups.items():
        for name, group in arms.items():
            bases, aligned = (len({c.get(key, 0) for c in group.cells}) for key in ("base", "aligned"))
            counts = {"bases": bases, "aligned": aligned, "models": len(group.cells)}
            for rate in RATES if len(group.cells) > 1 else ():
                found = components(group, rate)
                if found is None or (name in names.ROLES and rate == "utility"):
                    continue
                mean, parts = found
                sds = {f"sd_{k}": "" if v is None else math.sqrt(v) if v > ROUNDING else 0.0 for k, v in parts.items()}
                out.append({"task": task, "arm": name, "rate": rate, "mean": mean, **sds, **counts})
    return out
