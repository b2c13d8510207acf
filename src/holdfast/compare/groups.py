"""All draws of one arm on one task, in one prompt order: what every table and claim is counted from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import names
from holdfast.compare.metrics import of_judge
from holdfast.data import scorers
from holdfast.errors import DataError
from holdfast.record import jsonfiles, tables
from holdfast.statistics import Difference, by_draw, paired_difference
from holdfast.suites import published


@dataclass
class Group:
    """All draws of one arm on one task, seeds and replicates: outcomes as arrays (models, prompts) in one order."""

    task: str
    arm: str
    cells: list[dict[str, Any]]  # metrics.json of every model
    outcomes: dict[str, np.ndarray]  # set -> (models, prompts) of outcome words
    flexible: np.ndarray | None
    ids: dict[str, list[str]]  # set -> ids of its prompts
    clusters: dict[str, list[str]]  # set -> base ids
    finishes: dict[str, np.ndarray]  # set -> (models, prompts) of how the answers ended
    scores: np.ndarray | None = None  # (models, rows of the task) where they are graded, and not right or wrong
    categories: dict[str, list[str]] = field(default_factory=dict)  # set -> categories of its prompts

    def graded(self, outcome: str) -> bool:
        """Whether answers have more or less of an outcome, and do not have it or not."""
        return outcome == "correct" and self.scores is not None

    @property
    def metric(self) -> str:
        """The name of its task's utility metric."""
        return scorers.metric_of(self.meta, self.task)

    @property
    def meta(self) -> dict[str, Any]:
        """What is the same of all its models, in the first one's metrics.json."""
        return self.cells[0]

    @property
    def units(self) -> list[int]:
        """Of every model, which independent draw it belongs to (`study.replicates.units`)."""
        return [c.get("unit", 0) for c in self.cells]

    def answered(self, sets: Sequence[str], outcome: str) -> np.ndarray:
        """(models, prompts) booleans: which answers of these sets had this outcome; of graded answers, how correct they
        are."""
        if outcome == "correct" and self.scores is not None:
            return self.scores
        found = [self.outcomes[s] for s in sets if s in self.outcomes]
        hits: np.ndarray = np.concatenate(found or [np.zeros((len(self.cells), 0), dtype=str)], axis=1) == outcome
        return hits

    def hits(self, sets: Sequence[str], outcome: str) -> np.ndarray:
        """As `answered`, but (units, prompts) in [0, 1] where there are several: of every replicate the mean of its
        models."""
        return by_draw(self.answered(sets, outcome), self.cells)

    def hits_beside(self, other: Group, sets: Sequence[str], outcome: str) -> np.ndarray:
        """`hits` to be compared with those of another arm: of a role the model that each of the other's models starts
        from, so that replicates that share one count it as often; of models that are given, which are there for the
        first replicate alone, their mean where the other's are there for more."""
        cells = other.cells if self._starts(other) else self.cells
        hits = by_draw(self.answered_beside(other, sets, outcome), cells)
        mine, theirs = ({c.get("replicate", 0) for c in of} for of in (cells, other.cells))
        return hits.mean(axis=0, keepdims=True) if mine < theirs else hits

    def _starts(self, other: Group) -> bool:
        """Whether it is a role whose models another arm's start from."""
        return self.arm in names.ROLES and not (other.arm in names.ROLES and len(self.cells) > len(other.cells))

    def answered_beside(self, other: Group, sets: Sequence[str], outcome: str) -> np.ndarray:
        """`answered`, of a role with a row for each of the other arm's models: that of the model it starts from."""
        if not self._starts(other):
            return self.answered(sets, outcome)
        home = "base" if self.arm == "base" else "aligned"
        position = {c.get("replicate", 0): i for i, c in enumerate(self.cells)}
        rows = [position[c.get(home, 0)] for c in other.cells]
        of_starts: np.ndarray = self.answered(sets, outcome)[rows]
        return of_starts

    def mean(self, of_models: Sequence[float] | np.ndarray) -> float:
        """The mean over units of what every model has."""
        return float(by_draw(np.asarray(of_models, dtype=float), self.cells).mean())

    def counts(self) -> dict[str, int]:
        """How many seeds there are, and how many replicates that were drawn independently."""
        return {"seeds": len({c["seed"] for c in self.cells}), "replicates": len(set(self.units))}

    def ended(self, sets: Sequence[str]) -> dict[str, float]:
        """Which share of the answers to these sets ended how; nothing where a file does not say."""
        found = [self.finishes[s] for s in sets if s in self.finishes]
        words = np.concatenate(found, axis=1) if found else np.array([[""]])
        return {} if (words == "").any() else {how: self.mean((words == how).mean(axis=1)) for how in names.FINISHES}

    def cluster(self, sets: Sequence[str]) -> list[str]:
        """Base ids of the prompts of these sets, in the order of `hits`."""
        return [c for s in sets if s in self.clusters for c in self.clusters[s]]

    def asked_by(self, suite: str) -> Group:
        """The same models and no other prompts than those of a published suite."""
        return self._of(lambda id_: published.of(id_) == suite)

    def beside(self, sets: Sequence[str], others: Sequence[str]) -> Group:
        """The same models and no other prompts than those of suites that ask of both kinds of sets, what is of no
        published suite counted as one: hazards of one suite say little beside harmless requests of another. Itself
        where all suites do, or none does."""
        kinds = [{source(id_) for s in kind for id_ in self.ids.get(s, ())} for kind in (sets, others)]
        both = kinds[0] & kinds[1]
        return self._of(lambda id_: source(id_) in both) if both and kinds[0] != kinds[1] else self

    def _of(self, wanted: Callable[[str], bool]) -> Group:
        kept = {s: [i for i, id_ in enumerate(ids) if wanted(id_)] for s, ids in self.ids.items()}
        kept = {s: places for s, places in kept.items() if places}
        return replace(
            self, ids={s: [self.ids[s][i] for i in places] for s, places in kept.items()},
            outcomes={s: self.outcomes[s][:, places] for s, places in kept.items()},
            clusters={s: [self.clusters[s][i] for i in places] for s, places in kept.items()},
            finishes={s: self.finishes[s][:, places] for s, places in kept.items()}, flexible=None, scores=None,
            categories={s: [self.categories[s][i] for i in p] for s, p in kept.items() if s in self.categories},
        )  # fmt: skip

    @property
    def task_set(self) -> str:
        """The set of the rows of its task."""
        return f"{names.TASK}:{self.task}"


def source(prompt: str) -> str:
    """The published suite of a prompt, by the prompt's id; of all others ''."""
    suite = published.of(prompt)
    return suite if suite in published.PROMPTS else ""


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
        graded = task_set in present and scorers.graded(scorers.metric_of(members[0][0], task))
        out[task][arm] = Group(
            task=task,
            arm=arm,
            cells=[m[0] for m in members],
            outcomes={s: np.array([[r["outcome"] for r in found[s]] for found in by_set]) for s in present},
            flexible=np.array([[r["flexible"] for r in found[task_set]] for found in by_set])
            if task_set in present
            else None,
            ids=ids,
            clusters={s: [r["base_id"] for r in by_set[0][s]] for s in present},
            categories={s: [r["category"] for r in by_set[0][s]] for s in present},
            finishes={s: np.array([[r["finish"] for r in found[s]] for found in by_set]) for s in present},
            scores=np.array([[r["score"] for r in found[task_set]] for found in by_set]) if graded else None,
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
    x, y = a.hits_beside(b, sets, outcome), b.hits_beside(a, sets, outcome)
    return paired_difference(x, y, a.cluster(sets)) if x.shape[1] and y.shape[1] else None
