"""A process that has imported what models need and becomes each job that asks: a program, which `sharing` starts.

It imports nothing of holdfast, so that a job reads the code as it is by then. It computes nothing and starts no thread,
so that what is forked is as good as new. It ends with Snakemake, or when nobody has asked for a minute.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any

SECRET = "HOLDFAST_SHARE"  # a variable that all jobs of a run have, and nobody else
SHARED = "holdfast_shared"  # the module that a job finds if it runs here
BEGUN = b"begun"
_SECONDS = 60.0  # without a job
_DIE_WITH_PARENT = 1  # of prctl


class Shared(ModuleType):
    """What a job has to know that runs here: who waits for it, what Ctrl-C does to it, and where it says what it does
    last of all."""

    waiting: int
    keyboard: Any
    last: Callable[[], None] = staticmethod(lambda: None)


def serve(name: str, snakemake: int, hide: Sequence[str], preload: Sequence[str]) -> str:
    """Answer under a name; returns, in a process of its own, when that has become a job: the script to run."""
    of_snakemake = os.pidfd_open(snakemake)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(f"\0{name}")
    except OSError as error:  # another one was sooner, unless names may not be taken here
        os._exit(error.errno != errno.EADDRINUSE)
    listener.listen(64)  # who asks from now on waits for the imports
    shared.keyboard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the jobs, and for Snakemake
    sys.modules.update(dict.fromkeys(hide))  # type: ignore[arg-type]
    gc.disable()
    for module in preload:
        with suppress(Exception):  # a job that needs it says what is wrong
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    poll, own = select.poll(), os.getpid()
    poll.register(of_snakemake, select.POLLIN)
    poll.register(listener, select.POLLIN)
    while True:
        events = dict(poll.poll(1000 * _SECONDS))
        if of_snakemake in events or not (_jobs() or events):
            os._exit(0)  # and with it all that it has become
        if listener.fileno() in events:
            connection, _ = listener.accept()
            threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - no paths
            if _fork(connection) == 0:
                return _attend(connection, [listener.fileno(), of_snakemake], own, threads)
            connection.close()


def _fork(connection: socket.socket) -> int:
    """As `os.fork`; -1 where there can be no more processes. Who asks is told why, and what runs here goes on."""
    try:
        return os.fork()
    except OSError as error:
        with suppress(OSError):
            connection.send(str(error).encode())
            connection.settimeout(1)
            connection.recv(1)  # what is asked, or that who asks has gone: of a sooner end the reason would be lost
        return -1


def _jobs() -> bool:
    """Whether one runs here; those that have ended are let go."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def _attend(connection: socket.socket, opened: list[int], server: int, threads: int) -> str:
    """Of one request: become the job; a process that stays says how it ended, and ends it if nobody waits any more."""
    _die_with_parent(server)
    try:
        request, streams, who = _request(connection)
    except (OSError, ValueError, KeyError):  # of somebody else, or of one that is gone
        os._exit(1)
    if threads > 1:  # a fork would have one of them, and what the others held for ever
        connection.send(f"{threads} threads run where one should".encode())
        os._exit(1)
    parent, job = os.getpid(), _fork(connection)
    if job < 0:
        os._exit(1)
    if job == 0:
        for descriptor in (*opened, connection.detach()):
            os.close(descriptor)
        return _become(request, streams, who, parent)
    process = os.pidfd_open(job)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(connection, select.POLLRDHUP)
    with suppress(OSError):
        connection.send(BEGUN)
    if process not in dict(poll.poll()):
        os.kill(job, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    with suppress(OSError):
        connection.send(str(code).encode())
    os._exit(0)


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int], int]:
    """What is asked for, the standard streams of the process that asks, and its number.

    Raises:
        ValueError: it is not of this user and this run.
    """
    connection.settimeout(10)
    message, streams, _, _ = socket.recv_fds(connection, 1 << 17, 3)
    connection.settimeout(None)
    who, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    request = json.loads(message)
    if user != os.getuid() or request["secret"] != os.environ[SECRET] or len(streams) != 3:
        raise ValueError
    return request, streams, who


def _become(request: dict[str, Any], streams: list[int], who: int, parent: int) -> str:
    """Be as a process that was started for this job alone; returns its script. Of one group with the process that waits
    it is already, as all that a Snakemake starts."""
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, shared.keyboard)
    for own, given in enumerate(streams):
        os.dup2(given, own)
        os.close(given)
    os.chdir(request["folder"])
    sys.path[:] = request["path"]
    importlib.invalidate_caches()
    shared.waiting = who
    return str(request["script"])


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.modules[SHARED] = shared = Shared(SHARED)
    # Exit functions run in reverse: this one stands before any that an import brings.
    atexit.register(lambda: shared.last())
    script = serve(**json.loads(sys.argv[1]))
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
