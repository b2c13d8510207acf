"""Can every training of a study be spread over as many processes as it asks for? Said at planning."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.errors import StudyError
from holdfast.study import registry
from holdfast.study.structure import Structure
from holdfast.study.training import Training

PURE = "pure_bf16 is there to round as one process does"


def trainings(study: Structure) -> Iterator[tuple[str, Training]]:
    """(key, phase) of everything that is trained in `resources.gpus` processes."""
    s = study.study
    if study.trains_aligned:
        on_top = s.aligned.training if s.aligned else None
        yield ("aligned" if on_top else "safety"), on_top or s.safety.training
    if study.trains_twin:
        yield "unaligned", s.unaligned.training
    for name in dict.fromkeys(task for task, arm, _ in study.cells if study.arms[arm].kind == "train"):
        yield f"tasks.{name}", s.tasks[name].training


def _first(study: Structure, gpus: int) -> tuple[str, str] | None:
    """(key, why) of the first thing that so many processes cannot train together."""
    for arm in study.arms.values():
        if arm.kind != "train":
            continue
        for task, given in arm.settings.items():
            if why := registry.load(arm.method).Settings(**given).alone():
                return f"arms.{arm.family}", f"{task}: {why}"
    for key, phase in trainings(study):
        rows = phase.batch_size * phase.accumulation
        if phase.precision == "pure_bf16":
            return f"{key}.training", PURE
        if rows < gpus:
            return f"{key}.training", f"{rows} rows in a step"
    return None


def why(study: Structure, gpus: int) -> str:
    """Why so many processes cannot train the models of a study; nothing where they can."""
    first = _first(study, gpus)
    return f"{first[0]}: {first[1]}" if first else ""


def refuse(study: Structure) -> None:
    """Refuse a method that one process has to train, and steps that have no row for some process.

    Raises:
        StudyError: the first one.
    """
    gpus = study.study.resources.gpus
    if gpus == 1 or not (first := _first(study, gpus)):
        return
    raise StudyError(
        f"{study.path}: {first[0]} cannot be trained on {gpus} GPUs together.", found=first[1],
        expected="a method that several processes can train, a row for each of them in every step (batch_size times "
        "accumulation), fp32 or bf16",
        do=f"set resources.gpus to 1, or correct {first[0]}",
    )  # fmt: skip
