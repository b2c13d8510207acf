"""What a crossed study says of others: the second table of docs/variance.md, and how many answers one change moves.

    python -m benchmarks.designs results/variance

Per contrast of two arms the mean and the spread of their paired difference by base, aligned model and fine-tuning, and
the standard error of the mean in designs of bases x aligned models of each x fine-tunings of each, all in points; then
how many answers differ between fine-tunings that differ in one thing alone.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from holdfast import names
from holdfast.compare import components, groups
from holdfast.record import jsonfiles, tables

DESIGNS = ((1, 1, 1), (1, 1, 5), (1, 5, 1), (2, 2, 1), (3, 2, 1), (5, 1, 1), (5, 1, 3), (10, 1, 1))
CONTRASTS = (("warp", "full"), ("warp", "safety-mix"), ("safety-mix", "full"))
DRAWN = ("base", "aligned", "draw", "order", "instructions")


def errors(
    base: float, aligned: float, within: float, designs: Sequence[tuple[int, int, int]] = DESIGNS
) -> list[float]:
    """Standard errors of a mean over such draws, from three variances."""
    return [(base / b + aligned / (b * a) + within / (b * a * f)) ** 0.5 for b, a, f in designs]


def contrasts(found: dict[str, dict[str, groups.Group]]) -> None:
    """Print a line per task, contrast and rate."""
    for (task, arms), (arm, over) in itertools.product(found.items(), CONTRASTS):
        one, two = arms[arm], arms[over]
        native = [i for i, c in enumerate(one.cells) if c["instructions"] == "native"]
        asked = ((names.REFUSAL_RATE, [names.HAZARD], names.REFUSAL), ("utility", [one.task_set], "correct"))
        for rate, sets, outcome in asked:
            apart = 100 * (one.answered(sets, outcome).mean(axis=1) - two.answered(sets, outcome).mean(axis=1))[native]
            drawn = [[one.cells[i][key] for i in native] for key in ("base", "aligned")]
            parts = [part or 0.0 for part in components.nested(apart, *drawn)]
            spread, error = (" ".join(f"{x:5.1f}" for x in xs) for xs in ([p**0.5 for p in parts], errors(*parts)))
            print(f"{task:8}{arm + ' over ' + over:22}{rate:21}{apart.mean():6.1f} | {spread} | {error}")


def answers(cells: list[Path]) -> dict[str, tuple[int, int]]:
    """What alone is another between two models of an arm and task -> (answers that differ, answers)."""
    alike: dict[tuple[str, str, int], list[Path]] = {}
    told = {path: jsonfiles.read_json(path) for path in cells}
    for path, cell in told.items():
        alike.setdefault((cell["task"], cell["arm"], cell["aligned"]), []).append(path)
    differ, asked = Counter[str](), Counter[str]()
    for paths in alike.values():
        said = {p: [r["text"] for r in tables.read(p.with_name("responses.parquet"), "responses")] for p in paths}
        for a, b in itertools.combinations(said, 2):
            apart = [key for key in DRAWN if told[a][key] != told[b][key]]
            if len(apart) == 1:
                differ[apart[0]] += sum(x != y for x, y in zip(said[a], said[b], strict=True))
                asked[apart[0]] += len(said[a])
    return {key: (differ[key], n) for key, n in asked.items()}


def main() -> int:
    """Print both."""
    cells = sorted(p for p in Path(sys.argv[1]).rglob("seed*/metrics.json"))
    contrasts(groups.load(cells))
    for key, (differ, asked) in answers(cells).items():
        print(f"another {key}: {differ} of {asked} answers differ ({differ / asked:.1%})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
