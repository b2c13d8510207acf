"""Refusals at equal utility: what a method keeps when its rate and strength are free, not what one chosen point keeps.

The points of a sweep have a utility and a refusal rate each. Two models of a sweep, of which one drawn by fixed shares
answers every request, have exactly the shares' mean of both; so what a method reaches is the upper hull of its points,
as in the analysis of ROC curves (Provost and Fawcett 2001). Shares are found on validation rows, by themselves in every
replicate, as who has that replicate would; what is reported is measured on test rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare import claims, forms
from holdfast.compare.groups import Group
from holdfast.statistics import Difference, paired_difference, pooled_rate

MARGINS = (0.01, 0.03, 0.05)
LEVELS = 201
COLUMNS = (
    "task", "family", "form", "measure", "refusal", "refusal_low", "refusal_high", "over_refusal", "over_refusal_low",
    "over_refusal_high", "utility", "utility_minus_full", "utility_minus_full_low", "utility_minus_full_high", "n",
    "points", "reached", "seeds", "replicates", "mix",
)  # fmt: skip


# Where several suites were asked, and not all ask both: `names.REFUSAL_BESIDE`, `names.OVER_REFUSAL_BESIDE` of a mix.
BESIDE = ("refusal_beside", "over_refusal_beside")


def mix(utility: np.ndarray, refused: np.ndarray, level: float) -> np.ndarray | None:
    """The shares of models with the most refusals among all mixes whose utility is at least `level`; None where no
    model reaches it. At most two are above zero, and of equal mixes it is the one of fewer models and more utility."""
    enough = np.flatnonzero(utility >= level - 1e-12)
    if not enough.size:
        return None
    best = max(enough, key=lambda i: (refused[i], utility[i]))
    shares: np.ndarray = np.eye(len(utility))[best]
    most = refused[best]
    for i in enough:
        for j in np.flatnonzero(utility < level - 1e-12):
            share = (level - utility[j]) / (utility[i] - utility[j])
            found = share * refused[i] + (1 - share) * refused[j]
            if found > most + 1e-12:
                shares, most = np.zeros(len(utility)), found
                shares[i], shares[j] = share, 1 - share
    return shares


def area(utility: np.ndarray, refused: np.ndarray, top: float) -> np.ndarray:
    """The mean of the shares of `mix` over utilities from nothing to `top`; what no model reaches counts as nothing, so
    that their sum may be below one. Its refusals are the area under the curve, as a share of a perfect one's."""
    found = (mix(utility, refused, level) for level in np.linspace(0, top, LEVELS))
    mean: np.ndarray = sum((s for s in found if s is not None), np.zeros(len(utility))) / LEVELS
    return mean


@dataclass(frozen=True)
class Mixed:
    """A family's models mixed with the shares (units, points) that one measure asks for."""

    points: Sequence[Group]
    shares: np.ndarray
    reached: int  # in how many units
    beside: Group  # whose units these are: of full fine-tuning

    def hits(self, sets: Sequence[str], outcome: str) -> np.ndarray:
        """(units, prompts) in [0, 1]: how often the mix answers with this outcome."""
        of_points = np.stack([g.hits_beside(self.beside, sets, outcome) for g in self.points])
        mixed: np.ndarray = np.einsum("up,puq->uq", self.shares, of_points)  # those of a given model have one unit
        return mixed

    @property
    def everywhere(self) -> bool:
        """Whether the utility was reached in all units, so that there is something to report."""
        return self.reached == len(self.shares)


@dataclass(frozen=True)
class Family:
    """All points of an arm family on one task, and its mixes by measure: `within-1`, ..., `area`."""

    arm: forms.Arm
    points: Sequence[Group]
    mixed: Mapping[str, Mixed]


def measure(margin: float) -> str:
    """The name of "at most so much utility below full fine-tuning"."""
    return f"within-{round(100 * margin)}"


def families(
    test: Mapping[str, Group], validation: Mapping[str, Group], margins: Sequence[float] = MARGINS
) -> dict[str, Family]:
    """The families of a task by name; none without full fine-tuning, which all are held against.

    Args:
        test, validation: all arms of the task, on the rows of either split.
    """
    of: dict[str, list[str]] = {}
    for name, g in validation.items():
        if name not in names.ROLES and {names.HAZARD, g.task_set} <= g.outcomes.keys():
            of.setdefault(g.meta["family"], []).append(name)
    cells = {family: test[found[0]].meta for family, found in of.items()}
    arms = {k: forms.family(c["method"], c.get("settings") or {}, c.get("swept", ())) for k, c in cells.items()}
    if forms.baseline(arms) is None:
        return {}
    standing = forms.standing(forms.BASELINE, arms)
    beside = of[standing[0]][0]
    measured = {
        family: _measured([validation[name] for name in found], validation[beside]) for family, found in of.items()
    }
    tops = np.max([measured[full][0].max(axis=1) for full in standing], axis=0)  # per unit
    out = {}
    for family, found in of.items():
        utility, refused = measured[family]
        points = [test[name] for name in found]
        units = list(zip(utility, refused, tops, strict=True))
        found_at = {m: [mix(u, r, top - m) for u, r, top in units] for m in margins}
        mixed = {measure(m): _mixed(points, shares, test[beside]) for m, shares in found_at.items()}
        under = np.stack([area(*unit) for unit in units])
        out[family] = Family(arms[family], points, mixed | {"area": Mixed(points, under, len(under), test[beside])})
    return out


