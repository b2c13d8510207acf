"""Is there room on the disk for what a study writes, and may it be written?"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from holdfast.errors import DiskError
from holdfast.model import checkpoint
from holdfast.record import files
from holdfast.study.resolve import Resolved

LEAST = 20_000_000  # bytes: Snakemake's own files, the store of runs, a small study's tables
FP32 = 4


def refuse_full(folder: Path | None = None) -> None:
    """Refuse to begin where Snakemake itself cannot write.

    Raises:
        DiskError: it is so.
    """
    folder = folder or Path.cwd()
    if (free := shutil.disk_usage(folder).free) < LEAST:
        raise DiskError(
            "There is no room on the disk to begin.", found=f"{files.shown(free)} are free in {folder}",
            expected=f"at least {files.shown(LEAST)} (holdfast plan STUDY says how much a study needs)",
            do="make room; what is finished is kept",
        )  # fmt: skip


def refuse_unwritable(study: str, folder: Path | None = None) -> None:
    """Refuse to begin where one of the folders that a run writes into is none, or is not ours to write.

    Raises:
        DiskError: the first one.
    """
    folder = folder or Path.cwd()
    for below in (".snakemake", f"logs/{study}", f"work/{study}", f"results/{study}"):
        place = folder / below
        while not os.path.lexists(place):
            place = place.parent
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            continue
        found = "a folder that cannot be written" if place.is_dir() else (
            f"a link to {place.readlink()}, which is not there" if place.is_symlink() else "a file")  # fmt: skip
        raise DiskError(
            f"{place} is no place to write {below} into.", found=found,
            expected="a folder of yours, on a disk that is mounted to be written",
            do="give yourself the right to write it, or work in a copy of the project that is yours",
        )  # fmt: skip


def line(resolved: Resolved, base: Path | None, folder: Path | None = None) -> str | None:
    """What to say where the models of a study will not fit beside what is there; None where they do, or where the base
    model (its folder) is not here yet, or its tokenizer alone is."""
    if base is None or not any(base.glob("*.safetensors")):
        return None
    work = (folder or Path.cwd()) / "work" / resolved.name
    model = FP32 * sum(math.prod(shape) for shape in checkpoint.shapes(base).values())
    needed = model * (len(resolved.places) + len(resolved.role_places))
    there = sum(p.stat().st_size for p in work.rglob("*.safetensors")) if work.exists() else 0
    free = shutil.disk_usage(folder or Path.cwd()).free
    if needed - there <= free:
        return None
    sizes = f"{files.shown(needed)}, of which {files.shown(there)} are there, and {files.shown(free)} are free"
    return f"its models take about {sizes}: it will stop when the disk is full, and go on when there is room"
