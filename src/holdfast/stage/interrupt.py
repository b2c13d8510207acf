"""What does Ctrl-C do? Before the first job everything ends at once. While jobs work the first one lets Snakemake end
them in order, which takes a moment; another one ends everything where it is, and the same command goes on from there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from holdfast.errors import INTERRUPTED
from holdfast.stage import alive

_said: Callable[[], None] | None = None  # what is said at the end, once jobs work
_came = False


def guard() -> None:
    """Called first by the Snakefile; a job, whose Snakemake decides, is left alone, and who ignores it (nohup)."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignored and alive.VARIABLE not in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _taken)


def begin(say: Callable[[], None]) -> None:
    """Called when jobs begin, with what there is to say if they are ended at once."""
    global _said
    _said = say


def came() -> bool:
    """Whether Ctrl-C was pressed while jobs worked."""
    return _came


def _taken(number: int, frame: Any) -> None:
    global _came
    if _said is None or _came:
        _end()
    _came = True
    raise KeyboardInterrupt


def _end() -> NoReturn:
    """End here: Snakemake would wait for its threads, and say in pages that it was interrupted meanwhile."""
    with suppress(Exception):  # the stream may be in the middle of a line of its own
        if _said:
            _said()
    os._exit(INTERRUPTED)
