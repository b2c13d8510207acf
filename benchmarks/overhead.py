"""What of a study's wall time was model compute: `python -m benchmarks.overhead [STUDY] [--cores 2]`.

From the logs of a finished study, in whose last lines the stages say how long they worked and how long it took to get
there. Two shares: of the core seconds the run had, and of its wall time,
where a moment counts as compute if at least one model stage was working in it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

# Stages that multiply matrices; preparing, judging, comparing and reporting are not model compute.
MODEL = (
    "base", "aligned", "unaligned", "gram", "basis", "importance", "neurons", "finetune", "realign", "respond",
    "judge/train", "judge/answers",
)  # fmt: skip
THREADS = {"base": 2}
_REPLICATE = re.compile(r"^replicate\d+/")
_LINE = re.compile(r"^worked ([\d.]+) s, after ([\d.]+) s to start\b")


@dataclass(frozen=True)
class Job:
    """One job: its log's name, when it ended, how long it worked and started, and the threads it had."""

    name: str
    end: float
    worked: float
    started: float
    threads: int

    @property
    def model(self) -> bool:
        return self.name.startswith(MODEL)


def jobs(study: str, root: Path | str = ".") -> list[Job]:
    """All jobs whose log ends with the line of `stage`."""
    found = []
    folder = Path(root) / "logs" / study
    for path in sorted(folder.rglob("*.log")):
        lines = path.read_text(errors="replace").splitlines()
        match = _LINE.match(lines[-1]) if lines else None
        if match:
            name = _REPLICATE.sub("", str(path.relative_to(folder).with_suffix("")))
            found.append(Job(name, path.stat().st_mtime, *map(float, match.groups()), THREADS.get(name, 1)))
    return found


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reach = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reach))
        reach = max(reach, end)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="demo")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    ran = jobs(args.study)
    if not ran:
        print(f"no finished jobs in logs/{args.study}")
        return 2
    wall = max(j.end for j in ran) - min(j.end - j.worked - j.started for j in ran)
    families: dict[str, list[Job]] = defaultdict(list)
    for job in ran:
        families[job.name.split("/")[0]].append(job)
    print(f"{'stage':14}{'jobs':>6}{'worked, s':>12}{'to start, s':>13}")
    for name, members in sorted(families.items()):
        print(
            f"{name:14}{len(members):>6}{sum(j.worked for j in members):>12.1f}{sum(j.started for j in members):>13.1f}"
        )
    model = [j for j in ran if j.model]
    cores = sum(j.worked * j.threads for j in model)
    moments = covered([(j.end - j.worked, j.end) for j in model])
    print(f"\nwall {wall:.0f} s on {args.cores} cores")
    print(
        f"model compute: {moments / wall:.0%} of the wall time, {cores / (wall * args.cores):.0%} of the core seconds"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
