"""What the Snakefile does first: read the whole study and refuse what cannot run, before any job.

Torch is never imported here; pandas only when a study names a user's file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from holdfast.data.sources import HUB, WORLD, is_file
from holdfast.errors import HoldfastError, StudyError
from holdfast.stage import alive
from holdfast.study import resolve

BIG_FILE_BYTES = 200_000_000


def study(name: str, root: Path | str = ".") -> resolve.Resolved:
    """The resolved study; on a `HoldfastError` print its block and leave with exit code 2."""
    try:
        folder = Path(root).resolve() / "config"
        if folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        resolved = resolve.load(name, folder)
        if resolved.study.capabilities.tasks:
            from holdfast.evaluate import capabilities

            capabilities.check(resolved.study.capabilities.tasks, resolved.study.capabilities.task_files, resolved.path)
        first = alive.VARIABLE not in os.environ  # jobs read the study too, and their Snakemake has said it
        check_files(resolved, _said if first else lambda _: None)
        return resolved
    except HoldfastError as error:
        sys.stderr.write(error.block() + "\n")
        sys.stderr.flush()
        sys.exit(error.exit_code)


def _said(line: str) -> None:
    """Tell the user in a line."""
    sys.stderr.write(f"note: {line}\n")


def check_files(resolved: resolve.Resolved, say: Callable[[str], None] = lambda _: None) -> None:
    """Read every local data file the study names and check each row against its contract; look over model folders.

    Files over 200 MB are left to the preparation stage, which does the same. `say` is told in a line each what was
    taken as what because a file does not say.

    Raises:
        DataError: file, row, column and value of the first bad row. ArtifactError, ChatTemplateError: a model folder.
    """
    s = resolved.study
    folders = [(s.base.source, True), (s.constitution.source, not s.constitution.prompt_file)]
    folders += [(source, chats) for source, chats in resolved.judging.sources()]
    for source, chats in folders:
        if source not in ("tiny", "train") and Path(source).expanduser().exists():
            from holdfast.model import contract

            contract.check(source, chats=chats)
    tables = (s.safety.source, s.evaluation.source, s.preferences.source)
    if not any(map(is_file, tables)) and all(
        t.source == WORLD or (t.source == HUB and not os.environ.get("HOLDFAST_DATA")) for t in s.tasks.values()
    ):
        return
    from holdfast.data import fetch, prepare, sources

    def small(path: str | Path) -> bool:
        return Path(path).is_file() and Path(path).stat().st_size <= BIG_FILE_BYTES

    read = [
        make(cfg, say) if is_file(source) and small(source) else []
        for source, make, cfg in zip(
            tables,
            (prepare.safety_rows, prepare.prompt_rows, prepare.preference_rows),
            (resolved.safety_data_cfg(), resolved.prompts_cfg(), resolved.preferences_cfg()),
            strict=True,
        )
    ]
    if read[1]:
        prepare.refuse_unasked(read[1], s.evaluation.split, tables[1])
    prepare.refuse_leak(read[0], read[1], "prompt", f"{tables[1]}", f"the safety rows in {tables[0]}")
    for name, task in s.tasks.items():
        if task.source == WORLD:
            continue
        folder = sources.local_folder(task.dataset, task.source)
        if folder is not None and not folder.exists():
            raise StudyError(
                f"The rows of tasks.{name} are not where HOLDFAST_DATA says.",
                found=f"no {folder}",
                expected=f"HOLDFAST_DATA to be a folder that holds {folder.name}/",
                do="correct HOLDFAST_DATA, or unset it to use the hub",
            )
        local = [] if folder is None else sources.local_files(task.dataset, task.source)
        if task.source == HUB:  # files that stand in for the hub may hold less than a study asks for
            for file in filter(small, local):
                fetch.read_local(task.dataset, file)
        elif all(map(small, local)):
            prepare.task_rows(resolved.task_data_cfg(name), folder)
