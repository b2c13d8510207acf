"""What computes here: the processor or GPU, and what decides the bits of its results. Equal bytes are promised on one
kind of machine only (docs/reproducibility.md)."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from holdfast.record import portable, provenance

DRIVER, _DRIVER = Path("/proc/driver/nvidia/version"), re.compile(r"Kernel Module.*?\s(\d+(?:\.\d+)+)")
LARGE = 1 << 28  # bytes of a model
_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h: blocks from here on are mapped one by one
_LIBRARY = re.compile(r"Math Kernel Library Version [\d.]+|OpenBLAS [\d.]+|Accelerate")


def machine() -> dict[str, Any]:
    """Processor, the instructions torch uses, its threads, its library for products; the GPU, its driver, whether its
    products are rounded to TF32 and its algorithms always the same; whether it rounds alike everywhere (`portable`);
    and what else the environment sets."""
    cpus = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(encoding="utf-8"), re.M) if cpus.exists() else None
    library = _LIBRARY.search(torch.__config__.show())
    found: dict[str, Any] = {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "blas": library[0] if library else "unknown",
    }  # fmt: skip
    if torch.cuda.is_available():
        driver = _DRIVER.search(DRIVER.read_text(encoding="utf-8")) if DRIVER.exists() else None
        found |= {
            "gpu": torch.cuda.get_device_name(), "tf32": torch.backends.cuda.matmul.allow_tf32,
            "driver": driver[1] if driver else "unknown", "cuda": torch.version.cuda or "none",
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }  # fmt: skip
    found |= {"portable": True} if portable.MARK in os.environ else {}
    steered = portable.steered(os.environ)
    return found | ({"environment": steered} if steered else {})


def made_with() -> dict[str, Any]:
    """The software and the machine behind a result, for its record."""
    return {"software": provenance.software(), "machine": machine()}


def return_blocks(model: torch.nn.Module) -> None:
    """Have this process give the memory of a large model's tensors back as each is freed (glibc; nothing elsewhere).

    glibc keeps blocks of up to 32 MiB, and those of rows of ever other lengths leave holes between what stays. Getting
    pages anew costs a small model more time than it saves.
    """
    if sum(p.nbytes for p in model.parameters()) >= LARGE:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


def return_freed() -> None:
    """Give back the memory of what this process has freed in blocks too small to be mapped by themselves (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory() -> int:
    """Peak bytes: of the GPU when there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return provenance.peak_resident()
