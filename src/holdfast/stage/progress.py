"""How far is a run of Snakemake? Its jobs, which of them work and which are done, and how long the rest will take."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.record import times

CELL = ("rep", "task", "arm", "seed")
_STEP = re.compile(r"\bstep \d+/\d+")


@dataclass
class Job:
    """One job of a run; `cell` is None where it belongs to no fine-tuned model, `began` where it has not begun."""

    rule: str
    name: str
    cell: str | None
    logs: Sequence[str] = ()
    began: float | None = None

    def __str__(self) -> str:
        return f"{self.rule} {self.name}".strip()


def job_of(rule: str, wildcards: Mapping[str, str]) -> Job:
    """A job by its rule and wildcards.

    >>> str(job_of("finetune", {"rep": "", "task": "crafts", "arm": "warp", "seed": "0"}))
    'finetune crafts/warp/0'
    """
    cell = "/".join(str(wildcards[k]).strip("/") for k in CELL if wildcards.get(k))
    inside = {"task", "arm", "seed"} <= wildcards.keys()
    return Job(rule, "/".join(str(v).strip("/") for v in wildcards.values() if v), cell if inside else None)


@dataclass
class Run:
    """The jobs of one run by their numbers, and which of them are done."""

    jobs: dict[int, Job]
    began: float
    running: dict[int, Job] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    failed: dict[int, Job] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of the finished jobs of a rule
    stopped: bool = False

    def begin(self, number: int, job: Job, now: float) -> None:
        """A job runs, perhaps once more; on a cluster it may wait for its turn."""
        job.began = now
        self.jobs[number] = self.running[number] = job
        self.failed.pop(number, None)

    def finish(self, number: int, now: float) -> None:
        """A job has ended well."""
        job = self.running.pop(number, None)
        self.done.add(number)
        if job and job.began is not None:
            self.seconds.setdefault(job.rule, []).append(now - job.began)

    def fail(self, number: int) -> Job | None:
        """A job has failed; None if that is known."""
        if number in self.failed:
            return None
        job = self.running.pop(number, None) or self.jobs.get(number)
        if job:
            self.failed[number] = job
        return job

    def cells(self) -> tuple[int, int]:
        """(fine-tuned models with everything that is made of them done, all of this run)."""
        everything = {j.cell for j in self.jobs.values() if j.cell}
        return len(everything - {j.cell for n, j in self.jobs.items() if n not in self.done}), len(everything)

    def left(self, now: float) -> float | None:
        """Seconds to the end, if what is left takes as long as what was done of its kind, as many at a time as now.

        None while the jobs of which no kind has ended are more than half of what is left.
        """
        rest = [j for n, j in self.jobs.items() if n not in self.done]
        known = [x for each in self.seconds.values() for x in each]
        new = sum(j.rule not in self.seconds for j in rest)
        if not known or 2 * new > len(rest):
            return None
        worked = {id(j): now - j.began for j in self.running.values() if j.began is not None}
        total = 0.0
        for j in rest:
            alike = self.seconds.get(j.rule, known)
            total += max(sum(alike) / len(alike) - worked.get(id(j), 0.0), 0.0)
        at_a_time = max((sum(known) + sum(worked.values())) / max(now - self.began, 1e-9), 1.0)
        return total / at_a_time

    def line(self, study: str, now: float) -> str:
        """How far the run is, in one line."""
        cells, of = self.cells()
        left = self.left(now)
        parts = [f"{study}: {len(self.done)} of {len(self.jobs)} jobs"]
        parts += [f"{cells} of {of} cells"] if of else []
        parts += [times.passed(now - self.began)]
        parts += [f"about {times.coarse(left)} left"] if left is not None else []
        at_work = [f"{job} {step}".strip() for job in self.running.values() for step in [_step(job.logs)]]
        return " | ".join([", ".join(parts), *at_work])


def tail(log: str, size: int = 4000) -> list[str]:
    """The last lines of a log, without that about the process itself; none where there is none."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and not line.startswith("worked ")]


def _step(logs: Iterable[str]) -> str:
    """Where a training is, if it says so in its log."""
    last = [end[-1] for log in logs if (end := tail(log, 500))]
    found = _STEP.search(last[-1]) if last else None
    return found[0] if found else ""
