"""Which refusals outlast what deployment does to a model? Every arm as it was, and under every stress of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast import names
from holdfast.compare.groups import Group, difference
from holdfast.compare.table import in_order, rate

PLAIN = "as it was"
RATES = {
    "refusal": ((names.HAZARD,), names.REFUSAL), "compliance": ((names.HAZARD,), names.COMPLIANCE),
    "over_refusal": (names.BENIGN, names.REFUSAL),
}  # fmt: skip
COLUMNS = (
    "task", "arm", "family", "stress", "seeds", "replicates",
    *(f"{name}{end}" for name in (*RATES, "utility") for end in ("", "_low", "_high", "_n")),
    "refusal_change", "refusal_change_low", "refusal_change_high",
)  # fmt: skip

Groups = Mapping[str, Mapping[str, Group]]


def rows(plain: Groups, stressed: Mapping[str, Groups]) -> list[dict[str, Any]]:
    """One row per task, arm and stress, and one per arm without any: rates with their intervals, and the paired change
    of refusals. Arms that nothing was done to are left out.

    Args:
        plain: the models as they were; stressed: by stress.
    """
    return [row for task in plain for arm in in_order(plain[task]) for row in _of(plain, stressed, task, arm)]


def _of(plain: Groups, stressed: Mapping[str, Groups], task: str, arm: str) -> Iterator[dict[str, Any]]:
    before = plain[task][arm]
    after = {name: of[task][arm] for name, of in stressed.items() if arm in of.get(task, {})}
    for name, g in ({PLAIN: before} | after if after else {}).items():
        row = {"task": task, "arm": arm, "family": g.meta["family"], "stress": name, **g.counts()}
        for what, (sets, outcome) in RATES.items():
            row |= rate(what, g, sets, outcome)
        if g.flexible is not None:
            row |= rate("utility", g, [g.task_set], "correct")
        if name != PLAIN and (d := difference(g, before, [names.HAZARD], names.REFUSAL)):
            row |= {"refusal_change": d.effect, "refusal_change_low": d.low, "refusal_change_high": d.high}
        yield {k: v for k, v in row.items() if k in COLUMNS}
