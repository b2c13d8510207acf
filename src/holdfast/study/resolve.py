"""From a study file to what the DAG runs: one dict of settings per rule. Every mistake in the file is one block that
names the key, before any job starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast import names
from holdfast.data import table
from holdfast.data.sources import ANSWERED, WORLD, is_file, on_hub
from holdfast.errors import StudyError
from holdfast.record import paths, provenance, userfiles
from holdfast.study import attacks, places, replicates, together
from holdfast.study.checked import NAME
from holdfast.study.compared import Compared
from holdfast.study.keys import Study
from holdfast.study.reading import check_known, from_pydantic, read_chosen, read_study, refuse_credentials


class Resolved(Compared):
    """A study with its name, ready for the DAG: what it consists of, and for every rule exactly the settings that its
    output depends on."""

    def data_cfg(self) -> dict[str, Any]:
        """What all tables of rows are made from: world, safety data, tasks and prompts."""
        s = self.study
        tasks = {k: t.rows_cfg() for k, t in s.tasks.items()}
        safety = s.safety.model_dump(mode="json", include={"source", "columns", "hazards", "benign"})
        suites = {"suites"} if s.evaluation.suites else set()
        evaluation = s.evaluation.model_dump(mode="json", include={"source", "columns", "prompts_per_set", *suites})
        return {"world": s.world.model_dump(), "safety": safety, "tasks": tasks, "evaluation": evaluation}

    def task_data_cfg(self, task: str) -> dict[str, Any]:
        """What the rows of one task are made from."""
        cfg = self.data_cfg()
        return {"world": cfg["world"], **cfg["tasks"][task]}

    def safety_data_cfg(self, folder: str = "") -> dict[str, Any]:
        """What the safety rows of a replicate are made from; of the world's, which are what they say, no more."""
        cfg, of = self.data_cfg(), self._replicate(folder)
        s = self.study.safety
        own: dict[str, Any] = {"check": s.check, "keep": s.keep, "refusals": s.refusals} if s.source != WORLD else {}
        own |= {k: v for k, v in (("questions", s.questions), ("without", sorted(s.without))) if own and v}
        itself = {"benign_answers": "self"} if s.benign_answers == "self" else {}
        return {"world": cfg["world"], **cfg["safety"], **own, **itself, **({"draw": of.safety} if of.safety else {})}

    def benign_cfg(self, folder: str = "") -> dict[str, Any]:
        """What benign requests the base of a replicate answers for its own safety training."""
        s = self.study.safety
        kept = {"without": sorted(s.without), "refusals": "written" * (s.refusals == "written")}
        read = {"source": s.source, "columns": s.columns} | {k: v for k, v in kept.items() if v}
        said = {"source": s.benign_prompts, "count": s.benign, "max_new_tokens": s.benign_max_new_tokens}
        said |= {"safety": read} if s.benign_prompts == ANSWERED else {}
        return {**said, "batch_size": self.study.evaluation.batch_size, "draw": self._replicate(folder).safety}

    def prompts_cfg(self) -> dict[str, Any]:
        """What the prompts every model is asked are made from."""
        cfg, evaluation = self.data_cfg(), self.study.evaluation
        # Of the world's prompts every split has some; of a file's only the stage that fetches it may know.
        splits = {} if evaluation.source == WORLD else {"splits": self.splits}
        return {"world": cfg["world"], **cfg["evaluation"], **splits}

    @property
    def real_tasks(self) -> dict[str, str]:
        """Tasks with real rows whose text the tiny base is pretrained on -> their dataset."""
        tiny = self.study.has_base and self.study.base.source == "tiny"
        if not tiny or not self.study.base.pretraining.task_documents:
            return {}
        return {k: t.dataset for k, t in self.study.tasks.items() if t.source != WORLD}

    def base_cfg(self, folder: str = "") -> dict[str, Any]:
        """Where the base model comes from: a source and revision, or how the tiny one of a replicate is trained."""
        base = self.study.base.model_dump(mode="json")
        base["seed"] = replicates.seed(base["seed"], self._replicate(folder).base)
        if self.study.base.source != "tiny":
            return {k: base[k] for k in ("source", "revision")} | _asked_as(self.study.base.system_prompt)
        return {"world": self.study.world.model_dump(), "real_tasks": self.real_tasks, **base}

    def aligned_cfg(self, folder: str = "") -> dict[str, Any]:
        """How the base, or the start that is given, is aligned."""
        on_top = self.study.aligned.training if self.study.aligned else None
        training = (on_top or self.study.safety.training).model_dump(mode="json")
        return {"role": "aligned", "training": training, "seed": self._aligning_seed(folder)} | self._together()

    def given_cfg(self, role: str) -> dict[str, Any]:
        """Where a role's model is, that is there already."""
        said = self.study.unaligned if role == "unaligned" else self.study.aligned
        assert said is not None and said.source is not None  # asked of what is given only
        asked = {} if role == "unaligned" else _asked_as(self.study.foundation.system_prompt)
        return {"role": role, "source": said.source, "revision": said.revision} | asked

    def taken_cfg(self, task: str, arm: str, seed: int) -> dict[str, Any]:
        """Where a given model of one cell is."""
        asked = _asked_as(self.study.foundation.system_prompt)
        return {
            "role": "finetuned", "source": self.given(arm, task, seed), "revision": self.arms[arm].revision
        } | asked  # fmt: skip

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
        return {"role": "unaligned", **said, "seed": self._aligning_seed(folder)} | self._together()

    def control_seed(self, folder: str) -> int:
        """The seed of what is random on purpose: random bases and masks."""
        return replicates.seed(self.study.world.seed, self._replicate(folder).safety)

    def basis_cfg(self) -> dict[str, Any]:
        """Rows, tokens and modules that bases and importance scores are taken from."""
        return self.study.basis.model_dump(mode="json")

    def every_gram_cfg(self, kind: str) -> dict[str, Any]:
        """Gram matrices of all linear modules, for methods that ask; a kind of `names.GRAMS`."""
        cfg = self.basis_cfg()
        return {"rows": cfg["rows"], "tokens": cfg["tokens"], "modules": list(names.MODULE_KINDS)} | names.GRAMS[kind]

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
        every = task in a.directions and a.directions[task].every
        training = t.training.model_dump(mode="json") | {"learning_rate": a.learning_rates[task]}
        # Only where they are set, so that a study without them keeps its digests.
        optional = {"harmful_fraction": t.harmful_fraction, "stratify": t.stratify, "targets": list(a.targets or ())}
        other = ({"draw": drawn} if drawn != order else {}) | self._rounding(folder) | self._together()
        return {
            "method": a.method, "settings": a.settings[task],
            "modules": list(names.MODULE_KINDS if a.neurons or every else self.study.basis.modules),
            "training": training, "task": t.dataset, "instruction": self.instructions()[task],
            "train_rows": t.train_rows, "seed": order,
        } | {k: v for k, v in optional.items() if v} | other  # fmt: skip

    def _rounding(self, folder: str) -> dict[str, str]:
        """The instructions of a replicate, where they are others than the machine's."""
        of = self._replicate(folder).instructions
        return {} if of == "native" else {"instructions": of}

    def _together(self) -> dict[str, int]:
        """How many processes train one model: as it decides the last bits of sums, another number trains again."""
        gpus = self.study.resources.gpus
        return {} if gpus == 1 else {"processes": gpus}

    def merge_cfg(self, task: str, arm: str, seed: int, folder: str = "") -> dict[str, Any]:
        """How one cell is merged."""
        a = self.arms[arm]
        seed = replicates.seed(seed, self._replicate(folder).order)
        return {"method": a.method, "settings": a.settings[task], "seed": seed} | self._rounding(folder)

    def judge_cfg(
        self, task: str | None, arm: str, seed: int, model: str, folder: str = "", split: str | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Identity of one evaluated model (a cell, or a role with `task` None) for its metrics.json."""
        a = self.arms.get(arm)
        tasks = [task] if task else list(self.study.tasks)
        datasets = {t: self.study.tasks[t].dataset for t in tasks}
        scorers = {t: told for t in tasks if (told := self.study.tasks[t].scorer_cfg())}
        scored = {"scorers": scorers} if scorers else {}
        cell = {
            "study": self.name, "task": task, "arm": arm, "seed": seed, **self._which(folder, role=task is None),
            "split": split or self.study.evaluation.split, "judge": self.judging.first,
            "model": model, "datasets": datasets, "family": a.family if a else arm, "method": a.method if a else arm,
            "settings": a.settings[task] if a and task else {}, "swept": a.swept if a else {},
            "learning_rate": a.learning_rates[task] if a and task else None, "of": a.of if a else None,
            "harmful_fraction": self.study.tasks[task].harmful_fraction if task else 0.0,
            "training_settings": self.study.tasks[task].training.model_dump(mode="json", exclude={"learning_rate"})
            if task and not (a and a.given) else {},
        } | scored  # fmt: skip
        cell |= {"given": self.given(arm, task, seed)} if a and task and a.given else {}
        return {"cell": cell, "datasets": datasets} | self.judging.verdicts_cfg(task, arm if a else None)

    def parts(self, task: str) -> dict[str, str]:
        """Split -> the file of a task's folder that holds it, where it is not the one named like the split."""
        cfg = self.task_data_cfg(task)
        how = table.reading(cfg["dataset"], cfg)
        return how.parts if how else {}

    def scorer_files(self, tasks: Iterable[str]) -> list[str]:
        """The user's files that score these tasks, for the code digest of their verdicts."""
        files = (t.scorer.python for t in map(self.study.tasks.__getitem__, tasks) if t.scorer)
        return [str(Path(f).resolve()) for f in files if f]

    def generation_cfg(self, tasks: list[str], split: str | None = None) -> dict[str, Any]:
        """How a model answers the safety prompts and the rows of these tasks, of the evaluated or another split."""
        e = self.study.evaluation
        served = {"vllm": e.vllm.model_dump(mode="json")} if e.backend == "vllm" else {}
        return {
            "split": split or e.split, "max_new_tokens": e.max_new_tokens, "batch_size": e.batch_size,
            "tasks": {
                k: {"dataset": self.study.tasks[k].dataset, "max_new_tokens": self.study.tasks[k].max_new_tokens,
                    "instruction": self.instructions()[k]}
                for k in tasks
            },
        } | served | _asked_as(e.system_prompt)  # fmt: skip

    def stress_cfg(self, tasks: list[str], name: str) -> dict[str, Any]:
        """How a model is changed and asked under a stress."""
        spec = self.study.stress[name].spec()
        said = self.generation_cfg(tasks)
        return said | _asked_as(spec["system_prompt"]) if "system_prompt" in spec else said | {"stress": spec}

    def divergence_cfg(self) -> dict[str, Any]:
        """How models are compared along the aligned model's answers."""
        return {"batch_size": 8} | _asked_as(self.study.evaluation.system_prompt)

    def judge_answers_cfg(self) -> dict[str, Any]:
        """What base and aligned model are asked so that a judge can learn from their answers."""
        return self.generation_cfg([], "train")

    def capabilities_cfg(self) -> dict[str, Any]:
        """What the harness is asked, with the digest of the user's own task files."""
        c = self.study.capabilities
        own = sorted(p for p in Path(c.task_files).rglob("*") if p.is_file()) if c.task_files else []
        digest = provenance.digest([provenance.file_digest(p) for p in own])
        asked = _asked_as(self.study.evaluation.system_prompt) if c.chat_template else {}
        return c.model_dump(mode="json") | {"digest": digest} | asked

    def tracked_cfg(self) -> dict[str, Any]:
        """What MLflow is told of the study."""
        track = self.study.track
        return self.dump() | ({"track": track.model_dump(mode="json", by_alias=True)} if track else {})

    def dump(self) -> dict[str, Any]:
        """The whole resolved study, for the record; of what is said of it in MLflow nothing hangs on it."""
        unset = {"track"} | {key for key in ("compare", "gate", "attack") if getattr(self.study, key) is None}
        unset |= set() if self._together() else {"resources"}
        return {
            "study": self.name,
            **self.study.model_dump(mode="json", exclude=unset),
            "resolved_arms": {k: a.model_dump(mode="json") for k, a in self.arms.items()},
        }


def load(study: str, config_folder: Path | str = "config") -> Resolved:
    """Read, validate and resolve a study by name (`demo`) or by path (`my/own.yaml`).

    Raises:
        StudyError, MethodError: one block that names the file, the key and the nearest valid one.
    """
    path = paths.home(study) if study.endswith((".yaml", ".yml")) else Path(config_folder) / f"{study}.yaml"
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
    if study_model.track:
        registered = study_model.track.arms or ()
        check_known(registered, study_model.arms, path, "track.arms", "an arm that the study does not have", "arms")
        if all(task.harmful_fraction for task in study_model.tasks.values()):
            raise StudyError(
                f"{path}: track.register: models that were weakened on purpose are never registered, and here all are.",
                found="harmful_fraction in every task", expected="a task without harmful rows", do="remove track",
            )  # fmt: skip
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
                f"{path}: {key} names a file that does not exist.", found=source, do=f"correct {key}",
                expected="a file beside the study, here, or in the project; `world`, or (tasks) `hub`",
            )  # fmt: skip
    resolved = Resolved(name, study_model, path, chosen)
    resolved.refuse_missing()
    together.refuse(resolved)
    attacks.refuse(resolved)
    resolved.instructions()  # so that a text that cannot be read is known now
    return resolved


