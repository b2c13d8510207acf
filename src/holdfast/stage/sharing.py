"""Does a job start anew, or as a fork of a process that has imported what models need?

To import torch and transformers takes two to three seconds, which is most of what a job of a small study does. The
first job of a run starts a `server`; it and those after it become forks of that. Each is as a process of its own: the
environment, streams, folder, code and exit code are those it would have had, and it ends with the script that waits for
it. Libraries read the environment once, so there is a server for each environment, to the letter. Only on this machine,
under Linux, without a GPU, and for jobs of one thread, so that nothing has begun to compute when it is forked.

A server leaves nothing on a disk: its name is an abstract socket, which asks for its user and for a secret of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, cast

from holdfast.stage import alive, devices, server

VARIABLE = server.SECRET
# What the stages import, and those of other people's that they import.
IMPORTED = (
    "torch", "transformers.modeling_utils", "transformers.generation.utils", "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama", "transformers.trainer", "tokenizers", "safetensors.torch", "peft",
    "pyarrow.parquet", "pandas", "pandera.pandas", "pandera.backends.pandas.builtin_checks", "pydantic", "psutil",
    "xxhash",
)  # fmt: skip
_OF_A_SHELL = ("_", "SHLVL", "PWD", "OLDPWD")  # variables that a shell sets and nothing reads
_PROGRAM = Path(server.__file__)
_SECONDS = 20.0  # for a process to begin, on a busy machine


def offer() -> None:
    """Called by the Snakefile where jobs run on this machine: they may share processes."""
    os.environ[VARIABLE] = secrets.token_hex(16)
    # pyarrow starts a thread when it is imported, for an allocator that it does not use unless it is told to.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")


def forked() -> server.Shared | None:
    """What this process has of the server that it is a fork of, if it is one."""
    return cast(server.Shared | None, sys.modules.get(server.SHARED))


def hand_over(hide: Sequence[str], preload: Sequence[str]) -> str | None:
    """Run this script in a fork of a server and end as that ends. Returns only where it does not run so: why, if that
    was not to be expected.

    Args:
        hide: packages that the server must not import; nor what imports them.
        preload: modules that it imports, of those that are installed.
    """
    snakemake = alive.snakemake()
    if not snakemake or not _may_share():
        return None
    environment = sorted((k, v) for k, v in os.environ.items() if k not in _OF_A_SHELL)
    key = [environment, sys.executable, list(hide), list(preload), _PROGRAM.read_text(encoding="utf-8")]
    name = f"holdfast-{hashlib.sha256(json.dumps(key).encode()).hexdigest()}"
    asked = {"name": name, "snakemake": snakemake, "hide": list(hide), "preload": list(preload)}
    try:
        connection = _connected(name, [sys.executable, "-P", str(_PROGRAM), json.dumps(asked)])
        request = {"secret": os.environ[VARIABLE], "folder": str(Path.cwd()), "path": sys.path, "script": sys.argv[0]}
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        if (said := connection.recv(1000)) == server.BEGUN:
            try:
                said = connection.recv(1000)
            except KeyboardInterrupt:  # which the job has, too
                connection.settimeout(_SECONDS)
                with suppress(OSError, ValueError):
                    _end(int(connection.recv(1000)))
                raise
            if said:
                _end(int(said))
    except OSError as error:
        return str(error)
    return said.decode() or "it has ended"


def _may_share() -> bool:
    """Whether this job is one of those for which a fork is as good as a start."""
    if sys.platform != "linux" or VARIABLE not in os.environ or forked() is not None:
        return False
    return os.environ.get("OMP_NUM_THREADS") == "1" and not devices.visible() and not Path("/dev/kfd").exists()


def _connected(name: str, command: Sequence[str]) -> socket.socket:
    """A connection to the server of this name, which is started if there is none.

    Raises:
        OSError: it cannot be, or is not ours.
    """
    started, deadline = None, time.monotonic() + _SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(f"\0{name}")
        except ConnectionRefusedError:
            connection.close()
            if started is None:
                nothing = subprocess.DEVNULL
                started = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
            if started.poll() or time.monotonic() > deadline:  # one that came second ends with 0
                raise
            time.sleep(0.01)
            continue
        user = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if user != os.getuid():
            raise PermissionError(f"its name is taken by user {user}")
        return connection


def _end(code: int) -> NoReturn:
    """End as the job has ended, by a signal if that did."""
    if code < 0:
        with suppress(OSError):  # of one that is always deadly
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
