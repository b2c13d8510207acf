"""What the Snakefile does first: read the whole study and refuse what cannot run, before any job.

Torch is never imported here; pandas only when a study names a user's file.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from holdfast.data import scorers, table
from holdfast.data.sources import HUB, PUBLISHED, REMOTE, SUITES, WORLD, is_file, on_hub
from holdfast.errors import HoldfastError, UsageError
from holdfast.model import adapter, checkpoint, contract, gguf, hub, package, template, weights
from holdfast.names import HAZARD
from holdfast.record import paths, provenance
from holdfast.stage import alive, devices, several
from holdfast.study import gating, lengths, packages, resolve, room, taskrows, unread

BIG_FILE_BYTES = 200_000_000
# What `snakemake --config` may say, and the least number of what is one; yes and no are 1 and 0.
OPTIONS = {"study": None, "accelerate": None, "gpu": 0, "tflops": 0, "portable": 0, "share": 0}
POOL = 1.25  # times the rows of a draw: with less, draws hardly differ


def study(name: str, root: Path | str = ".", *, dry: bool = False) -> resolve.Resolved:
    """The resolved study; on a `HoldfastError` print its block and leave with exit code 2. A `dry` run says what is to
    be installed, and goes on."""
    try:
        folder = Path(root).resolve() / "config"
        if folder.is_relative_to(Path.cwd()):
            folder = folder.relative_to(Path.cwd())
        first = alive.VARIABLE not in os.environ  # jobs read the study too, and their Snakemake has said it
        if first and not dry:
            room.refuse_full()
        resolved = resolve.load(name, folder)
        if first:
            room.refuse_unwritable(resolved.name)
        check_packages(resolved, _said if dry else None)
        check_files(resolved, _said if first else lambda _: None, first=first)
        return resolved
    except HoldfastError as error:
        _leave(error)


def options(config: Mapping[str, Any], cores: int | None = None) -> None:
    """As `study`: what was said by `snakemake --config` and, where jobs run here, `--cores`."""
    try:
        check_options(config)
        check_cores(cores)
    except HoldfastError as error:
        _leave(error)


def check_cores(cores: int | None) -> None:
    """Refuse to wait for ever for a core.

    Raises:
        UsageError: there is none.
    """
    if cores is not None and cores < 1:
        raise UsageError("Without a core nothing can run.", found=f"--cores {cores}", expected="at least 1",
                         do="correct it, or leave it out")  # fmt: skip


def check_options(config: Mapping[str, Any]) -> None:
    """Refuse what nothing reads, and words where a number belongs.

    Raises:
        UsageError: the first one.
    """
    for key, value in config.items():
        if key not in OPTIONS:
            raise UsageError(
                f"Nothing reads {key!r} of snakemake --config.", found=f"{key}={value}", expected=", ".join(OPTIONS),
                do="correct the name, or leave it out; what makes a model other stands in the study",
            )  # fmt: skip
        least = OPTIONS[key]
        if least is None and (value is None or not str(value).strip()):
            raise UsageError(f"{key!r} of snakemake --config is empty.", found=f"{key}=", expected=f"{key}=NAME",
                             do="name one, or leave it out")  # fmt: skip
        whole = key != "tflops"
        try:
            sound = least is None or (int if whole else float)(value) >= least
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise UsageError(
                f"{key!r} of snakemake --config is a {'whole ' if whole else ''}number.", found=f"{key}={value}",
                expected=f"{key}=1, or 0 for none" if whole else f"{key}=100", do="correct it, or leave it out",
            )  # fmt: skip


def together(processes: int, config: str, *, on_gpus_here: bool) -> None:
    """As `study`: whether processes can be started that train together, on GPUs of this machine or elsewhere; jobs are
    told with which `config` of accelerate."""
    os.environ[several.CONFIG] = config
    try:
        several.refuse_config(several.config_file())
        if on_gpus_here:
            several.refuse_devices(processes, devices.visible())
    except HoldfastError as error:
        _leave(error)


def _leave(error: HoldfastError) -> NoReturn:
    sys.stderr.write(error.block() + "\n")
    sys.stderr.flush()
    sys.exit(error.exit_code)


def check_packages(resolved: resolve.Resolved, say: Callable[[str], None] | None = None) -> None:
    """Refuse optional packages that are not here, or `say` so; and tasks that the harness does not know, if it is here.

    Raises:
        StudyError: the first one.
    """
    for absent in packages.missing(resolved):
        if say is None:
            raise absent
        say(f"{absent.what} {absent.do}")
    if (asked := resolved.study.capabilities).tasks and importlib.util.find_spec("lm_eval") is not None:
        from holdfast.evaluate import capabilities

        capabilities.check(asked.tasks, asked.task_files, resolved.path)


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
    for name, task in s.tasks.items():
        scorers.refuse(task.dataset, task.scorer_cfg(), f"tasks.{name}")
    gating.refuse(resolved)
    base = _models(resolved, say if first else None)
    tiny = s.foundation.source == "tiny"
    positions = base and contract.positions(base) or (s.base.max_positions if tiny else None)
    if positions:
        lengths.refuse(resolved, positions)
    if first and base:
        lengths.refuse_frame(resolved, base, positions)
        if full := room.line(resolved, base):
            say(full)
    tables = (s.safety.source, s.evaluation.source, s.preferences.source)
    if all(t == WORLD or t.startswith(REMOTE) for t in tables) and all(
        t.source == WORLD or (on_hub(t.source) and not (t.source == HUB and os.environ.get("HOLDFAST_DATA")))
        for t in s.tasks.values()
    ):
        _gated(resolved, None, say if first else None)
        return None
    from holdfast.data import benign, leaks, prepare
    from holdfast.study import refusals
    from holdfast.suites import published

    suites = s.evaluation.suites
    published.refuse_absent(suites)
    for line in published.unfound(suites | {t: "" for t in tables if t in PUBLISHED and t != SUITES}):
        say(line)
    for place in published.unpinned(suites):
        say(f"{place} is taken as it is: sha256 {provenance.file_digest(place)}, and no revision of it is pinned")

    def small(path: str | Path) -> bool:
        """Whether planning reads a file; what is none is read too, which says so."""
        return not Path(path).is_file() or Path(path).stat().st_size <= BIG_FILE_BYTES

    def readable(source: str) -> bool:
        """Whether its rows are on this machine, and few enough to read them now."""
        if source in PUBLISHED:
            return published.here(suites if source == SUITES else {source: ""})
        return is_file(source) and small(source)

    whole = refusals.whole if first else None
    makes: tuple[Callable[..., list[dict[str, Any]]], ...]
    makes = (functools.partial(prepare.safety_rows, refuses=whole), prepare.prompt_rows, prepare.preference_rows)
    cfgs = (resolved.safety_data_cfg(), resolved.prompts_cfg(), resolved.preferences_cfg())
    read = [make(cfg, say) if readable(t) else [] for t, make, cfg in zip(tables, makes, cfgs, strict=True)]
    if first:
        refusals.check_safety(read[0], resolved.safety_data_cfg(), say)
        refusals.check_preferences(read[2], resolved.preferences_cfg(), say)
        refusals.few(s.safety, read[0], say)
    if read[1]:
        prepare.refuse_unasked(read[1], resolved.splits, tables[1])

    asked = read[1] or (prepare.prompt_rows(resolved.prompts_cfg()) if tables[1] == WORLD else [])

    def refuse_trained(rows: list[dict[str, Any]], source: str, without: list[str] | None = None) -> None:
        leaks.refuse(rows, asked, "" if suites or tables[1] == WORLD else tables[1], source, say, without)

    if first:  # later processes do not ask which answers are whole refusals; the stage looks at what it keeps
        refuse_trained(prepare.trained_on(read[0]), f"the safety rows in {tables[0]}", s.safety.without)
    if first and s.safety.benign_answers == "self" and (s.safety.asked == WORLD or readable(s.safety.asked)):
        own = benign.requests(resolved.benign_cfg(), refusals.helps)
        refuse_trained(own, f"safety.benign_prompts ({s.safety.benign_prompts})", s.safety.without)
        refusals.few(s.safety, own, say, "benign")
    if resolved.pairs_are_read:
        refuse_trained(read[2], f"the preference pairs in {tables[2]}")
    for name, text in resolved.instructions().items():
        if text:
            refuse_trained([{"prompt": text}], f"the instruction of tasks.{name}")
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, task in s.tasks.items():
        if task.source != WORLD and (where := taskrows.folder(resolved, name)) is not None:
            rows[name] = taskrows.drawn(resolved, name, where, small)
    for name, found_rows in rows.items():
        if first:
            taskrows.look(resolved, name, found_rows, say)
        refuse_trained(table.requests(found_rows, s.tasks[name].dataset), f"the training rows of tasks.{name}")
        pool = sum(r["split"] == "train" for r in found_rows)
        wanted = s.tasks[name].train_rows
        if s.tasks[name].source != HUB and wanted < pool < POOL * wanted:
            say(f"tasks.{name}: every draw takes {wanted} of {pool} rows, so that draws are nearly the same rows")
    if first and base and positions:
        measured = [r for r in read[1] if r["split"] in resolved.splits]
        lengths.look(resolved, base, positions, read[0], measured, read[2], rows, say)
    counted = gating.counted([r for r in read[1] if r["split"] == s.evaluation.split], suites) if read[1] else None
    _gated(resolved, counted, say if first else None)
    found = [r for r in read[1] if (r["split"], r["set"]) == (s.evaluation.split, HAZARD)]
    return len(found) if read[1] else None


def _gated(resolved: resolve.Resolved, counted: gating.Counted | None, say: Callable[[str], None] | None) -> None:
    """Refuse a gate that nothing can pass; `say` where hardly anything does."""
    gating.refuse(resolved, counted)
    if say:
        for line in gating.lines(resolved, counted):
            say(line)


def _models(resolved: resolve.Resolved, say: Callable[[str], None] | None) -> Path | None:
    """Look over every model that is on this machine, and those that are given against the one they all start from; the
    folder of that one, where it is one of them; of a GGUF file that is not opened yet one with its tokenizer alone.

    Args:
        say: is told which model is not here yet; None leaves hub models to the run that asked before.
    """
    s, first = resolved.study, resolved.study.foundation
    for role, model in (("aligned", None if resolved.trains_aligned else s.aligned), ("unaligned", s.unaligned),
                        ("base", s.base if s.has_base and s.base.source != "tiny" else None)):  # fmt: skip
        if model and model.source and (folder := hub.known(model.source, model.revision)):
            checkpoint.refuse_role(folder, role)
    named = [(first.source, first.revision, True), (s.constitution.source, None, not s.constitution.prompt_file)]
    named += [(source, None, chats) for source, chats in resolved.judging.sources()]
    given = list(dict.fromkeys(_given(resolved)))
    named += [(source, revision, False) for source, revision in given]
    base = words = None
    for source, revision, chats in named:
        if source in ("tiny", "train") or (say is None and not paths.there(paths.home(source))):
            continue
        folder = hub.known(source, revision)
        file = package.place(source, revision)
        if folder is None and file and gguf.named(file) and paths.there(file):
            gguf.check(file)
            words = gguf.words(file) if say and source == first.source else words
        elif folder is not None:
            if (source, revision) in given:
                _against(folder, base)
            else:
                contract.check(folder, chats=chats)
        elif say:
            say(f"{source} is not on this machine: looked over when it is fetched, before anything is trained")
        if source == first.source:
            base = folder
    return base or words


def _given(resolved: resolve.Resolved) -> Iterator[tuple[str, str | None]]:
    """(source, revision) of every model that a study names beside the one that all start from."""
    s = resolved.study
    if s.aligned and s.has_base:
        yield s.base.source, s.base.revision
    if "unaligned" in resolved.roles and s.unaligned.source:
        yield s.unaligned.source, s.unaligned.revision
    for task, arm, seed in resolved.cells:
        if resolved.arms[arm].given:
            yield resolved.given(arm, task, seed), resolved.arms[arm].revision


def _against(folder: Path, first: Path | None) -> None:
    """Look over a given model, and whether it has the tensors and the tokens of the first, where that is here."""
    of = "the model that all others are held against"
    theirs = checkpoint.shapes(first) if first else None
    if adapter.named(folder):
        if theirs:
            adapter.read(folder, theirs)
        return
    contract.check(folder, chats=False)
    if first and theirs:
        mine = checkpoint.shapes(folder)
        checkpoint.refuse_other(mine, theirs, str(folder), of)
        if any((head in mine) != (head in theirs) for head in weights.HEAD):
            contract.refuse_other_head(contract.own_head(folder), contract.own_head(first), folder)
        contract.refuse_other_configuration(folder, first)
        contract.refuse_other_words(template.tokenizer_of(folder), template.tokenizer_of(first), folder)
