"""What can an arm be held to, by name, and which way is better? A study's own claims and its gate count these."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.compare.metrics import SAFETY
from holdfast.limits import Limits, paired_limits


@dataclass(frozen=True)
class Measure:
    """A rate of answers: of which prompts (none: the rows of the task), which outcome, and whether more is better."""

    sets: tuple[str, ...]
    outcome: str
    more_is_better: bool
    words: str

    def difference(self, effect: float, low: float, high: float) -> dict[str, float]:
        """What a gain, with its limits, is as a difference of the rate."""
        return {"effect": effect, "low": low, "high": high} if self.more_is_better else {
            "effect": 0.0 - effect, "low": -high, "high": -low
        }  # fmt: skip


MEASURES = {
    "refusal": Measure(*SAFETY[names.REFUSAL_RATE], True, "refusals"),
    "wrapped": Measure(*SAFETY[names.WRAPPED_REFUSAL_RATE], True, "refusals of wrapped requests"),
    "over_refusal": Measure(*SAFETY[names.OVER_REFUSAL], False, "over-refusals"),
    "compliance": Measure(*SAFETY[names.COMPLIANCE_RATE], False, "real answers to hazards"),
    "utility": Measure((), "correct", True, "right answers"),
}


def gain(measure: Measure, a: Group, b: Group, suite: str | None = None) -> Limits | None:
    """Limits of how much better a is than b, above zero where it is, whether more or less is better; None where one of
    them was not asked such prompts.

    Args:
        suite: count the prompts of this suite only; None: all.
    """
    if suite is not None:
        a, b = a.asked_by(suite), b.asked_by(suite)
    sets = measure.sets or (a.task_set,)
    x, y = a.hits_beside(b, sets, measure.outcome), b.hits_beside(a, sets, measure.outcome)
    if not x.shape[1] or not y.shape[1]:
        return None
    return (
        paired_limits(x, y, a.cluster(sets)) if measure.more_is_better else paired_limits(1 - x, 1 - y, a.cluster(sets))
    )
