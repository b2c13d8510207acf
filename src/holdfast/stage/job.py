"""The one place where a script meets Snakemake: log, threads, errors, and the names it works with."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, TextIO

from holdfast.errors import HoldfastError
from holdfast.record import files, portable, provenance
from holdfast.stage import alive, devices, several, sharing

# transformers imports these when they are installed, and a training job uses none of them: two seconds
# of every job. A hidden module looks as if it were not installed.
UNUSED_BY_MODELS = ("scipy", "sklearn", "datasets", "bitsandbytes")
MODELS = ("torch", "transformers.modeling_utils")

_exit_code = 0
_ready: float | None = None  # when the imports were done, on the clock of time.time


def start_models(
    snakemake: Any, hide: Sequence[str] = (), preload: Sequence[str] = MODELS, *, decomposes: bool = False
) -> SimpleNamespace:
    """`start` of a stage that loads models, or (`preload=["torch"]`) only their tensors; one that `decomposes` matrices
    rounds with other instructions (`portable`)."""
    if decomposes:
        portable.decompose(os.environ)
    return start(snakemake, (*UNUSED_BY_MODELS, *hide), preload, preload if decomposes else sharing.IMPORTED)


def start(
    snakemake: Any, hide: Sequence[str] = (), preload: Sequence[str] = (), shared: Sequence[str] = sharing.IMPORTED
) -> SimpleNamespace:
    """Set up a stage and return its io: input, output, params, wildcards, cfg, threads, log, terminal, and whether it
    leads. Where its settings ask for several `processes`, it runs in those instead, of which one leads.

    From here on stdout and stderr go to the rule's log file. `io.log(text)` writes a line there;
    `io.terminal` is the user's terminal or None. A `HoldfastError` that reaches the top is printed as
    one block, in the log and on the terminal, and ends the process with exit code 2; any other
    exception leaves its traceback in the log. `hide` names optional packages this stage does not use
    unless its rule lists them in `imports`; `preload` names the heavy modules it needs in any case, and
    `shared` what the process has imported that it may become a fork of (`sharing`).
    """
    global _exit_code, _ready
    alive.end_with_snakemake()
    cfg = snakemake.params.get("cfg")
    processes, inside = several.asked(cfg), several.world() > 1
    if not inside:
        several.forget_launchers(os.environ)
    # A stage whose bytes depend on its thread count fixes it as a parameter.
    threads = max(1, int(snakemake.params.get("threads", snakemake.threads)) // processes)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(threads)
    if isinstance(cfg, dict) and cfg.get("instructions") == "common":  # before torch chooses
        os.environ["ATEN_CPU_CAPABILITY"] = "default"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    hidden = set(hide) - set(snakemake.params.get("imports") or ())
    alone = _hand_over(hidden, preload, shared) if processes == 1 else None
    if fork := sharing.forked():
        fork.last = _leave
    else:
        atexit.register(_leave)  # first of all, so that it runs after every other exit function
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8")
    if inside:  # what they write goes into the log that is open
        several.join()
    elif snakemake.log:
        log_file = Path(snakemake.log[0]).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115 - open for the whole process
        os.dup2(log_file.fileno(), 1)
        os.dup2(log_file.fileno(), 2)
        sys.stdout = sys.stderr = log_file
    sys.excepthook = _report(terminal)
    if not inside:
        held = devices.claim(int(snakemake.resources.get("gpu", 0)), say)  # before torch looks for them
        if alone:
            say(f"the imports are not shared: {alone}")
        if processes > 1:
            _exit_code = several.launch(processes, held, say)
            sys.exit()
    _hide(hidden)
    _preload(preload)
    _ready = time.time()
    return SimpleNamespace(
        input=snakemake.input,
        output=snakemake.output,
        params=snakemake.params,
        wildcards=snakemake.wildcards,
        cfg=cfg,
        code=snakemake.params.get("code"),
        threads=threads,
        log=say,
        terminal=terminal if terminal.isatty() and not inside else None,
        leads=several.rank() == 0,
    )


def _hand_over(hidden: Collection[str], preload: Sequence[str], shared: Sequence[str]) -> str | None:
    """Let a fork run this script, if it may (`sharing`); not where transformers, which asks once, must see more."""
    if not preload or {*MODELS} & {*preload} and not {*UNUSED_BY_MODELS} <= {*hidden}:
        return None
    return sharing.hand_over(UNUSED_BY_MODELS, shared)


def _hide(hidden: Collection[str]) -> None:
    """Have packages look as if they were not installed, but for those that a shared process has imported; and none
    else."""
    for name in {*UNUSED_BY_MODELS} - {*hidden}:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]
    sys.modules.update({name: None for name in hidden if name not in sys.modules})  # type: ignore[misc]


def _preload(modules: Sequence[str]) -> None:
    """Import with the garbage collector off: scanning hundreds of thousands of new objects over and over is a
    quarter of the time. They stay for good, so later collections leave them out."""
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def _leave() -> None:
    """End the process without taking apart what the operating system frees anyway: a second of every model job.
    The last line of the log says how long it worked, how long it took to get there, and what memory it took
    (benchmarks/overhead.py)."""
    if _ready is not None:
        import psutil

        began = fork.waiting if (fork := sharing.forked()) else os.getpid()
        before = _ready - psutil.Process(began).create_time()
        worked, peak = time.time() - _ready, provenance.peak_resident() / 1e9
        say(f"worked {worked:.2f} s, after {before:.2f} s to start, in {peak:.2f} GB of memory")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_exit_code)


def say(text: str) -> None:
    """One line in the log; of several processes the first one says it."""
    if several.rank():
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _report(terminal: TextIO) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = error if isinstance(error, HoldfastError) else files.no_room(error)
        if known:
            if several.world() > 1:
                several.tell(known)
                os._exit(known.exit_code)
            with suppress(OSError):  # a full disk takes no line more
                say(known.block())
            with suppress(OSError):
                terminal.write(known.block() + "\n")
                terminal.flush()
            with suppress(OSError, KeyError):  # the Snakefile turns the mark into its own exit code
                Path(os.environ["HOLDFAST_FAILED"]).touch()
            os._exit(known.exit_code)
        global _exit_code
        _exit_code = 1
        traceback.print_exception(kind, error, trace, file=sys.stderr)

    return hook
