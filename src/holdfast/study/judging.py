"""What the DAG asks judges: which of them, about which cells, and one dict of settings per rule.

The first of `evaluation.judges` makes the metrics and must tell refusals; the others stand beside it in
verdicts.parquet and in the agreement table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast.data.sources import WORLD
from holdfast.errors import StudyError, meant
from holdfast.record import provenance, userfiles
from holdfast.study import registry
from holdfast.study.keys import Study
from holdfast.study.reading import check_known, from_pydantic


class Judging:
    """The judges of one study.

    Raises:
        StudyError, MethodError: a judge there is not, that cannot judge these prompts, or with wrong settings.
    """

    def __init__(self, study: Study, path: Path, families: Mapping[str, str]) -> None:
        """`families`: arm after sweeps -> the arm of the study file it comes from."""
        self.study, self.path, self.families = study, path, families
        named = self.study.evaluation.judges
        check_names(self.study, self.path)
        self.heads = {name: registry.judge(name) for name in named}
        self.text = [n for n in named if self.heads[n].kind == "text"]
        self.asked = [n for n in named if self.heads[n].kind != "text"]
        self.settings = {n: self._settings(n) for n in self.asked if n != "constitution"}
        if "constitution" in self.asked:
            self._guidelines()
            self._check_prompt(study.constitution.prompt_file, "constitution")

    @property
    def first(self) -> str:
        """The judge of the metrics."""
        return self.study.evaluation.judges[0]

    def _settings(self, name: str) -> Any:
        where = f"judges.{name}"
        model = registry.load_judge(name).Settings
        try:
            settings = model(**self.study.judges.get(name, {}))
        except ValidationError as error:
            raise from_pydantic(error, self.path, where, model) from None
        what = "a task that the study does not have"
        check_known(settings.tasks, self.study.tasks, self.path, f"{where}.tasks", what, "tasks")
        self._check_prompt(getattr(settings, "prompt_file", None), where)
        return settings

    def _check_prompt(self, file: str | None, where: str) -> None:
        """Refuse the file of a judge's own instruction when it is not there or does not say where the texts go."""
        if file is None:
            return
        if not Path(file).is_file():
            raise StudyError(
                f"{self.path}: {where}.prompt_file does not exist.", found=file,
                expected="a text file with {prompt} and {response}", do=f"correct {where}.prompt_file",
            )  # fmt: skip
        text = userfiles.text(file, f"{where}.prompt_file")
        if "{prompt}" not in text or "{response}" not in text:
            raise StudyError(
                f"{file}: an instruction for a judge must say where the texts go.",
                found="no {prompt}" if "{prompt}" not in text else "no {response}",
                expected="{prompt} and {response}", do="put both into the file",
            )  # fmt: skip

    # ---- cells and files ------------------------------------------------------------------------

    def judged(self, name: str, task: str | None, arm: str | None = None) -> bool:
        """Whether a judge is asked about a cell of this task and arm (None: about the roles)."""
        if name not in self.asked:
            return name in self.text
        if name == "constitution":
            of = self.study.constitution
            if arm is not None and of.arms and self.families[arm] not in of.arms:
                return False
            tasks = of.tasks
        else:
            tasks = self.settings[name].tasks
        return task is None or not tasks or task in tasks

    def opinions(self, task: str | None, arm: str | None = None) -> list[str]:
        """The models and servers that are asked about the cells of a task and arm."""
        return [n for n in self.asked if self.judged(n, task, arm)]

    def files(self) -> list[str]:
        """The text judges' files, for the code digest of the verdicts."""
        return [f"judges/{registry.judge_file(n).name}" for n in self.text]

    def sources(self) -> list[tuple[str, bool]]:
        """(hub id or folder, whether it must render conversations) of the models that are asked."""
        named = [(getattr(s, "source", None), not hasattr(s, "prompt_file")) for s in self.settings.values()]
        return [(source, chats) for source, chats in named if source]

    @property
    def several(self) -> bool:
        """Whether there is more than one judge, so that agreement can be told."""
        return len(self.study.evaluation.judges) > 1

    @property
    def trains_constitution(self) -> bool:
        """Whether the DAG trains the constitution judge itself."""
        return "constitution" in self.asked and self.study.constitution.source == "train"

    # ---- settings per rule -----------------------------------------------------------------------

    def verdicts_cfg(self, task: str | None, arm: str | None = None) -> dict[str, Any]:
        """Text judges with the digest of the weights some have beside them, and the judge of the metrics."""
        weights = {n: registry.judge_file(n).with_suffix(".json") for n in self.text}
        return {
            "judges": self.text, "asked": self.opinions(task, arm), "first": self.first,
            "weights": {n: provenance.file_digest(p)[:16] for n, p in weights.items() if p.exists()},
        }  # fmt: skip

    def opinions_cfg(self, name: str) -> dict[str, Any]:
        """What one model or server is asked with."""
        if name == "constitution":
            c = self.study.constitution
            settings = {"max_new_tokens": c.max_new_tokens, "batch_size": c.batch_size, "precision": "fp32"}
            own = userfiles.text(c.prompt_file, "constitution.prompt_file") if c.prompt_file else None
            return {"judge": name, "settings": settings, "template": own or self._guidelines(), "chats": own is None,
                    "source": None if self.trains_constitution else c.source}  # fmt: skip
        settings = self.settings[name]
        file = getattr(settings, "prompt_file", None)
        return {
            "judge": name, "settings": settings.model_dump(mode="json", exclude={"tasks"}),
            "template": userfiles.text(file, f"judges.{name}.prompt_file") if file else None,
            "source": getattr(settings, "source", None), "chats": not hasattr(settings, "prompt_file"),
        }  # fmt: skip

    def prompts_cfg(self) -> dict[str, Any]:
        """The training requests whose answers the constitution judge learns from."""
        return {"world": self.study.world.model_dump(), "prompts_per_set": self.study.constitution.prompts_per_set}

    def pairs_cfg(self) -> dict[str, Any]:
        """How the constitution judge's labelled pairs are made."""
        include = {"pairs", "mismatched", "seed"}
        return {"guidelines": self._guidelines()} | self.study.constitution.model_dump(mode="json", include=include)

    def training_cfg(self) -> dict[str, Any]:
        """How the constitution judge is trained."""
        c = self.study.constitution
        training = c.model_dump(mode="json", include={"training", "seed"})
        return {"role": "judge", "lora": {"rank": c.rank, "alpha": c.alpha}, **training}

    def _guidelines(self) -> str:
        return userfiles.text(self.study.constitution.guidelines_file, "constitution.guidelines_file")


