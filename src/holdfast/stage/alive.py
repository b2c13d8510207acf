"""Which Snakemake is alive: no lock of a killed one stays behind, and none of its jobs writes on.

Snakemake keeps its locks as plain files, so after `kill -9` they hold for ever, and the jobs of the killed process
finish by themselves beside those of the next. Here every Snakemake holds a lock of the operating system on a file of
its own for as long as it lives. The next one sees who is gone and removes the plain locks if everyone is; a job waits
for the lock of the Snakemake that started it and ends at once when it gets it.

Locks of the operating system speak of one machine: on another host (a cluster node) nothing is done.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from holdfast.engines.snakemake import LOCKS, STATE

VARIABLE = "HOLDFAST_ALIVE"
_held: list[TextIO] = []  # a closed file is an unlocked one


def _host() -> str:
    return socket.gethostname()


def guard(state: Path | str = STATE) -> None:
    """Called by the Snakefile: be known as alive, and clear away what dead ones left; in a job, end with the
    Snakemake that started it."""
    state = Path(state).resolve()
    if VARIABLE in os.environ:
        end_with_snakemake()
        return
    state.mkdir(exist_ok=True)
    with (state / "alive.lock").open("w", encoding="utf-8") as turn:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)  # one after the other: nobody has locks yet whom we do not see
        except OSError:  # no such locks on this file system
            return
        alone = not any([_lives(path) for path in state.glob("alive-*")])
        if alone:
            for lock in (state / LOCKS.name).glob("*.lock"):
                lock.unlink(missing_ok=True)
        path = state / f"alive-{_host()}-{os.getpid()}"
        _held.append(hold(path))  # as long as this process
        atexit.register(_held[-1].close)
        atexit.register(path.unlink, missing_ok=True)
    os.environ[VARIABLE] = str(path)


def _lives(path: Path) -> bool:
    """Whether the Snakemake of this file is alive, as far as can be known here; the file of a dead one goes."""
    if not path.name.startswith(f"alive-{_host()}-"):
        return True
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        path.unlink(missing_ok=True)
    return False


def hold(path: Path) -> TextIO:
    """Be known as alive for as long as this file is open."""
    file = path.open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def snakemake() -> int | None:
    """Number of the process that started this job, if that is a Snakemake on this machine."""
    name = Path(os.environ.get(VARIABLE, "")).name
    return int(name.rpartition("-")[2]) if name.startswith(f"alive-{_host()}-") else None


def end_with_snakemake(end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Call `end` as soon as the Snakemake that started this process is gone."""
    path = Path(os.environ.get(VARIABLE, ""))
    if path.name.startswith(f"alive-{_host()}-"):
        end_with(path, end)


def end_with(path: Path, end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Call `end` as soon as nobody holds this file, which must be on this machine."""

    def wait() -> None:
        try:
            with path.open("r", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        except FileNotFoundError:  # gone already
            pass
        except OSError:  # no such locks on this file system
            return
        end()

    threading.Thread(target=wait, daemon=True, name=f"end with {path.name}").start()
