"""Can every training of a study be spread over as many processes as it asks for? Said at planning, not after an hour."""

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


def refuse(study: Structure) -> None:
    """Refuse a method that one process has to train, and steps that have no row for some process.

    Raises:
        StudyError: the first one.
    """
    gpus = study.study.resources.gpus
    if gpus == 1:
        return
    for arm in study.arms.values():
        settings = registry.load(arm.method).Settings if arm.kind == "train" else None
        for task, given in arm.settings.items() if settings else ():
            if why := settings(**given).alone():
                raise StudyError(
                    f"{study.path}: arms.{arm.family} cannot be trained on several GPUs.", found=f"{task}: {why}",
                    expected="a method that several processes can train together (docs/cluster.md)",
                    do="set resources.gpus to 1, or leave the arm to a study of its own",
                )  # fmt: skip
    for key, phase in trainings(study):
        rows = phase.batch_size * phase.accumulation
        why = PURE if phase.precision == "pure_bf16" else f"{rows} rows in a step" if rows < gpus else ""
        if why:
            raise StudyError(
                f"{study.path}: {key}.training cannot be shared out over {gpus} GPUs.", found=why,
                expected="a row for each of them in every step (batch_size times accumulation); fp32 or bf16",
                do=f"correct {key}.training, or lower resources.gpus",
            )  # fmt: skip
