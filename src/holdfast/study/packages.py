"""Which optional packages does a study need that are not here? Refused before a run; said where one is only planned."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from holdfast.data import scorers
from holdfast.errors import StudyError
from holdfast.evaluate import vllm_backend
from holdfast.study.resolve import Resolved

# package -> (its name, the extra that brings it)
EXTRAS = {
    "lm_eval": ("lm-evaluation-harness", "harness"), "bitsandbytes": ("bitsandbytes", "qlora"),
    "rouge_score": ("rouge-score", "rouge"), "optuna": ("Optuna", "attack"),
}  # fmt: skip


def needed(study: Resolved) -> Iterator[tuple[str, str]]:
    """(package, the key of the study that needs it)."""
    if study.study.capabilities.tasks:
        yield "lm_eval", "capabilities"
    if study.study.attack:
        yield "optuna", "attack"
    for arm in study.arms.values():
        yield from ((package, f"arms.{arm.family}") for package in arm.imports)
    for name, task in study.study.tasks.items():
        if scorers.kind(task.dataset, task.scorer_cfg()) == "rouge":
            yield "rouge_score", f"tasks.{name}"


def missing(study: Resolved) -> list[StudyError]:
    """A block for every package that is not here."""
    absent = {p: key for p, key in reversed(list(needed(study))) if importlib.util.find_spec(p) is None}
    blocks = [_block(study, package, key) for package, key in reversed(absent.items())]
    if study.study.evaluation.backend == "vllm" and (none := vllm_backend.absent(f"{study.path}: evaluation.backend")):
        blocks.append(none)
    return blocks


def _block(study: Resolved, package: str, key: str) -> StudyError:
    name, extra = EXTRAS.get(package, (package, ""))
    return StudyError(
        f"{study.path}: {key} needs {name}.", found=f"{package} is not installed",
        expected=f"the extra `{extra}`" if extra else f"the package {package}",
        do=f"pip install -c constraints.txt -e '.[{extra}]', or remove {key}" if extra else f"pip install {package}",
    )  # fmt: skip
