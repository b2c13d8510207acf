"""From a study file to what the DAG runs: arms after sweeps and choices, cells, masks, and one dict of
settings per rule. Every mistake in the file is one block that names the key, before any job starts.
"""

from __future__ import annotations

import itertools
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast import names
from holdfast.data.sources import HUB, WORLD, is_file
from holdfast.errors import StudyError
from holdfast.record import paths, provenance, userfiles
from holdfast.study import places, registry, replicates
from holdfast.study.arms import MaskSpec, NeuronSpec, ResolvedArm, resolve_arm, with_source
from holdfast.study.checked import NAME
from holdfast.study.judging import Judging
from holdfast.study.keys import Study
from holdfast.study.reading import check_known, from_pydantic, read_chosen, read_study, refuse_credentials


class Resolved:
    """A study with its name, ready for the DAG: arms, cells, masks, and one dict of settings per rule."""

    def __init__(self, name: str, study: Study, path: Path, chosen: dict[str, Any]) -> None:
        self.name, self.study, self.path = name, study, path
        self.arms: dict[str, ResolvedArm] = {}
        for arm_name, arm in study.arms.items():
            for resolved in resolve_arm(arm_name, arm, study, chosen, path):
                self.arms[resolved.name] = resolved
        for merge in [a for a in self.arms.values() if a.kind == "merge"]:
            self.arms[merge.name] = with_source(merge, self.arms, path)
        families = {name: arm.family for name, arm in self.arms.items()}
        self.judging = Judging(study, path, families)
        self._check_claims()
        # A base that is given is the same in all of them.
        given = {} if study.base.source == "tiny" else {"base": 0}
        self.replicates = [r.model_copy(update=given) for r in study.replicates]
        self._check_replicates()

    def _check_claims(self) -> None:
        """A declared claim is about arms of this study that meet on a task."""
        known = {**dict.fromkeys(self.roles, frozenset(self.study.tasks)),
                 **{name: frozenset(a.learning_rates) for name, a in self.arms.items()}}  # fmt: skip
        for i, claim in enumerate(self.study.claims):
            check_known((claim.arm, claim.over), known, self.path, f"claims.{i}", "an arm that the study does not have",
                        "arms")  # fmt: skip
            if claim.arm == claim.over or not known[claim.arm] & known[claim.over]:
                raise StudyError(
                    f"{self.path}: claims.{i} compares what never meets.", found=f"{claim.arm} and {claim.over}",
                    expected="two arms, or an arm and a role, that share a task", do=f"correct claims.{i}",
                )  # fmt: skip

    def _check_replicates(self) -> None:
        """Two equal replicates would count what was drawn once as drawn twice."""
        for i, first in enumerate(replicates.first_with(self.replicates)):
            if first != i:
                raise StudyError(
                    f"{self.path}: replicates {first} and {i} are the same.",
                    found=str(self.study.replicates[i].model_dump()), expected="replicates that differ in something"
                    + ("" if self.study.base.source == "tiny" else f"; {self.study.base.source} is the base of all"),
                    do=f"remove replicates.{i}, or give it another number",
                )  # fmt: skip

    @cached_property
    def folders(self) -> list[str]:
        """What the paths of every replicate have after the study's folder; nothing for the first."""
        return [replicates.folder(i) for i in range(len(self.replicates))]

    def home(self, what: str, folder: str) -> str:
        """The replicate's folder whose `base` or `aligned` model the replicate of `folder` has: its own, or the first
        one's that is drawn alike. What is made from the aligned model alone lies there too."""
        same = [(r.base, r.safety if what == "aligned" else 0) for r in self.replicates]
        return self.folders[replicates.first_with(same)[replicates.number(folder)]]

    def homes(self, what: str) -> list[str]:
        """The folders that hold a `base` or an `aligned` model of their own."""
        return list(dict.fromkeys(self.home(what, folder) for folder in self.folders))

    @cached_property
    def places(self) -> list[str]:
        """The folder of every cell of every replicate, below work/<study> and results/<study>."""
        return [f"{f}{task}/{arm}/seed{seed}" for f in self.folders for task, arm, seed in self.cells]

    @cached_property
    def role_places(self) -> list[tuple[str, str]]:
        """(folder, role) of every model that cells start from or are merged with."""
        return [(f, role) for role in self.roles for f in self.homes("base" if role == "base" else "aligned")]

    def _which(self, folder: str) -> dict[str, Any]:
        """What a record says of its replicate: its number, the unit that intervals draw it in, and whose aligned model
        it starts from. Nothing in a study that has one."""
        if len(self.replicates) == 1:
            return {}
        i = replicates.number(folder)
        start = replicates.number(self.home("aligned", folder))
        return {"replicate": i, "unit": replicates.units(self.replicates)[i], "aligned": start}

    @cached_property
    def cells(self) -> list[tuple[str, str, int]]:
        """Every (task, arm, seed) of a replicate."""
        return [
            (task, arm.name, seed)
            for task, arm, seed in itertools.product(self.study.tasks, self.arms.values(), self.study.seeds)
            if task in arm.learning_rates
        ]

    @cached_property
    def roles(self) -> list[str]:
        """Model roles this study builds and evaluates beside its cells."""
        wanted = {r for a in self.arms.values() for r in a.roles}
        return ["base", "aligned", *(["unaligned"] if "unaligned" in wanted else [])]

    def of_kind(self, kind: str) -> list[str]:
        """Arms that are trained (`train`) or merged (`merge`)."""
        return [name for name, a in self.arms.items() if a.kind == kind]

    @cached_property
    def masks(self) -> dict[str, MaskSpec]:
        """Mask files over basis coefficients, by name."""
        return {m.name: m for a in self.arms.values() for m in a.masks.values()}

    @cached_property
    def bases(self) -> list[str]:
        """Basis files: `safety`, and the others where an arm asks for them."""
        wanted = {a.basis for a in self.arms.values()} | {m.basis for m in self.masks.values()}
        return [b for b in ("safety", "random", "output", "permuted") if b in wanted or b == "safety"]

    @cached_property
    def neuron_masks(self) -> dict[str, NeuronSpec]:
        """Mask files over safety neurons, by name."""
        return {a.neurons.name: a.neurons for a in self.arms.values() if a.neurons}

    def mask_name(self, arm: str, task: str) -> str | None:
        """The mask file one cell needs."""
        a = self.arms[arm]
        spec = a.masks.get(task) or a.neurons
        return spec.name if spec else None

    # ---- one dict of settings per rule: exactly what its output depends on ---------------------

    def data_cfg(self) -> dict[str, Any]:
        """What all tables of rows are made from: world, safety data, tasks and prompts."""
        s = self.study
        tasks = {
            k: t.model_dump(mode="json", include={"dataset", "source", "train_rows", "validation_rows", "test_rows"})
            for k, t in s.tasks.items()
        }
        safety = s.safety.model_dump(mode="json", include={"source", "columns", "hazards", "benign"})
        evaluation = s.evaluation.model_dump(mode="json", include={"source", "columns", "prompts_per_set"})
        return {"world": s.world.model_dump(), "safety": safety, "tasks": tasks, "evaluation": evaluation}

    def task_data_cfg(self, task: str) -> dict[str, Any]:
        """What the rows of one task are made from."""
        cfg = self.data_cfg()
        return {"world": cfg["world"], **cfg["tasks"][task]}

    def safety_data_cfg(self, folder: str = "") -> dict[str, Any]:
        """What the safety rows of a replicate are made from."""
        cfg, of = self.data_cfg(), self._replicate(folder)
        # The world's rows are what they say; only what is read is in the digest.
        check = {} if self.study.safety.source == WORLD else {"check": self.study.safety.check}
        return {"world": cfg["world"], **cfg["safety"], **check, **({"draw": of.safety} if of.safety else {})}

    def prompts_cfg(self) -> dict[str, Any]:
        """What the prompts every model is asked are made from."""
        cfg, evaluation = self.data_cfg(), self.study.evaluation
        # Of the world's prompts every split has some; of a file's only the stage that fetches it may know.
        split = {} if evaluation.source == WORLD else {"split": evaluation.split}
        return {"world": cfg["world"], **cfg["evaluation"], **split}

    @property
    def real_tasks(self) -> dict[str, str]:
        """Tasks with real rows whose text the tiny base is pretrained on -> their dataset."""
        if self.study.base.source != "tiny" or not self.study.base.pretraining.task_documents:
            return {}
        return {k: t.dataset for k, t in self.study.tasks.items() if t.source != WORLD}

    def base_cfg(self, folder: str = "") -> dict[str, Any]:
        """Where the base model comes from: a source and revision, or how the tiny one of a replicate is trained."""
        base = self.study.base.model_dump(mode="json")
        base["seed"] = replicates.seed(base["seed"], self._replicate(folder).base)
        if self.study.base.source != "tiny":
            return {k: base[k] for k in ("source", "revision")}
        return {"world": self.study.world.model_dump(), "real_tasks": self.real_tasks, **base}

    def aligned_cfg(self, folder: str = "") -> dict[str, Any]:
        """How the base is aligned."""
        training = self.study.safety.training.model_dump(mode="json")
        return {"role": "aligned", "training": training, "seed": self._aligning_seed(folder)}

    def _replicate(self, folder: str) -> replicates.Replicate:
        return self.replicates[replicates.number(folder)]

    def _aligning_seed(self, folder: str) -> int:
        """Order of the safety training; another draw of its rows is another order too."""
        return replicates.seed(self.study.base.seed, self._replicate(folder).safety)

    def preferences_cfg(self) -> dict[str, Any]:
        """What the preference pairs are made from."""
        own = self.study.preferences.source != WORLD
        said = self.study.preferences.model_dump(mode="json", exclude=None if own else {"check"})
        return {"world": self.study.world.model_dump(), **said}

    def unaligned_cfg(self, folder: str = "") -> dict[str, Any]:
        """How the un-aligned twin of the aligned model is trained."""
        said = self.study.unaligned.model_dump(mode="json")
        return {"role": "unaligned", **said, "seed": self._aligning_seed(folder)}

    def control_seed(self, folder: str) -> int:
        """The seed of what is random on purpose: random bases and masks."""
        return replicates.seed(self.study.world.seed, self._replicate(folder).safety)

    def basis_cfg(self) -> dict[str, Any]:
        """Rows, tokens and modules that bases and importance scores are taken from."""
        return self.study.basis.model_dump(mode="json")

    def every_gram_cfg(self) -> dict[str, Any]:
        """Gram matrices of all linear modules, for merges."""
        cfg = self.basis_cfg()
        return {"rows": cfg["rows"], "tokens": cfg["tokens"], "modules": list(names.MODULE_KINDS)}

    def task_importance_cfg(self, task: str) -> dict[str, Any]:
        """As `basis_cfg`, for importance scores on the rows of a task."""
        return self.basis_cfg() | {"task": self.study.tasks[task].dataset, "instruction": self.instructions()[task]}

    def instructions(self) -> dict[str, str | None]:
        """Per task the user's own instruction text, or None for ours."""
        return {
            k: (userfiles.text(t.instruction_file, f"tasks.{k}.instruction_file") if t.instruction_file else None)
            for k, t in self.study.tasks.items()
        }

    def cell_cfg(self, task: str, arm: str, seed: int, folder: str = "") -> dict[str, Any]:
        """How one cell is fine-tuned."""
        a, t, of = self.arms[arm], self.study.tasks[task], self._replicate(folder)
        order, drawn = replicates.seed(seed, of.order), replicates.seed(seed, of.draw)
        training = t.training.model_dump(mode="json") | {"learning_rate": a.learning_rates[task]}
        # Only where they are set, so that a study without them keeps its digests.
        optional = {"harmful_fraction": t.harmful_fraction, "stratify": t.stratify, "targets": list(a.targets or ())}
        return {
            "method": a.method, "settings": a.settings[task],
            "modules": list(names.MODULE_KINDS if a.neurons else self.study.basis.modules),
            "training": training, "task": t.dataset, "instruction": self.instructions()[task],
            "train_rows": t.train_rows, "seed": order,
        } | {k: v for k, v in optional.items() if v} | ({"draw": drawn} if drawn != order else {})  # fmt: skip

    def merge_cfg(self, task: str, arm: str, seed: int, folder: str = "") -> dict[str, Any]:
        """How one cell is merged."""
        a = self.arms[arm]
        seed = replicates.seed(seed, self._replicate(folder).order)
        return {"method": a.method, "settings": a.settings[task], "seed": seed}

    def judge_cfg(self, task: str | None, arm: str, seed: int, model: str, folder: str = "") -> dict[str, Any]:
        """Identity of one evaluated model (a cell, or a role with `task` None) for its metrics.json."""
        a = self.arms.get(arm)
        tasks = [task] if task else list(self.study.tasks)
        datasets = {t: self.study.tasks[t].dataset for t in tasks}
        cell = {
            "study": self.name, "task": task, "arm": arm, "seed": seed, **self._which(folder),
            "split": self.study.evaluation.split, "judge": self.judging.first,
            "model": model, "datasets": datasets, "family": a.family if a else arm, "method": a.method if a else arm,
            "settings": a.settings[task] if a and task else {}, "swept": a.swept if a else {},
            "learning_rate": a.learning_rates[task] if a and task else None, "of": a.of if a else None,
            "harmful_fraction": self.study.tasks[task].harmful_fraction if task else 0.0,
            "training_settings": self.study.tasks[task].training.model_dump(mode="json", exclude={"learning_rate"})
            if task else {},
        }  # fmt: skip
        return {"cell": cell, "datasets": datasets} | self.judging.verdicts_cfg(task, arm if a else None)

    def compare_cfg(self) -> dict[str, Any]:
        """The claims that the study declares, beside those that follow from its methods."""
        return {"claims": [[c.arm, c.over, c.says] for c in self.study.claims]}

    def papers_cfg(self) -> dict[str, Any]:
        """The study's base and the datasets of its tasks, to find what was published about them."""
        return {"model": self.study.base.source, "datasets": {k: t.dataset for k, t in self.study.tasks.items()}}

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

    def generation_cfg(self, tasks: list[str]) -> dict[str, Any]:
        """How a model answers the safety prompts and the rows of these tasks."""
        e = self.study.evaluation
        return {
            "split": e.split, "max_new_tokens": e.max_new_tokens, "batch_size": e.batch_size,
            "tasks": {
                k: {"dataset": self.study.tasks[k].dataset, "max_new_tokens": self.study.tasks[k].max_new_tokens,
                    "instruction": self.instructions()[k]}
                for k in tasks
            },
        }  # fmt: skip

    def judge_answers_cfg(self) -> dict[str, Any]:
        """What base and aligned model are asked so that a judge can learn from their answers."""
        return self.generation_cfg([]) | {"split": "train"}

    def capabilities_cfg(self) -> dict[str, Any]:
        """What the harness is asked, with the digest of the user's own task files."""
        c = self.study.capabilities
        own = sorted(p for p in Path(c.task_files).rglob("*") if p.is_file()) if c.task_files else []
        return c.model_dump(mode="json") | {"digest": provenance.digest([provenance.file_digest(p) for p in own])}

    @property
    def capability_cells(self) -> list[dict[str, Any]]:
        """task, arm, seed and replicate of every model that is asked: the roles first, without a task."""
        return [
            *({"task": None, "arm": role, "seed": 0, **self._which(f)} for f, role in self.role_places),
            *({"task": t, "arm": a, "seed": s, **self._which(f)} for f in self.folders for t, a, s in self.cells),
        ]

    def dump(self) -> dict[str, Any]:
        """The whole resolved study, for the record."""
        return {
            "study": self.name,
            **self.study.model_dump(mode="json"),
            "resolved_arms": {k: a.model_dump(mode="json") for k, a in self.arms.items()},
        }


