"""What Snakemake itself costs per job: `python -m benchmarks.scheduling [--jobs 400] [--cores 2]`.

Jobs that do nothing and wait for nothing, run by Snakemake's own limit of submissions (100 a second), by a longer
timespan, and by none, as the Snakefile has it. CPU seconds are those of Snakemake's process, not of its jobs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SNAKEFILE = """
onstart:
    if config.get("free"):
        workflow.scheduler.job_rate_limiter = None
rule all:
    input: expand("out/{i}/{j}", i=range(config["jobs"]), j=range(2))
rule first:
    output: touch("out/{i}/0")
    shell: "sleep 0.3"
rule second:
    input: "out/{i}/0"
    output: touch("out/{i}/1")
    shell: "sleep 0.3"
"""
WAYS = {"100/1s": ["--max-jobs-per-timespan", "100/1s"], "400/4s": ["--max-jobs-per-timespan", "400/4s"], "none": []}


def measure(jobs: int, cores: int, way: str) -> tuple[float, float]:
    """(wall, CPU) seconds of Snakemake for that many jobs."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--scheduler", "greedy", "--quiet", "all"]
        command += [*WAYS[way], "--config", f"jobs={jobs // 2}", *(["free=1"] if way == "none" else [])]
        start = time.monotonic()
        running = subprocess.Popen(command, cwd=folder)
        cpu = 0.0
        while running.poll() is None:
            try:
                fields = Path(f"/proc/{running.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            except (OSError, IndexError):
                break
            cpu = max(cpu, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
            time.sleep(0.05)
        if running.wait():
            raise SystemExit(f"snakemake ended with code {running.returncode}")
        return time.monotonic() - start, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    print(f"{'limit':8}{'wall, ms a job':>16}{'CPU, ms a job':>16}{'CPU of the whole, s':>22}")
    for way in WAYS:
        wall, cpu = measure(args.jobs, args.cores, way)
        print(f"{way:8}{1000 * wall / args.jobs:>16.0f}{1000 * cpu / args.jobs:>16.0f}{cpu:>22.1f}", flush=True)


if __name__ == "__main__":
    main()
