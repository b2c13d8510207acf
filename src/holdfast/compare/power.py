"""Which difference between two arms a study can see, before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import statistics
from holdfast.compare import claims, forms
from holdfast.study import resolve


@dataclass(frozen=True)
class Power:
    """The smallest difference of refusals seen with 80 % power: as the only claim, and among the `family` of claims
    that the arms of the study make (Holm)."""

    alone: float
    among: float
    family: int


def power(study: resolve.Resolved) -> Power:
    """What a study with this many prompts and these arms can see (`statistics.smallest_difference`)."""
    prompts, first_seed = study.study.evaluation.prompts_per_set, study.study.seeds[0]
    declared = [(c.arm, c.over, c.says) for c in study.study.claims]
    family = 0
    for task in study.study.tasks:
        arms = {role: forms.Arm(role) for role in study.roles}
        for name in (a for t, a, s in study.cells if (t, s) == (task, first_seed)):
            arm = study.arms[name]
            arms[name] = forms.Arm(arm.method, arm.settings[task], bool(arm.swept), arm.of)
        family += len(claims.contrasts(arms, declared))
    alone, among = (statistics.smallest_difference(prompts, comparisons=n) for n in (1, max(family, 1)))
    return Power(alone, among, family)
