"""Which GPU has a job, where a machine has several? One that no other job of ours holds, of those that it may see.

A scheduler that gives a job its devices has said so in the environment (CUDA_VISIBLE_DEVICES), and who gets as many as
are to be seen takes them. Else a job locks as many as it asks for; a lock ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

VARIABLE = "CUDA_VISIBLE_DEVICES"
CARDS = Path("/proc/driver/nvidia/gpus")
SECONDS = 0.5  # between two looks for a free one
_held: list[TextIO] = []  # as long as this process lives


def visible() -> list[str]:
    """The devices that this process may see, as CUDA names them: numbers or UUIDs; none without a GPU."""
    said = os.environ.get(VARIABLE)
    if said is None:
        return [str(i) for i, _ in enumerate(CARDS.iterdir())] if CARDS.is_dir() else []
    found = []
    for name in map(str.strip, said.split(",")):
        if name in ("", "-1"):  # and what stands after is not seen
            break
        found.append(name)
    return found


def claim(wanted: int, say: Callable[[str], None]) -> list[str]:
    """Hold so many devices and let CUDA see no others; to be called before CUDA is. Waits while all are held.

    Where no more can be seen than are wanted, these are taken as they are. Returns the devices.
    """
    seen = visible()
    if wanted < 1 or len(seen) <= wanted:
        return seen
    folder = Path(tempfile.gettempdir()) / f"holdfast-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waited = False
    while True:
        taken: dict[str, TextIO] = {}
        for name in seen:
            file: TextIO = (folder / re.sub(r"[^A-Za-z0-9-]", "_", name)).open("a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            taken[name] = file
            if len(taken) == wanted:
                _held.extend(taken.values())
                os.environ[VARIABLE] = ",".join(taken)
                return list(taken)
        for file in taken.values():  # not half of what is wanted, while another waits for the other half
            file.close()
        if not waited:
            say(f"waiting for {wanted} of {len(seen)} GPUs, which other jobs hold")
            waited = True
        time.sleep(SECONDS)
