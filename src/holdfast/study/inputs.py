"""Which files of the user's a study reads, so that a changed one remakes what was made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.data import sources
from holdfast.record import paths

if TYPE_CHECKING:
    from holdfast.study.resolve import Resolved


def of_source(source: str) -> list[str]:
    """The local file that a table is made from."""
    return [source] if sources.is_file(source) else []


def of_task(resolved: Resolved, task: str) -> list[str]:
    """As `of_source`, the files of a task's rows: one, or those of a folder."""
    t = resolved.study.tasks[task]
    if not sources.is_file(t.source):
        return []
    return list(map(str, sources.local_files(t.dataset, t.source, resolved.parts(task))))


def of_model(source: str) -> list[str]:
    """The files of a model on this machine."""
    path = paths.home(source)
    if not path.is_dir():
        return [str(path)] if path.is_file() else []
    return [str(p) for p in sorted(path.glob("*.safetensors")) + sorted(path.glob("*.json"))]


def measured(resolved: Resolved) -> list[Path]:
    """Those that every result of a study stands on: its models, tasks and prompts, and what the aligned one learned."""
    s = resolved.study
    found = [path for task in s.tasks for path in of_task(resolved, task)]
    for source in (s.evaluation.source, *([s.safety.source] if resolved.trains_aligned else [])):
        found += of_source(source)
    models = [model.source for model in (s.aligned, s.unaligned) if model and model.source]
    models += [resolved.given(arm, task, seed) for task, arm, seed in resolved.cells if resolved.arms[arm].given]
    found += [path for source in dict.fromkeys(models) for path in of_model(source)]
    there = [paths.home(path) for path in [*found, *map(str, resolved.copies)]]
    return [path for path in there if path.is_file()]
