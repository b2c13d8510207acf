"""Kill -9 a running study again and again, rerun with the same command, and compare with an uninterrupted run.

    python tests/soak.py [STUDY] [--kills 20] [--mean-seconds 8] [--seed 0]

Two copies of the project run the study: one in peace, one that is killed at random moments of its way through the jobs,
in turns the whole process group and Snakemake alone. Both must end with the same bytes in every table and model, and no
job may outlive its Snakemake. A shorter form is part of the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE, HOLDFAST = (Path(sys.executable).with_name(name) for name in ("snakemake", "holdfast"))
COPIED = ("Snakefile", "rules", "scripts", "src", "config", "profiles", "pyproject.toml", "docs/captions")
# Every kind of work has its kill, also work of a second.
RULES = (
    "train_base",
    "compute_basis",
    "build_mask",
    "finetune",
    "realign",
    "respond",
    "judge",
    "compare",
    "import_runs",
)
# What holds clock times, or the order of imports: everything else must be equal bytes.
NOT_COMPARED = (r"cost\.csv", r"(train|prelude)\.jsonl?", r"report\.html", r"mlflow.*", r".*\.png", r".*\.svg")


def copy_project(folder: Path) -> Path:
    """A copy of the project's sources without anything a run leaves."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    return folder


def start(folder: Path, study: str, log: Path) -> subprocess.Popen:
    """The command a user would repeat, in a process group of its own."""
    with log.open("a") as out:
        return subprocess.Popen(
            [SNAKEMAKE, "--config", f"study={study}"], cwd=folder, stdout=out, stderr=out, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": ""},
        )  # fmt: skip


def running(log: Path, since: int) -> list[str]:
    """Rules that were started and not finished in the log after a position."""
    text = log.read_text()[since:]
    begun = {m[2]: m[1] for m in re.finditer(r"rule (\w+):.*?jobid: (\d+)", text, re.S)}
    done = set(re.findall(r"Finished jobid: (\d+)", text))
    return [rule for job, rule in begun.items() if job not in done]


def digests(folder: Path, study: str) -> dict[str, str]:
    """sha256 of every comparable output."""
    out = {}
    for top in ("results", "work"):
        for path in sorted((folder / top / study).rglob("*")):
            if path.is_file() and not any(re.fullmatch(p, path.name) for p in NOT_COMPARED):
                out[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return out


def leftovers(folder: Path, study: str) -> list[str]:
    """Files that no finished run leaves: temporary names and checkpoints."""
    found = [
        p for top in ("results", "work") for p in (folder / top / study).rglob("*")
        if p.is_file() and re.search(r"(^\.|\.partial$|\.tmp)", p.name) or "checkpoints" in p.parts and p.is_file()
    ]  # fmt: skip
    return [str(p.relative_to(folder)) for p in found if not p.name.startswith(".snakemake")]


def processes(folder: Path) -> list[str]:
    """Command lines of the processes that work in this copy (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder.resolve() and (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # ended meanwhile
            continue
    return found


def wait_for_the_end(folder: Path, seconds: float = 10) -> None:
    """Wait until no process of this copy is left.

    Raises:
        RuntimeError: some job outlived its Snakemake.
    """
    deadline = time.monotonic() + seconds
    while left := processes(folder):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still running after the kill: {left}")
        time.sleep(0.1)


def progress(log: Path) -> float:
    """Share of the study's jobs that were finished, over all runs of a log; 0 before the first plan."""
    text = log.read_text()
    planned = re.search(r"^total +(\d+)$", text, re.M)
    return text.count("Finished jobid: ") / int(planned[1]) if planned else 0.0


def killed_runs(
    folder: Path, study: str, kills: int, mean_seconds: float, seed: int, rules: Sequence[str] = (), say=print
) -> Counter:
    """Run to the end through `kills` kills, of the process group or of Snakemake alone; which rules were hit how often.

    One kill for each of `rules`, within a second of the start of one of its jobs; the others some seconds (exponential)
    after a random share of the jobs is done, so that all stages have their turn however long they take.

    Raises:
        RuntimeError: a run that was not killed failed, or a job went on without its Snakemake.
    """
    rng, hit, log, count, wanted = random.Random(seed), Counter(), folder / "soak.log", 0, set(rules)
    log.touch()
    shares = sorted((rng.uniform(0, 0.95) for _ in range(kills - len(wanted))), reverse=True)
    while True:
        since, begun = len(log.read_text()), time.monotonic()
        process = start(folder, study, log)
        delay = None
        while (shares or wanted) and delay is None and process.poll() is None:
            if wanted & set(running(log, since)):
                delay = rng.uniform(0, 1)
            # Not before the jobs begin: a kill during planning is no test of anything.
            elif shares and time.monotonic() - begun > 3 and progress(log) >= shares[-1]:
                delay = rng.expovariate(1 / mean_seconds)
            time.sleep(0.1)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            count += 1
            alone, jobs, share = bool(count % 2), running(log, since), progress(log)
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            wait_for_the_end(folder)
            hit.update(jobs or ["planning"])
            if shares and not wanted & set(jobs):
                shares.pop()
            wanted -= set(jobs)
            who = "Snakemake alone" if alone else "all"
            say(f"kill {count} at {100 * share:.0f} %, {who}: {', '.join(jobs) or 'planning'}", flush=True)
            continue
        if process.returncode:
            raise RuntimeError(log.read_text()[since:][-4000:])
        return hit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="demo")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mean-seconds", type=float, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as top:
        calm, killed = (copy_project(Path(top) / name) for name in ("calm", "killed"))
        began = time.monotonic()
        hit = killed_runs(killed, args.study, args.kills, args.mean_seconds, args.seed, RULES)
        seconds = time.monotonic() - began
        print(f"finished after {sum(hit.values())} interrupted jobs: {dict(hit)}; {seconds:.0f} s", flush=True)
        if start(calm, args.study, calm / "soak.log").wait():
            print((calm / "soak.log").read_text()[-4000:])
            return 1
        a, b = digests(calm, args.study), digests(killed, args.study)
        wrong = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k)) + leftovers(killed, args.study)
        print(f"{len(a)} files compared; different or left over: {wrong or 'none'}")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
