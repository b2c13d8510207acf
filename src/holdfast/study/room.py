"""Is there room on the disk for what a study writes?"""

from __future__ import annotations

import math
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


def line(resolved: Resolved, base: Path | None, folder: Path | None = None) -> str | None:
    """What to say where the models of a study will not fit beside what is there; None where they do, or where the base
    model (its folder) is not here yet."""
    if base is None:
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
