"""What does every published suite say of an arm? Its own rates beside each other, one row per task, arm and suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import names
from holdfast.compare.groups import Group
from holdfast.compare.metrics import SAFETY
from holdfast.compare.table import in_order, rate

RATES = (names.REFUSAL_RATE, names.COMPLIANCE_RATE, names.OVER_REFUSAL)
ENDS = ("", "_low", "_high", "_n", *(f"_{how}" for how in names.FINISHES))
COLUMNS = (
    "study", "task", "arm", "family", "suite", "split", "judge", "seeds", "replicates",
    *(f"{name}{end}" for name in RATES for end in ENDS),
)  # fmt: skip


def rows(groups: Mapping[str, Mapping[str, Group]], suites: Sequence[str]) -> list[dict[str, Any]]:
    """The rates of every arm on the prompts of each suite alone, with intervals over prompts, seeds and replicates as
    in table.csv: refusals of its hazards and compliance with them, refusals of its harmless prompts, each where it has
    such prompts."""
    out = []
    for task, arms in groups.items():
        for arm in in_order(arms):
            for suite in suites:
                g = arms[arm].asked_by(suite)
                row = {
                    "study": g.meta["study"], "task": task, "arm": arm, "family": g.meta["family"], "suite": suite,
                    "split": g.meta["split"], "judge": g.meta["judge"], **g.counts(),
                }  # fmt: skip
                for name in RATES:
                    row |= rate(name, g, *SAFETY[name])
                out.append(row)
    return out
