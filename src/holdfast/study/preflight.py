"""What the Snakefile does first: read the whole study and refuse what cannot run, before any job.

Torch is never imported here; pandas only when a study names a user's file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.data.sources import HUB, PUBLISHED, REMOTE, SUITES, WORLD, is_file
from holdfast.errors import HoldfastError, StudyError
from holdfast.model import contract, gguf, hub, package
from holdfast.names import BENIGN, HAZARD, MUST_REFUSE
from holdfast.record import paths
from holdfast.stage import alive
from holdfast.study import gating, lengths, resolve, unread

BIG_FILE_BYTES = 200_000_000
POOL = 1.25  # times the rows of a draw: with less, draws hardly differ


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
        check_files(resolved, _said if first else lambda _: None, first=first)
        return resolved
    except HoldfastError as error:
        sys.stderr.write(error.block() + "\n")
        sys.stderr.flush()
        sys.exit(error.exit_code)


def _said(line: str) -> None:
    """Tell the user in a line."""
    sys.stderr.write(f"note: {line}\n")


def check_files(
    resolved: resolve.Resolved, say: Callable[[str], None] = lambda _: None, *, first: bool = True
) -> int | None:  # fmt: skip
    """Read every local data file the study names and check each row against its contract; look over models. Returns
    how many hazards a file of prompts has to ask, None where no file was read.

    Files over 200 MB are left to the preparation stage, which does the same. `say` is told in a line each what was
    taken as what because a file does not say. What takes seconds (judging safety rows, counting tokens) is for the
    `first` process of a run.

    Raises:
        DataError: file, row, column and value of the first bad row. ArtifactError, ChatTemplateError: a model folder.
    """
    s = resolved.study
    for line in unread.lines(resolved):
        say(line)
    gating.refuse(resolved)
    base = _models(resolved, say if first else None)
    positions = base and contract.positions(base) or (s.base.max_positions if s.base.source == "tiny" else None)
    if positions:
        lengths.refuse(resolved, positions)
    if first and base:
        lengths.refuse_frame(resolved, base)
    tables = (s.safety.source, s.evaluation.source, s.preferences.source)
    if all(t == WORLD or t.startswith(REMOTE) for t in tables) and all(
        t.source == WORLD or (t.source == HUB and not os.environ.get("HOLDFAST_DATA")) for t in s.tasks.values()
    ):
        _gated(resolved, None, say if first else None)
        return None
    from holdfast.data import fetch, prepare, sources, suites
    from holdfast.study import refusals

    def small(path: str | Path) -> bool:
        """Whether planning reads a file; what is none is read too, which says so."""
        return not Path(path).is_file() or Path(path).stat().st_size <= BIG_FILE_BYTES

    def readable(source: str) -> bool:
        """Whether its rows are on this machine, and few enough to read them now."""
        if source in PUBLISHED:
            return suites.here(list(s.evaluation.suites) if source == SUITES else [source])
        return is_file(source) and small(source)

    def safety(cfg: dict[str, Any], say: Callable[[str], None]) -> list[dict[str, Any]]:
        return prepare.safety_rows(cfg, say, refusals.whole if first else None)

    read = [
        make(cfg, say) if readable(source) else []
        for source, make, cfg in zip(
            tables,
            (safety, prepare.prompt_rows, prepare.preference_rows),
            (resolved.safety_data_cfg(), resolved.prompts_cfg(), resolved.preferences_cfg()),
            strict=True,
        )
    ]
    if first:
        refusals.check_safety(read[0], resolved.safety_data_cfg(), say)
        refusals.check_preferences(read[2], resolved.preferences_cfg(), say)
    if read[1]:
        prepare.refuse_unasked(read[1], resolved.splits, tables[1])
    prepare.refuse_leak(read[0], read[1], "prompt", f"{tables[1]}", f"the safety rows in {tables[0]}")
    asked_of_base = s.safety.benign_prompts
    if s.safety.benign_answers == "self" and (asked_of_base == "written" or readable(asked_of_base)):
        own = [{"prompt": p} for p in prepare.benign_prompts(resolved.benign_cfg())]
        prepare.refuse_leak(own, read[1], "prompt", f"{tables[1]}", f"safety.benign_prompts ({asked_of_base})")
    if resolved.pairs_are_read:
        prepare.refuse_leak(read[2], read[1], "prompt", f"{tables[1]}", f"the preference pairs in {tables[2]}")
    rows: dict[str, list[dict[str, Any]]] = {}
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
                found = fetch.read_local(task.dataset, file)[: task.train_rows]
                rows.setdefault(name, []).extend(r | {"split": sources.part(file)} for r in found)
        elif all(map(small, local)):
            rows[name] = prepare.task_rows(resolved.task_data_cfg(name), folder)
    for name, found_rows in rows.items():
        trained = [r for r in found_rows if r["split"] == "train" and "prompt" in r]
        prepare.refuse_leak(trained, read[1], "prompt", f"{tables[1]}", f"the training rows of tasks.{name}")
        pool = sum(r["split"] == "train" for r in found_rows)
        wanted = s.tasks[name].train_rows
        if s.tasks[name].source != HUB and wanted < pool < POOL * wanted:
            say(f"tasks.{name}: every draw takes {wanted} of {pool} rows, so that draws are nearly the same rows")
    if first and base and positions:
        asked = [r for r in read[1] if r["split"] in resolved.splits]
        lengths.look(resolved, base, positions, read[0], asked, rows, say)
    counted = {name: {r["base_id"] for r in read[1] if (r["split"], r["set"]) == (s.evaluation.split, name)}
               for name in (*MUST_REFUSE, *BENIGN)}  # fmt: skip
    _gated(resolved, {k: len(v) for k, v in counted.items()} if read[1] else None, say if first else None)
    found = [r for r in read[1] if (r["split"], r["set"]) == (s.evaluation.split, HAZARD)]
    return len(found) if read[1] else None


def _gated(resolved: resolve.Resolved, counted: dict[str, int] | None, say: Callable[[str], None] | None) -> None:
    """Refuse a gate that nothing can pass; `say` where hardly anything does."""
    gating.refuse(resolved, counted)
    if say:
        for line in gating.lines(resolved, counted):
            say(line)


def _models(resolved: resolve.Resolved, say: Callable[[str], None] | None) -> Path | None:
    """Look over every model that is on this machine; the folder of the base, where it is one of them.

    Args:
        say: is told which model is not here yet; None leaves hub models to the run that asked before.
    """
    s = resolved.study
    named = [(s.base.source, s.base.revision, True), (s.constitution.source, None, not s.constitution.prompt_file)]
    named += [(source, None, chats) for source, chats in resolved.judging.sources()]
    base = None
    for source, revision, chats in named:
        if source in ("tiny", "train") or (say is None and not paths.there(paths.home(source))):
            continue
        folder = hub.known(source, revision)
        file = package.place(source, revision)
        if folder is None and file and gguf.named(file) and paths.there(file):
            gguf.check(file)
        elif folder is not None:
            contract.check(folder, chats=chats)
        elif say:
            say(f"{source} is not on this machine: looked over when it is fetched, before anything is trained")
        if source == s.base.source:
            base = folder
    return base