def load(study: str, config_folder: Path | str = "config") -> Resolved:
    """Read, validate and resolve a study by name (`demo`) or by path (`my/own.yaml`).

    Raises:
        StudyError, MethodError: one block that names the file, the key and the nearest valid one.
    """
    path = Path(study) if study.endswith((".yaml", ".yml")) else Path(config_folder) / f"{study}.yaml"
    name = path.stem
    if not re.match(NAME, name):
        raise StudyError(
            "A study's name becomes a folder, so it must be plain.", found=repr(name)[:80],
            expected="a lower-case letter, then at most 39 letters, digits or '-'", do="rename the file",
        )  # fmt: skip
    root = Path(config_folder).parent
    data = read_study(path, root)
    try:
        study_model = Study.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, path, "", Study) from None
    except RecursionError:
        raise StudyError(f"{path} is nested too deeply.", expected="a study", do="see config/demo.yaml") from None
    judged = study_model.constitution.tasks
    check_known(judged, study_model.tasks, path, "constitution.tasks", "a task that the study does not have", "tasks")
    arms = study_model.constitution.arms
    check_known(arms, study_model.arms, path, "constitution.arms", "an arm that the study does not have", "arms")
    refuse_credentials(data, path)
    # Where the study says nothing they are the project's.
    guidelines = places.meant(study_model.constitution.guidelines_file, [Path(), root, path.parent.parent])
    constitution = study_model.constitution.model_copy(update={"guidelines_file": guidelines})
    study_model = study_model.model_copy(update={"constitution": constitution})
    chosen: dict[str, Any] = {}
    for file in study_model.chosen:
        chosen |= read_chosen(Path(file))
    for key, source in _sources(study_model):
        if not paths.there(paths.home(source)):
            raise StudyError(
                f"{path}: {key} names a file that does not exist.",
                found=source, expected="a file beside the study, here, or in the project; `world`, or (tasks) `hub`",
                do=f"correct {key}",
            )  # fmt: skip
    resolved = Resolved(name, study_model, path, chosen)
    resolved.instructions()  # so that a text that cannot be read is known now
    return resolved


def _sources(study: Study) -> list[tuple[str, str]]:
    """(key, path) of every local file a study names."""
    out = []
    for key, source in (
        ("safety.source", study.safety.source),
        ("evaluation.source", study.evaluation.source),
        ("preferences.source", study.preferences.source),
        ("constitution.pairs", study.constitution.pairs),
        ("constitution.guidelines_file", study.constitution.guidelines_file),
        *((f"tasks.{k}.source", t.source) for k, t in study.tasks.items()),
        *((f"tasks.{k}.instruction_file", t.instruction_file) for k, t in study.tasks.items() if t.instruction_file),
        *([("capabilities.task_files", study.capabilities.task_files)] if study.capabilities.task_files else []),
    ):
        if is_file(source) and not (source == HUB and key.startswith("tasks.")):
            out.append((key, source))
    if study.base.source != "tiny" and study.base.source.startswith((".", "/", "~")):
        out.append(("base.source", study.base.source))
    return out
