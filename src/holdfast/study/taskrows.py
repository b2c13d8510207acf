"""Which rows does a task train on and ask, as far as planning can know?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.data import scorers, table
from holdfast.data.sources import HUB
from holdfast.errors import DataError, StudyError
from holdfast.study.resolve import Resolved

Row = dict[str, Any]


def folder(resolved: Resolved, name: str) -> Path | None:
    """Where the rows of a task lie on this machine; None where they are fetched.

    Raises:
        StudyError: HOLDFAST_DATA names a folder without them.
    """
    from holdfast.data import sources

    task = resolved.study.tasks[name]
    found = sources.local_folder(task.dataset, task.source)
    if found is not None and not found.exists():
        raise StudyError(
            f"The rows of tasks.{name} are not where HOLDFAST_DATA says.", found=f"no {found}",
            expected=f"HOLDFAST_DATA to be a folder that holds {found.name}/",
            do="correct HOLDFAST_DATA, or unset it to use the hub",
        )  # fmt: skip
    return found


def drawn(resolved: Resolved, name: str, where: Path, small: Callable[[Path], bool]) -> list[Row]:
    """The rows of a task from files of this machine, as the stage will draw them; none of files that planning does not
    read (`small`). Files that stand in for the hub may hold less than a study asks for: then the first of each.

    Raises:
        DataError: the first bad row, or (files of the study's own) too few.
    """
    from holdfast.data import fetch, prepare, sources

    task, cfg, parts = resolved.study.tasks[name], resolved.task_data_cfg(name), resolved.parts(name)
    files = sources.local_files(task.dataset, task.source, parts)
    if all(map(small, files)):
        try:
            return prepare.task_rows(cfg, where)
        except DataError:
            if task.source != HUB:
                raise
    elif task.source != HUB:
        return []
    splits = list(parts) if len(parts) == len(files) else list(map(sources.part, files))
    also = [] if "train" in splits else ["train"]  # which is cut from the others then
    rows, how = [], table.reading(task.dataset, cfg)
    for split, file in zip(splits, files, strict=True):
        found = fetch.read_local(task.dataset, file, how)[: task.train_rows] if small(file) else []
        rows += [r | {"split": kind} for kind in [split, *also] for r in found]
    return rows


def look(resolved: Resolved, name: str, rows: list[Row], say: Callable[[str], None]) -> None:
    """Refuse rows of a task that cannot be learned or scored."""
    task = resolved.study.tasks[name]
    scorers.look(rows, task.dataset, task.scorer_cfg(), f"tasks.{name}", say)
    introduced = next((r["id"] for r in rows if "prompt" in r and table.asked(r)[0]["role"] == "system"), None)
    if introduced and resolved.study.foundation.source == "tiny":
        raise DataError(
            f"tasks.{name}: a conversation has a system message, which the tiny model's template does not write.",
            found=introduced, expected="turns of user and assistant",
            do="take it out of the rows, or name another base",
        )  # fmt: skip
