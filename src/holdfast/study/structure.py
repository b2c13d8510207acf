"""What a study consists of: arms after sweeps and choices, cells, replicates, models, bases and masks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import StudyError
from holdfast.names import HAZARD, LOOKALIKE, WRAPPED
from holdfast.record import paths
from holdfast.study import places, registry, replicates
from holdfast.study.arms import Directions, MaskSpec, NeuronSpec, ResolvedArm, resolve_arm, with_source
from holdfast.study.judging import Judging
from holdfast.study.keys import Study
from holdfast.suites import published


class Structure:
    """The arms of a study after sweeps and choices, its cells and replicates, and the files they need."""

    def __init__(self, name: str, study: Study, path: Path, chosen: dict[str, Any]) -> None:
        self.name, self.study, self.path, self.chosen = name, study, path, chosen
        self.arms: dict[str, ResolvedArm] = {}
        for arm_name, arm in study.arms.items():
            for resolved in resolve_arm(arm_name, arm, study, chosen, path):
                self.arms[resolved.name] = resolved
        for merge in [a for a in self.arms.values() if a.kind == "merge"]:
            self.arms[merge.name] = with_source(merge, self.arms, path)
        families = {name: arm.family for name, arm in self.arms.items()}
        self.judging = Judging(study, path, families)
        # What is given is the same in all of them.
        given = {} if study.base.source == "tiny" and study.has_base else {"base": 0}
        given |= {"safety": 0} if study.aligned and study.aligned.training is None else {}
        self._check_roles()
        self.replicates = [r.model_copy(update=given) for r in study.replicates]
        self._check_replicates()
        self._check_pairs()
        self._check_steps()
        self._check_suites()
        self._check_prompted()

    def _check_replicates(self) -> None:
        """Two equal replicates would count what was drawn once as drawn twice."""
        all_from = self.study.foundation.source
        for i, first in enumerate(replicates.first_with(self.replicates)):
            if first != i:
                raise StudyError(
                    f"{self.path}: replicates {first} and {i} are the same.",
                    found=str(self.study.replicates[i].model_dump()), expected="replicates that differ in something"
                    + ("" if all_from == "tiny" else f"; all start from {all_from}"),
                    do=f"remove replicates.{i}, or give it another number",
                )  # fmt: skip

    def _check_roles(self) -> None:
        """Where there is no base, nothing may need one."""
        if self.study.has_base:
            return
        needs = {f"arms.{a.family}": f"the method {a.method}" for a in self.arms.values() if "base" in a.roles}
        needs |= {"constitution.source": "the judge that is trained"} if self.judging.trains_constitution else {}
        for key, who in needs.items():
            raise StudyError(
                f"{self.path}: {key}: {who} needs the base model, and the study has none.",
                found="aligned, without base", expected="base: the model that `aligned` was made from",
                do=f"name it (base.source), or remove {key}",
            )  # fmt: skip

    def _check_pairs(self) -> None:
        """A poisoned task needs as many pairs as it has poisoned rows."""
        rows = self.study.preferences.rows
        for name, task in self.study.tasks.items():
            needed = round(task.harmful_fraction * task.train_rows)
            if needed > rows:
                raise StudyError(
                    f"{self.path}: preferences.rows are fewer than tasks.{name}.harmful_fraction asks for.",
                    found=f"{rows} pairs", expected=f"at least {needed}", do="raise preferences.rows",
                )  # fmt: skip

    def steps(self, task: str, epochs: float) -> int:
        """Optimizer steps of a fine-tuning on a task."""
        of = self.study.tasks[task]
        return math.ceil(epochs * math.ceil(of.train_rows / (of.training.batch_size * of.training.accumulation)))

    def _check_steps(self) -> None:
        """A training has as many steps as its method needs."""
        for arm in [a for a in self.arms.values() if a.kind == "train"]:
            for name, settings in arm.settings.items():
                steps = self.steps(name, self.study.tasks[name].training.epochs)
                needed = registry.load(arm.method).Settings.model_validate(settings).fewest_steps()
                if steps < needed:
                    raise StudyError(
                        f"{self.path}: arms.{arm.family} needs more steps than tasks.{name}.training has.",
                        found=f"{steps} optimizer steps", expected=f"at least {needed}, by the arm's settings",
                        do=f"lower the steps of arms.{arm.family}, or train for longer",
                    )  # fmt: skip

    @property
    def prompted(self) -> dict[str, str]:
        """Arm -> what its models' own template begins conversations with, where it is not the study's."""
        arms = {name: next(iter(a.settings.values())) for name, a in self.arms.items()}
        return {name: s["system_prompt"] for name, s in arms.items() if "system_prompt" in s}

    def _check_prompted(self) -> None:
        """What evaluation tells every model would take the place of what an arm tells its own."""
        told = self.study.evaluation.system_prompt
        for name in self.prompted if told is not None else ():
            raise StudyError(
                f"{self.path}: arms.{self.arms[name].family} answers after a prompt of its own, and evaluation has one "
                "for every model.", found=f"evaluation.system_prompt: {told!r}"[:120],
                expected="a prompt of training (base.system_prompt), of the arm, or of evaluation, not both of these",
                do=f"remove evaluation.system_prompt, or arms.{self.arms[name].family}",
            )  # fmt: skip

    @property
    def suites(self) -> list[str]:
        """The suites that are asked in the evaluated split, in the order of the study."""
        of = self.study.evaluation
        return [name for name, split in of.suites.items() if split == of.split]

    @property
    def splits(self) -> list[str]:
        """The splits that any model is asked: the evaluated one, and for curves and attacks validation too."""
        validation = self.study.curves or self.study.attack is not None
        return [self.study.evaluation.split, *(["validation"] if validation else [])]

    def prompt_sets(self, split: str, which: Collection[str] = (HAZARD, LOOKALIKE, WRAPPED)) -> int:
        """How many sets of `prompts_per_set` prompts a model is asked for a split, at most: every suite has its own."""
        suites = self.study.evaluation.suites
        if not suites:
            return len(which)
        return sum(len(published.sets(name, split) & set(which)) for name, of in suites.items() if of == split)

    @property
    def copies(self) -> list[Path]:
        """The user's copies of suites whose bytes are not pinned, so that a changed one remakes the prompts."""
        return published.unpinned(self.study.evaluation.suites)

    def _check_suites(self) -> None:
        """Of every split that is asked some suite has requests to refuse."""
        suites = self.study.evaluation.suites
        for split in self.splits if suites else ():
            asked = [name for name, of in suites.items() if of == split]
            if not any(HAZARD in published.sets(name, split) for name in asked):
                having = [name for name in published.PROMPTS if HAZARD in published.sets(name, split)]
                raise StudyError(
                    f"{self.path}: evaluation.suites has no request to refuse in the split {split}, so that no refusal "
                    "rate could be measured.",
                    found=f"{', '.join(asked)} (harmless requests only)" if asked else f"no suite for {split}",
                    expected=f"one of {', '.join(having)}", do=f"add one to evaluation.suites for {split}",
                )  # fmt: skip

    @cached_property
    def folders(self) -> list[str]:
        """What the paths of every replicate have after the study's folder; nothing for the first."""
        return [replicates.folder(i) for i in range(len(self.replicates))]

    def home(self, what: str, folder: str) -> str:
        """The replicate's folder whose `base` or `aligned` model the replicate of `folder` has: its own, or the first
        one's that is drawn alike. What is made from the aligned model alone lies there too."""
        same = [(r.base, r.safety if what == "aligned" and self.trains_aligned else 0) for r in self.replicates]
        return self.folders[replicates.first_with(same)[replicates.number(folder)]]

    def homes(self, what: str) -> list[str]:
        """The folders that hold a `base` or an `aligned` model of their own."""
        return list(dict.fromkeys(self.home(what, folder) for folder in self.folders))

    @cached_property
    def places(self) -> list[str]:
        """The folder of every cell of every replicate, below work/<study> and results/<study>."""
        return [f"{f}{task}/{arm}/seed{seed}" for f in self.folders for task, arm, seed in self.models(f)]

    @cached_property
    def role_places(self) -> list[tuple[str, str]]:
        """(folder, role) of every model that cells start from or are merged with."""
        return [(f, role) for role in self.roles for f in self.homes("base" if role == "base" else "aligned")]

    @cached_property
    def judged(self) -> list[str]:
        """The folder below results/<study> of every model that is judged: roles, then cells."""
        return [*(f"{folder}models/{role}" for folder, role in self.role_places), *self.places]

    def _which(self, folder: str, *, role: bool = False) -> dict[str, Any]:
        """What a record says of its replicate: its number, the unit that intervals draw it in, whose base and aligned
        model it has, and which rows, order and rounding. Nothing in a study that has one."""
        if len(self.replicates) == 1:
            return {}
        i = replicates.number(folder)
        shared = {what: replicates.number(self.home(what, folder)) for what in ("base", "aligned")}
        of = self.replicates[i].model_dump(include={"draw", "order", "instructions"})
        if role:  # which is trained as the machine can, whatever its replicate's fine-tuning does
            of["instructions"] = "native"
        return {"replicate": i, "unit": replicates.units(self.replicates)[i], **shared, **of}

    @cached_property
    def cells(self) -> list[tuple[str, str, int]]:
        """Every (task, arm, seed) of the first replicate."""
        return self.models("")

    def models(self, folder: str) -> list[tuple[str, str, int]]:
        """Every (task, arm, seed) of a replicate. A given model is there once, in the first replicate and for as many
        seeds as there are models, and so is what is merged from it."""
        every = itertools.product(self.study.tasks, self.arms.values(), self.study.seeds)
        cells = [(task, arm, seed) for task, arm, seed in every if task in arm.learning_rates]
        first = self.study.seeds[0]
        once = [(t, a, s) for t, a, s in cells if not a.fixed or (folder == "" and (a.seeded or s == first))]
        return [(task, arm.name, seed) for task, arm, seed in once]

    def given(self, arm: str, task: str, seed: int) -> str:
        """Where a given model of an arm is: a hub id, or a path from here."""
        source = self.arms[arm].given[task].replace("{seed}", str(seed))
        return places.meant(source, [self.path.parent, Path(), self.path.parent.parent])

    def refuse_missing(self) -> None:
        """Refuse a given model of an arm that is a path, and is not there."""
        for task, arm, seed in [c for f in self.folders for c in self.models(f) if self.arms[c[1]].given]:
            source = self.given(arm, task, seed)
            if source.startswith((".", "/", "~")) and not paths.there(paths.home(source)):
                raise StudyError(
                    f"{self.path}: arms.{arm}.given names a model that does not exist.", found=source,
                    expected="a folder beside the study or here, or a hub id", do=f"correct arms.{arm}.given",
                )  # fmt: skip

    @cached_property
    def roles(self) -> list[str]:
        """Model roles this study builds and evaluates beside its cells."""
        wanted = {r for a in self.arms.values() for r in a.roles}
        base = ["base"] if self.study.has_base else []
        return [*base, "aligned", *(["unaligned"] if "unaligned" in wanted else [])]

    @property
    def trains_twin(self) -> bool:
        """Whether the un-aligned twin is trained here."""
        return "unaligned" in self.roles and self.study.unaligned.source is None

    @property
    def trains_aligned(self) -> bool:
        """Whether the aligned model is trained here."""
        return self.study.aligned is None or self.study.aligned.training is not None

    @property
    def speaker(self) -> str:
        """Which model answers harmless requests for its own safety training: what that training starts from."""
        if self.study.aligned is None:
            return "base"
        return "start" if self.study.aligned.training else "aligned"

    @property
    def pairs_are_read(self) -> bool:
        """Whether anything of this study learns from preference pairs."""
        poisoned = any(t.harmful_fraction for t in self.study.tasks.values())
        poisoned |= self.study.attack is not None and self.study.attack.harmful
        return poisoned or self.trains_twin or any(a.preferences for a in self.arms.values())

    def of_kind(self, kind: str) -> list[str]:
        """Arms that are trained (`train`) or merged (`merge`)."""
        return [name for name, a in self.arms.items() if a.kind == kind]

    @cached_property
    def masks(self) -> dict[str, MaskSpec]:
        """Mask files over basis coefficients, by name."""
        return {m.name: m for a in self.arms.values() for m in a.masks.values()}

    @cached_property
    def bases(self) -> list[str]:
        """Basis files: `safety`, along which is told what changed, and the others where an arm asks for them."""
        wanted = {a.basis for a in self.arms.values()} | {m.basis for m in self.masks.values()}
        return [b for b in ("safety", "random", "output", "permuted") if b in wanted or b == "safety"]

    @cached_property
    def grams(self) -> list[str]:
        """Gram matrices: `safety` of the target modules, and those of `names.GRAMS` that arms ask for."""
        wanted = {a.gram for a in self.arms.values()}
        wanted |= {"all" for d in self.directions.values() if d.every}
        return ["safety", *(g for g in names.GRAMS if g in wanted)]

    @cached_property
    def stressed(self) -> list[str]:
        """The folder below results/<study> of every model under every stress."""
        out = []
        for name, stress in self.study.stress.items():
            if stress.arms is None or "aligned" in stress.arms:
                out += [f"{f}models/aligned/stress/{name}" for f in self.homes("aligned")]
            for f in self.folders:
                cells = [c for c in self.models(f) if stress.arms is None or self.arms[c[1]].family in stress.arms]
                out += [f"{f}{task}/{arm}/seed{seed}/stress/{name}" for task, arm, seed in cells]
        return out

    @cached_property
    def directions(self) -> dict[str, Directions]:
        """Files of leading directions, by name; they lie beside the bases."""
        return {d.name: d for a in self.arms.values() for d in a.directions.values()}

    @cached_property
    def neuron_masks(self) -> dict[str, NeuronSpec]:
        """Mask files over safety neurons, by name."""
        return {a.neurons.name: a.neurons for a in self.arms.values() if a.neurons}

    def basis_name(self, arm: str, task: str) -> str | None:
        """The file of a basis, or of leading directions, that one cell needs."""
        a = self.arms[arm]
        return a.directions[task].name if task in a.directions else a.basis

    def mask_name(self, arm: str, task: str) -> str | None:
        """The mask file one cell needs."""
        a = self.arms[arm]
        spec = a.masks.get(task) or a.neurons
        return spec.name if spec else None

    def _replicate(self, folder: str) -> replicates.Replicate:
        return self.replicates[replicates.number(folder)]