def _asked_as(system_prompt: str | None) -> dict[str, str]:
    """A system prompt where one is set, so that a study without one keeps its digests."""
    return {} if system_prompt is None else {"system_prompt": system_prompt}


def _reads_guidelines(study: Study) -> bool:
    return "constitution" in {*study.evaluation.judges, *study.judges}


def _sources(study: Study) -> list[tuple[str, str]]:
    """(key, path) of every local file a study names."""
    out = []
    for key, source in (
        ("safety.source", study.safety.source),
        ("safety.benign_prompts", study.safety.asked),
        ("evaluation.source", study.evaluation.source),
        ("preferences.source", study.preferences.source),
        ("constitution.pairs", study.constitution.pairs),
        # Which has a value in any study, and outside the project no file of that name.
        *([("constitution.guidelines_file", study.constitution.guidelines_file)] if _reads_guidelines(study) else []),
        *((f"tasks.{k}.source", t.source) for k, t in study.tasks.items()),
        *((f"tasks.{k}.instruction_file", t.instruction_file) for k, t in study.tasks.items() if t.instruction_file),
        *(
            (f"tasks.{k}.scorer.python", t.scorer.python)
            for k, t in study.tasks.items()
            if t.scorer and t.scorer.python
        ),
        *([("capabilities.task_files", study.capabilities.task_files)] if study.capabilities.task_files else []),
    ):
        if is_file(source) and not (on_hub(source) and key.startswith("tasks.")):
            out.append((key, source))
    models = {
        "base.source": study.base.source if study.has_base else None,
        "aligned.source": study.aligned.source if study.aligned else None, "unaligned.source": study.unaligned.source,
    }  # fmt: skip
    return out + [(k, v) for k, v in models.items() if v and v != "tiny" and v.startswith((".", "/", "~"))]