def check_names(study: Study, path: Path) -> None:
    """Every judge exists, once; the first tells refusals; the world's judge is asked about the world only."""
    named, known = study.evaluation.judges, registry.judge_names()
    for name in (*named, *study.judges):
        if name not in known:
            where = "evaluation.judges" if name in named else "judges"
            raise StudyError(
                f"{path}: {where} names a judge there is not.", found=name, expected=" | ".join(known),
                do=meant(name, known, f"correct {where}"),
            )  # fmt: skip
    if len(set(named)) != len(named):
        raise StudyError(
            f"{path}: evaluation.judges names a judge twice.", found=", ".join(named), expected="each once",
            do="remove one",
        )  # fmt: skip
    if not registry.judge(named[0]).tells_refusals:
        telling = [n for n in known if registry.judge(n).tells_refusals]
        raise StudyError(
            f"{path}: the first of evaluation.judges makes the metrics, and {named[0]} does not tell refusals.",
            found=named[0], expected=" | ".join(telling), do="name one of these first",
        )  # fmt: skip
    if "world" in named and study.evaluation.source != WORLD:
        raise StudyError(
            f"{path}: the judge `world` knows the answers of the fictional world only.",
            found=f"evaluation.source: {study.evaluation.source}", expected="judges: [refusal, ...] for other prompts",
            do="correct evaluation.judges",
        )  # fmt: skip
    unused = [n for n in study.judges if n not in named]
    if unused or "constitution" in study.judges:
        name = unused[0] if unused else "constitution"
        raise StudyError(
            f"{path}: judges.{name} has settings that nothing reads.", found=name,
            expected="a judge of evaluation.judges" if unused else "the key `constitution` at the top of the study",
            do=f"add it to evaluation.judges, or remove judges.{name}",
        )  # fmt: skip
    for name in study.judges:
        if registry.judge(name).kind == "text":
            raise StudyError(
                f"{path}: judges.{name}: a judge that reads words has no settings.",
                found=", ".join(study.judges[name]), expected="nothing", do=f"remove judges.{name}",
            )  # fmt: skip
