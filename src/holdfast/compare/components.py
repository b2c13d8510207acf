"""Where does the variance of a rate come from: the base, the aligned model, the seed of fine-tuning, or the prompts?

A nested analysis of variance with random effects (Searle, Casella and McCulloch 1992, chapter 3): aligned models within
bases, seeds within aligned models; components by the method of moments, a negative one taken as none. What other
prompts of the same kind would change is binomial and part of what differs between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.compare.metrics import SAFETY

COLUMNS = (
    "task", "arm", "rate", "mean", "sd_base", "sd_aligned", "sd_seed", "sd_prompts", "bases", "aligned", "seeds",
)  # fmt: skip
RATES = (names.REFUSAL_RATE, names.OVER_REFUSAL, "utility")


@dataclass(frozen=True)
class Components:
    """Variances of a rate: between bases, between aligned models of a base, between seeds of an aligned model beyond
    what the prompts explain, and that. None where there was one of a kind, so that nobody knows."""

    base: float | None
    aligned: float | None
    seed: float | None
    prompts: float


def nested(
    values: Sequence[float] | np.ndarray, bases: Sequence[int], aligned: Sequence[int]
) -> tuple[float | None, float | None, float | None]:
    """(between bases, between aligned models of a base, between seeds of an aligned model) of models' values.

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


def components(group: Group, rate: str) -> tuple[float, Components] | None:
    """(mean, components) of a rate of all models of an arm; None where it was not measured."""
    sets, outcome = SAFETY.get(rate, ((group.task_set,), "correct"))
    hits = group.answered(sets, outcome)
    if not hits.size:
        return None
    found = hits.mean(axis=1)
    binomial = float((found * (1 - found)).mean() / hits.shape[1])
    base, aligned, seed = nested(
        found, [c.get("base", 0) for c in group.cells], [c.get("aligned", 0) for c in group.cells]
    )
    own = None if seed is None else max(0.0, seed - binomial)
    return float(found.mean()), Components(base, aligned, own, binomial)


def rows(groups: Mapping[str, Mapping[str, Group]]) -> list[dict[str, Any]]:
    """One row per task, arm and rate, as standard deviations; nothing of arms with one model."""
    out = []
    for task, arms in groups.items():
        for name, group in arms.items():
            counts = [len({c.get(key, 0) for c in group.cells}) for key in ("base", "aligned", "seed")]
            for rate in RATES if len(group.cells) > 1 else ():
                found = components(group, rate)
                if found is None or (name in names.ROLES and rate == "utility"):
                    continue
                mean, c = found
                parts = {"base": c.base, "aligned": c.aligned, "seed": c.seed, "prompts": c.prompts}
                sds = {f"sd_{k}": "" if v is None else math.sqrt(v) for k, v in parts.items()}
                row = {"task": task, "arm": name, "rate": rate, "mean": mean, **sds}
                out.append(row | dict(zip(("bases", "aligned", "seeds"), counts, strict=True)))
    return out