def _measured(points: Sequence[Group], beside: Group) -> tuple[np.ndarray, np.ndarray]:
    """Utility and refusal rate, each (units, points), with the units of an arm that is trained in all of them."""
    units = len(beside.hits([names.HAZARD], names.REFUSAL))

    def measured(sets: Sequence[str], outcome: str) -> np.ndarray:
        found = np.stack([g.hits_beside(beside, sets, outcome).mean(axis=1) for g in points], axis=1)
        return np.broadcast_to(found, (units, len(points)))

    return measured([beside.task_set], "correct"), measured([names.HAZARD], names.REFUSAL)


def _mixed(points: Sequence[Group], found: Sequence[np.ndarray | None], beside: Group) -> Mixed:
    shares = np.stack([np.zeros(len(points)) if s is None else s for s in found])
    return Mixed(points, shares, sum(s is not None for s in found), beside)


def _best_full(found: Mapping[str, Family]) -> Mixed:
    """Full fine-tuning at its best validation utility, in every unit by the first family of its form that has it."""
    full = forms.standing(forms.BASELINE, {name: family.arm for name, family in found.items()})
    of = [found[name].mixed[measure(0.0)] for name in full]
    taken = np.zeros(len(of[0].shares), dtype=bool)
    kept = []
    for mixed in of:
        reached = mixed.shares.sum(axis=1) > 0
        kept.append(mixed.shares * (reached & ~taken)[:, None])
        taken |= reached
    points = [p for mixed in of for p in mixed.points]
    return Mixed(points, np.concatenate(kept, axis=1), int(taken.sum()), of[0].beside)


def rows(
    groups: Mapping[str, Mapping[str, Group]], validation: Mapping[str, Mapping[str, Group]]
) -> list[dict[str, Any]]:
    """One row per task, family and measure: the refusals, and at which price in utility and over-refusal they were
    measured. Rates are empty where a utility was not reached in every unit."""
    out = []
    for task, arms in groups.items():
        found = families(arms, validation[task], (0.0, *MARGINS))
        for name, family in found.items():
            best = _best_full(found)
            for key, mixed in family.mixed.items():
                if key == measure(0.0):
                    continue
                row = {
                    "task": task, "family": name, "form": forms.form(name, family.arm), "measure": key,
                    "points": len(family.points), "reached": f"{mixed.reached}/{len(mixed.shares)}",
                    **family.points[0].counts(),
                }  # fmt: skip
                if mixed.everywhere:
                    row |= _rates(mixed, over=key != "area") | {"mix": _recipe(mixed)}
                if mixed.everywhere and key != "area":
                    g = family.points[0]
                    lost = _difference(mixed, best, [g.task_set], "correct")
                    row["utility"] = float(mixed.hits([g.task_set], "correct").mean())
                    row |= {
                        f"utility_minus_full{end}": value
                        for end, value in (("", lost.effect), ("_low", lost.low), ("_high", lost.high))
                    }
                out.append(row)
    return out


def _rates(mixed: Mixed, *, over: bool) -> dict[str, Any]:
    """Refusals of a mix with their interval, and its over-refusals (`over`); not those of an area, which counts what no
    model reaches as nothing. Both again of the suites that ask both, where that is another thing."""
    out: dict[str, Any] = {}
    within = [g.beside((names.HAZARD,), names.BENIGN) for g in mixed.points]
    if over and within[0] is not mixed.points[0]:
        both = replace(mixed, points=within)
        out |= {
            key: float(both.hits(sets, names.REFUSAL).mean())
            for key, sets in zip(BESIDE, ((names.HAZARD,), names.BENIGN), strict=True)
        }
    for name, sets in (("refusal", (names.HAZARD,)), ("over_refusal", names.BENIGN))[: 2 if over else 1]:
        hits = mixed.hits(sets, names.REFUSAL)
        if hits.shape[1]:
            rate, low, high = pooled_rate(hits, mixed.points[0].cluster(sets))
            out |= {name: rate, f"{name}_low": low, f"{name}_high": high}
            out.setdefault("n", hits.shape[1])
    return out


def _recipe(mixed: Mixed) -> str:
    """Which models with which share, mean over units."""
    shares = mixed.shares.mean(axis=0)
    of = [(share, g.arm) for share, g in zip(shares, mixed.points, strict=True) if share > 0]
    return " + ".join(f"{share:.2f} {arm}" for share, arm in sorted(of, reverse=True))


def _difference(a: Mixed, b: Mixed, sets: Sequence[str], outcome: str) -> Difference:
    return paired_difference(a.hits(sets, outcome), b.hits(sets, outcome), a.points[0].cluster(sets))


def claim_rows(
    groups: Mapping[str, Mapping[str, Group]], validation: Mapping[str, Mapping[str, Group]],
    declared: Iterable[claims.Contrast] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """The contrasts of `claims` between families at equal utility, within `claims.UTILITY_MARGIN` of full fine-tuning,
    where both reach it; without a verdict, which depends on all of them.

    None of one draw: which mix the validation rows choose is luck that only another draw, which chooses for itself,
    brings into an interval.
    """
    out = []
    declared = list(declared)
    for task, arms in groups.items():
        found = families(arms, validation[task], (claims.UTILITY_MARGIN,))
        key = measure(claims.UTILITY_MARGIN)
        for one, other, claim in claims.contrasts({name: f.arm for name, f in found.items()}, declared):
            a, b = found[one].mixed[key], found[other].mixed[key]
            if len(a.shares) > 1 and a.everywhere and b.everywhere:
                d = _difference(a, b, [names.HAZARD], names.REFUSAL)
                text = f"{claim}, at equal utility"
                counts = found[one].points[0].counts()
                out.append(claims.claim_row(task, claims.EQUAL, (one, other), text, d, d.p, counts))
    return out
