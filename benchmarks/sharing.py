"""What jobs that share the imports save: `python -m benchmarks.sharing [STUDY] [--cores 2] [--target FILE]`.

The study from nothing in two copies of the project, every job started anew and jobs as forks. CPU seconds are those of
all processes of a run, the servers too. Both must end with the same bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks import overhead
from tests import soak

WAYS = {"anew": 0, "shared": 1}
_ADOPT = 36  # of prctl: what outlives its parent below this process becomes its child


def measure(folder: Path, study: str, way: str, cores: int, targets: list[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of the study in a copy of the project."""
    ctypes.CDLL(None).prctl(_ADOPT, 1)
    command = [soak.SNAKEMAKE, "--cores", str(cores), "--quiet", "all", "--config", f"study={study}"]
    command += [f"share={WAYS[way]}", "--", *targets]
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": ""}
    before, start = spent(), time.monotonic()
    code = subprocess.run(command, cwd=folder, env=env, check=False).returncode
    if code:
        raise SystemExit(f"snakemake ended with code {code}")
    wall = time.monotonic() - start
    with suppress(ChildProcessError):  # servers, which end with Snakemake
        while True:
            os.wait()
    return wall, spent() - before


def spent() -> float:
    """CPU seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="smoke")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--target", nargs="*", default=[], help="what to make, if not all of it")
    args = parser.parse_args()
    found = {}
    print(f"{'jobs':8}{'wall, s':>10}{'CPU, s':>10}{'to start, s a job':>20}")
    with tempfile.TemporaryDirectory() as top:
        for way in WAYS:
            folder = soak.copy_project(Path(top) / way)
            wall, cpu = measure(folder, args.study, way, args.cores, args.target)
            ran = overhead.jobs(args.study, folder)
            started = sum(job.started for job in ran) / len(ran)
            print(f"{way:8}{wall:>10.0f}{cpu:>10.0f}{started:>20.2f}", flush=True)
            found[way] = soak.digests(folder, args.study)
    one, two = found.values()
    wrong = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    print(f"{len(one)} files, different: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
