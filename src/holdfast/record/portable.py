"""The same bits on processors of every maker, as far as they have AVX2: what a run's jobs round with.

torch and MKL choose their instructions by the processor, and its maker. Asked for AVX2, and MKL strictly, an AMD EPYC
and an Intel Xeon with AVX-512 gave the same bytes after a training; double-precision products and decompositions do so
with MKL's compatible code only, which is slow and asked for where a stage consists of them (docs/reproducibility.md).
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from pathlib import Path

# Settings of the environment that change which instructions torch and its libraries use.
STEERING = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
ROUNDING = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT"}
COMPATIBLE = "COMPATIBLE"
MARK = "HOLDFAST_PORTABLE"
_CPUS = Path("/proc/cpuinfo")


def settle(environ: MutableMapping[str, str], cpus: Path = _CPUS) -> bool:
    """Have the jobs of this run round alike everywhere; not where the user steers it, or a processor has no AVX2."""
    flags = re.search(r"^flags\s*:(.*)$", cpus.read_text(encoding="utf-8"), re.M) if cpus.exists() else None
    able = flags is not None and {"avx2", "fma"} <= set(flags[1].split())
    if able and not any(name in environ for name in STEERING):
        environ.update(ROUNDING)
        environ[MARK] = "1"
    return MARK in environ


def decompose(environ: MutableMapping[str, str]) -> None:
    """For this job, which decomposes matrices: MKL's compatible code, if the run rounds alike everywhere."""
    if MARK in environ:
        environ["MKL_CBWR"] = COMPATIBLE


def steered(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The settings that somebody made by hand, or a replicate (`instructions`)."""
    ours = {("MKL_CBWR", COMPATIBLE), *ROUNDING.items()} if MARK in environ else set()
    return {name: environ[name] for name in STEERING if name in environ and (name, environ[name]) not in ours}
