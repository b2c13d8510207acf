"""What is compared, claimed and chosen in a study, and what is an arm held to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.errors import StudyError
from holdfast.names import BENIGN, HAZARD, WRAPPED
from holdfast.study import registry
from holdfast.study.asked import Claim, Gate
from holdfast.study.keys import Study
from holdfast.study.reading import check_known
from holdfast.study.structure import Structure
from holdfast.suites import published


class Compared(Structure):
    """The arms, tasks and suites that statements of a study are about."""

    def __init__(self, name: str, study: Study, path: Path, chosen: dict[str, Any]) -> None:
        super().__init__(name, study, path, chosen)
        self._check_claims()
        self._check_curves()
        self._check_baseline()
        self._check_gate()

    def _check_claims(self) -> None:
        """A declared claim is about arms of this study that meet on a task."""
        known = {**dict.fromkeys(self.roles, frozenset(self.study.tasks)),
                 **{name: frozenset(a.learning_rates) for name, a in self.arms.items()}}  # fmt: skip
        families = {a.family: frozenset(a.learning_rates) for a in self.arms.values()}
        said = [(c.arm, c.other, (c.measure or "refusal") if c.declared else None, c.suite) for c in self.study.claims]
        if twice := next((i for i, claim in enumerate(said) if claim in said[:i]), None):
            raise StudyError(
                f"{self.path}: claims.{twice} is about a pair that another claim is about.",
                found=" over ".join(said[twice][:2]), expected="each pair once, or by another measure or suite",
                do=f"remove claims.{twice}",
            )  # fmt: skip
        for i, claim in enumerate(self.study.claims):
            # What curves claim is about families.
            there = known | families if self.study.curves and not claim.declared else known
            what = "an arm that the study does not have"
            check_known((claim.arm, claim.other), there, self.path, f"claims.{i}", what, "arms")
            if claim.arm == claim.other or not there[claim.arm] & there[claim.other]:
                raise StudyError(
                    f"{self.path}: claims.{i} compares what never meets.", found=f"{claim.arm} and {claim.other}",
                    expected="two arms, or an arm and a role, that share a task", do=f"correct claims.{i}",
                )  # fmt: skip
            self._check_claimed_suite(i, claim)

    def _check_claimed_suite(self, i: int, claim: Claim) -> None:
        """The suite of a claim is asked, and has prompts of the kind that is claimed about."""
        if claim.suite is None:
            return
        split = self.study.evaluation.split
        wanted = {"wrapped": {WRAPPED}, "over_refusal": set(BENIGN)}.get(claim.measure or "", {HAZARD})
        having = [name for name in self.suites if published.sets(name, split) & wanted]
        if claim.suite not in having:
            raise StudyError(
                f"{self.path}: claims.{i}.suite has no such prompts in the split {split}.", found=claim.suite,
                expected=f"one of {', '.join(having)}" if having else "a suite with such prompts in evaluation.suites",
                do=f"correct claims.{i}.suite",
            )  # fmt: skip

    def full_on(self, task: str) -> list[str]:
        """The arms with full fine-tuning on a task."""
        return [
            name for name, a in self.arms.items()
            if a.method == "full" and task in a.settings and a.settings[task].get("trainable", "all") == "all"
        ]  # fmt: skip

    def asked_tasks(self) -> list[str]:
        """The tasks that any arm runs on."""
        asked = {task for a in self.arms.values() for task in a.learning_rates}
        return [t for t in self.study.tasks if t in asked]

    def _check_curves(self) -> None:
        """Curves are held against full fine-tuning on the same task."""
        for task in self.asked_tasks() if self.study.curves else ():
            if not self.full_on(task):
                raise StudyError(
                    f"{self.path}: curves have nothing to be held against on the task {task}.",
                    found="no arm with full fine-tuning", expected="an arm `method: full` on every task",
                    do=f"add one, limit arms to other tasks and remove {task}, or remove curves",
                )  # fmt: skip

    def _check_baseline(self) -> None:
        """A declared baseline is an arm of this study, on every task."""
        name = self.study.baseline
        if name is None:
            return
        check_known((name,), self.arms, self.path, "compare.baseline", "an arm that the study does not have", "arms")
        missing = [t for t in self.asked_tasks() if t not in self.arms[name].learning_rates]
        if missing:
            raise StudyError(
                f"{self.path}: compare.baseline does not run on the task {missing[0]}.", found=name,
                expected="an arm that runs on every task", do=f"correct compare.baseline, or add {missing[0]} to it",
            )  # fmt: skip

    def baselines(self) -> set[str]:
        """The arms that utility is held against: the one that is declared, else on every task the first with full
        fine-tuning that is no point of a sweep."""
        if self.study.baseline:
            return {self.study.baseline}
        full = [[name for name in self.full_on(task) if not self.arms[name].swept] for task in self.asked_tasks()]
        return {"full" if "full" in found else found[0] for found in full if found}

    def _check_gate(self) -> None:
        """A gate has an arm to judge, and what it is explicitly held to."""
        gate = self.study.gate
        if gate is None:
            return
        if gate.arm is not None:
            check_known((gate.arm,), self.arms, self.path, "gate.arm", "an arm that the study does not have", "arms")
        one, baselines = {name for name, a in self.arms.items() if not a.swept}, self.baselines()
        if gate.arm is None and not one - baselines:
            raise StudyError(
                f"{self.path}: the gate has no arm to judge.", found=", ".join(self.arms),
                expected="an arm beside the baseline that is no point of a sweep", do="add one, or name one: gate.arm",
            )  # fmt: skip
        named = gate.model_fields_set & set(gate.margins)
        if "utility" in named and not baselines:
            raise StudyError(
                f"{self.path}: gate.utility has nothing to be held against.", found="no arm with full fine-tuning",
                expected="an arm `method: full`, or `compare: {baseline: ...}`",
                do="add one, or turn the criterion off: gate.utility: off",
            )  # fmt: skip
        if "suites" in named and len(self.suites) < 2:
            raise StudyError(
                f"{self.path}: gate.suites has no suites to tell apart.", found=", ".join(self.suites) or "no suite",
                expected="several in evaluation.suites for the split that is evaluated: one is gate.refusals",
                do="name them, or turn the criterion off: gate.suites: off",
            )  # fmt: skip
        if "capabilities" in named and not self.study.capabilities.tasks:
            raise StudyError(
                f"{self.path}: gate.capabilities has nothing to look at.", found="capabilities has no tasks",
                expected="tasks of lm-evaluation-harness in capabilities.tasks",
                do="name them, or turn the criterion off: gate.capabilities: off",
            )  # fmt: skip

    @property
    def capability_cells(self) -> list[dict[str, Any]]:
        """task, arm, seed and replicate of every model that is asked: the roles first, without a task."""
        return [
            *({"task": None, "arm": role, "seed": 0, **self._which(f, role=True)} for f, role in self.role_places),
            *({"task": t, "arm": a, "seed": s, **self._which(f)} for f in self.folders for t, a, s in self.models(f)),
        ]

    def compare_cfg(self) -> dict[str, Any]:
        """The claims that the study declares, beside those that follow from its methods, what differences are measured
        from where it says so, and its suites."""
        own = [c for c in self.study.claims if c.declared]
        declared = [[c.arm, c.other, c.measure or "refusal", c.at_least or 0.0, c.says, c.suite] for c in own]
        optional = {"declared": declared, "baseline": self.study.baseline, "suites": self.suites}
        said = [[c.arm, c.other, c.words] for c in self.study.claims if not c.declared]
        return {"claims": said} | {k: v for k, v in optional.items() if v}

    def gate_cfg(self, arm: str | None = None) -> dict[str, Any]:
        """What a gate asks, of one arm or of those that the study names; the defaults where it has none."""
        gate = self.study.gate or Gate()
        margins = {k: v for k, v in gate.margins.items() if k != "suites" or len(self.suites) > 1}
        said = {"study": self.name, "arm": arm or gate.arm, "level": gate.level, "margins": margins,
                "suites": self.suites}  # fmt: skip
        cells = self.capability_cells if self.study.capabilities.tasks and "capabilities" in gate.margins else []
        return said | {"baseline": self.study.baseline, "cells": cells}

    def papers_cfg(self) -> dict[str, Any]:
        """The study's base and the datasets of its tasks, to find what was published about them."""
        return {"model": self.study.foundation.source, "datasets": {k: t.dataset for k, t in self.study.tasks.items()}}

    def choose_cfg(self) -> dict[str, Any]:
        """The sweep's points by arm, and the controls: a trained arm that runs the method of another arm of
        the sweep -> that arm, whose chosen settings it shares."""
        arms = {k: a for k, a in self.study.arms.items() if a.sweep}
        controls = {
            k: a.method for k, a in arms.items()
            if k != a.method and a.method in arms and registry.header(a.method).kind == "train"
        }  # fmt: skip
        choose, points = self.study.choose, {name: a.swept for name, a in self.arms.items()}
        assert choose is not None  # asked for in a study that chooses only
        return {
            "study": self.name, "also": list(choose.also), "tolerance": choose.tolerance, "controls": controls,
            "points": points,
        }  # fmt: skip
