"""All draws of one arm on one task, in one prompt order: what every table and claim is counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.metrics import of_judge
from holdfast.errors import DataError
from holdfast.record import jsonfiles, tables
from holdfast.statistics import Difference, by_unit, paired_difference


@dataclass
class Group:
    """All draws of one arm on one task, seeds and replicates: outcomes as arrays (models, prompts) in one order."""

    task: str
    arm: str
    meta: dict[str, Any]
    seeds: list[int]  # of every model
    replicates: list[int]  # of every model
    units: list[int]  # of every model: which independent draw it belongs to
    outcomes: dict[str, np.ndarray]  # set -> (models, prompts) of outcome words
    flexible: np.ndarray | None
    ids: dict[str, list[str]]  # set -> ids of its prompts
    clusters: dict[str, list[str]]  # set -> base ids
    changed: list[float]
    finishes: dict[str, np.ndarray]  # set -> (models, prompts) of how the answers ended

    def hits(self, sets: Sequence[str], outcome: str) -> np.ndarray:
        """(units, prompts) in [0, 1]: which answers of these sets had this outcome, of every replicate its mean over
        seeds; (seeds, prompts) in {0, 1} where there is one replicate."""
        found = [self.outcomes[s] for s in sets if s in self.outcomes]
        hits = np.concatenate(found or [np.zeros((len(self.seeds), 0), dtype=str)], axis=1) == outcome
        return by_unit(hits, self.units)

    def counts(self) -> dict[str, int]:
        """How many seeds and replicates there are."""
        return {"seeds": len(set(self.seeds)), "replicates": len(set(self.replicates))}

    def ended(self, sets: Sequence[str]) -> dict[str, float]:
        """Which share of the answers to these sets ended how; nothing where a file does not say."""
        found = [self.finishes[s].ravel() for s in sets if s in self.finishes]
        words = np.concatenate(found) if found else np.array([""])
        return {} if (words == "").any() else {how: float((words == how).mean()) for how in names.FINISHES}

    def cluster(self, sets: Sequence[str]) -> list[str]:
        """Base ids of the prompts of these sets, in the order of `hits`."""
        return [c for s in sets if s in self.clusters for c in self.clusters[s]]

    @property
    def task_set(self) -> str:
        """The set of the rows of its task."""
        return f"{names.TASK}:{self.task}"


def load(metrics_files: Sequence[Path]) -> dict[str, dict[str, Group]]:
    """{task: {arm: Group}}; the roles base and aligned appear under every task.

    Raises:
        DataError: two models of a task answered other prompts.
    """
    cells = []
    for path in metrics_files:
        cell = jsonfiles.read_json(path)
        cells.append((cell, of_judge(tables.read(path.with_name("verdicts.parquet"), "verdicts"), cell["judge"])))
    tasks: dict[str, None] = {}
    for cell, _ in cells:
        if cell["task"]:
            tasks.setdefault(cell["task"])
    gathered: dict[tuple[str, str], list[tuple[dict[str, Any], list[dict[str, Any]]]]] = {}
    for cell, rows in cells:
        for task in [cell["task"]] if cell["task"] else tasks:
            gathered.setdefault((task, cell["arm"]), []).append((cell, rows))
    out: dict[str, dict[str, Group]] = {task: {} for task in tasks}
    for (task, arm), members in gathered.items():
        members.sort(key=lambda m: (m[0].get("replicate", 0), m[0]["seed"]))
        sets = [names.HAZARD, names.WRAPPED, names.LOOKALIKE, names.CRAFT, f"{names.TASK}:{task}"]
        by_set = [
            {s: sorted((r for r in rows if r["set"] == s), key=lambda r: r["id"]) for s in sets} for _, rows in members
        ]
        present = [s for s in sets if by_set[0][s]]
        first = next(iter(out[task].values()), None)
        ids = {s: [r["id"] for r in by_set[0][s]] for s in present}
        for cell, found in zip((m[0] for m in members), by_set, strict=True):
            for s in present:
                asked = first.ids.get(s, ids[s]) if first else ids[s]
                if [r["id"] for r in found[s]] != asked:
                    raise _other_prompts(f"{task}/{arm} seed {cell['seed']}", s, len(found[s]), len(asked))
        task_set = sets[-1]
        out[task][arm] = Group(
            task=task,
            arm=arm,
            meta=members[0][0],
            seeds=[m[0]["seed"] for m in members],
            replicates=[m[0].get("replicate", 0) for m in members],
            units=[m[0].get("unit", 0) for m in members],
            outcomes={s: np.array([[r["outcome"] for r in found[s]] for found in by_set]) for s in present},
            flexible=np.array([[r["flexible"] for r in found[task_set]] for found in by_set])
            if task_set in present
            else None,
            ids=ids,
            clusters={s: [r["base_id"] for r in by_set[0][s]] for s in present},
            finishes={s: np.array([[r["finish"] for r in found[s]] for found in by_set]) for s in present},
            changed=[m[0]["metrics"].get(names.CHANGED_FRACTION, 0.0) for m in members],
        )
    return out


def _other_prompts(who: str, name: str, found: int, expected: int) -> DataError:
    return DataError(
        f"{who} answered other prompts of set {name} than the models it is compared with.",
        found=f"{found} prompts", expected=f"the same {expected} prompts, told apart by their ids",
        do="ask every model of a study the same prompts: snakemake --forcerun respond",
    )  # fmt: skip


def difference(a: Group, b: Group, sets: Sequence[str], outcome: str) -> Difference | None:
    """`a - b`, None where neither was asked prompts of these sets."""
    x, y = a.hits(sets, outcome), b.hits(sets, outcome)
    # A role has one model for all seeds, and a base that is given one for all replicates.
    x, y = (np.broadcast_to(one, (max(len(x), len(y)), one.shape[1])) for one in (x, y))
    return paired_difference(x, y, a.cluster(sets)) if x.shape[1] and y.shape[1] else None
