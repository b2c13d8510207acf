"""Which difference between two arms a study can see, before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import names, statistics
from holdfast.compare import claims, forms
from holdfast.study import replicates, resolve


@dataclass(frozen=True)
class Power:
    """The smallest difference of refusals seen with 80 % power: as the only claim, and among the `family` of claims
    that the arms of the study make (Holm). Of several draws, where the difference varies by `spread` between them."""

    alone: float
    among: float
    family: int
    prompts: int
    draws: int
    spread: float


def power(study: resolve.Resolved, spread: float = 0.0, hazards: int | None = None) -> Power:
    """What a study with this many prompts, draws and these arms can see (`statistics.smallest_difference`).

    Args:
        spread: standard deviation of a difference from draw to draw.
        hazards: how many there are to ask, where files say it: fewer than `prompts_per_set`, or of several suites more.
    """
    evaluation, first_seed = study.study.evaluation, study.study.seeds[0]
    sets = study.prompt_sets(evaluation.split, [names.HAZARD])
    prompts = sets * evaluation.prompts_per_set if hazards is None else hazards
    draws = max(len(set(replicates.units(study.replicates))), 1)
    draws = draws if draws > 1 else len(study.study.seeds)
    declared = [(c.arm, c.other, c.words) for c in study.study.claims if not c.declared]
    family = equal = 0
    for task in study.study.tasks:
        arms, families = {role: forms.Arm(role) for role in study.roles}, {}
        for name in (a for t, a, s in study.cells if (t, s) == (task, first_seed)):
            arm = study.arms[name]
            arms[name] = forms.Arm(arm.method, arm.settings[task], bool(arm.swept), arm.of)
            families[arm.family] = forms.family(arm.method, arm.settings[task], arm.swept)
        family += len(claims.contrasts(arms, declared))
        equal += len(claims.contrasts(families, declared)) if study.study.curves else 0
    family = max(family, equal)  # each kind of claim is adjusted by itself
    alone, among = (
        statistics.smallest_difference(prompts, comparisons=n, units=draws, spread=spread) for n in (1, max(family, 1))
    )
    return Power(alone, among, family, prompts, draws, spread)
