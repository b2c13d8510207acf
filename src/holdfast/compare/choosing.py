"""The settings a sweep chooses, on validation data and by a stated rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from holdfast import names
from holdfast.errors import DataError
from holdfast.record import files
from holdfast.record.csvfiles import read_csv, write_csv

Draw = dict[str, tuple[float, float]]  # arm -> (utility, refusal rate) of one draw of a task
CLIFF = 0.10
RESAMPLES = 1000


def medians(draws: Sequence[Draw], points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points with the median utility and refusal rate over draws (worlds, bases): one draw that fails, or shines,
    chooses nothing."""
    found = []
    for point in points:
        values = np.array([draw[point["arm"]] for draw in draws])
        utility, refused = np.median(values, axis=0)
        found.append(point | {"utility": float(utility), names.REFUSAL_RATE: float(refused)})
    return found


def _beside(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any] | None]]:
    """Swept number -> the points next to this one: with the next smaller and the next larger value, all else equal;
    None at an end of the sweep."""
    beside: dict[str, list[dict[str, Any] | None]] = {}
    for key, value in point.get("swept", {}).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            rest = {k: v for k, v in point["swept"].items() if k != key}
            line = [p for p in points if {k: v for k, v in p["swept"].items() if k != key} == rest]
            line.sort(key=lambda p: p["swept"][key])
            i = next(i for i, p in enumerate(line) if p["swept"] == point["swept"])
            beside[key] = [line[i - 1] if i else None, line[i + 1] if i + 1 < len(line) else None]
    return beside


def _falls(point: dict[str, Any], points: Sequence[dict[str, Any]], key: str) -> bool:
    """Whether a point beside this one loses more than `CLIFF` of `key`: the next base may have its edge on the other
    side."""
    beside = [p for pair in _beside(point, points).values() for p in pair if p]
    return any(float(point[key]) - float(p[key]) > CLIFF + 1e-12 for p in beside)


def _at_an_end(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> bool:
    """Whether it has the smallest or the largest of several learning rates: what lies beyond, nobody has seen."""
    below, above = _beside(point, points).get("learning_rate", [point, point])
    return (below is None) != (above is None)


def pick(points: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """The stated rule: among the points whose validation utility is within `tolerance` of the best, the one with the
    highest refusal rate; ties go to the smaller learning rate, then to the earlier point.

    If there is a choice, none at an end of the rates, and none beside which another point loses more than `CLIFF` of
    utility. To get away from a cliff of refusals it gives up at most `CLIFF` of them: what lies at its foot is no
    choice.
    """
    best = max(float(p["utility"]) for p in points)
    close = [p for p in points if float(p["utility"]) >= best - tolerance - 1e-12]
    close = [p for p in close if not _falls(p, points, "utility")] or close
    close = [p for p in close if not _at_an_end(p, points)] or close
    most = max(float(p[names.REFUSAL_RATE]) for p in close)
    high = [p for p in close if float(p[names.REFUSAL_RATE]) >= most - CLIFF - 1e-12]
    high = [p for p in high if not _falls(p, points, names.REFUSAL_RATE)] or high
    return max(high, key=lambda p: (float(p[names.REFUSAL_RATE]), -float(p["learning_rate"])))


def steadiness(draws: Sequence[Draw], points: Sequence[dict[str, Any]], tolerance: float) -> dict[str, float]:
    """Arm -> how often the rule would choose it from other draws: these, drawn again with replacement. Of one draw
    nobody knows."""
    if len(draws) < 2:
        return {}
    rng, often = np.random.default_rng(0), Counter[str]()
    for _ in range(RESAMPLES):
        again = [draws[i] for i in rng.integers(len(draws), size=len(draws))]
        often[pick(medians(again, points), tolerance)["arm"]] += 1
    return {arm: n / RESAMPLES for arm, n in often.items()}


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per task and arm: the first study's, with the mean utility and refusal rate of all studies."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["arm"]), []).append(row)
    keys = ("utility", names.REFUSAL_RATE)
    return [
        group[0] | {k: sum(float(r[k]) for r in group) / len(group) for k in keys if group[0].get(k)}
        for group in groups.values()
    ]


def choose(sweeps: Sequence[Path], cfg: dict[str, Any], out: Path) -> None:
    """Apply `pick` per arm family and task; write the choices (YAML) and the sweeps' points (CSV beside), with the
    share of resampled draws that would choose each (`chosen`).

    Args:
        sweeps: tables of the same sweep in several studies (worlds), each with its draws.csv beside it; a point counts
            by its median over all draws.
        cfg: `points` (arm -> swept values), tolerance, study, and `controls`: family -> the family it is a
            control of. A control differs in one thing only, so it shares the settings chosen there (the
            budget of a mask) and chooses its learning rate.

    Raises:
        DataError: a table is missing, or has other points than the first.
    """
    tables = {path: _sweep(path) for path in sweeps}
    points_of = {path: {(r["task"], r["arm"]) for r in rows} for path, rows in tables.items()}
    for path, its in points_of.items():
        if its != points_of[sweeps[0]]:
            raise DataError(
                f"{path} is another sweep than {sweeps[0]}.",
                found=f"{len(its)} points", expected=f"the same {len(points_of[sweeps[0]])} arms and tasks",
                do="run both studies from the same arms again",
            )  # fmt: skip
    draws: dict[str, list[Draw]] = {}
    for path, table in tables.items():
        for task, found in _draws(path, table).items():
            draws.setdefault(task, []).extend(found)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in tables[sweeps[0]]:
        if swept := cfg["points"].get(row["arm"]):
            groups.setdefault((row["family"], row["task"]), []).append({**row, "swept": swept})
    often: dict[tuple[str, str], float] = {}
    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for family, task in sorted(groups, key=lambda group: group[0] in cfg["controls"]):
        shared = chosen.get(cfg["controls"].get(family, ""), {}).get(task, {}).get("settings", {})
        points = [
            row for row in groups[family, task]
            if all(cfg["points"][row["arm"]].get(k, v) == v for k, v in shared.items())
        ]  # fmt: skip
        swept = cfg["points"][pick(medians(draws[task], points), cfg["tolerance"])["arm"]]
        often |= {(task, arm): n for arm, n in steadiness(draws[task], points, cfg["tolerance"]).items()}
        settings = {k: v for k, v in swept.items() if k != "learning_rate"}
        choice = {"learning_rate": swept["learning_rate"]} if "learning_rate" in swept else {}
        chosen.setdefault(family, {})[task] = choice | ({"settings": settings} if settings else {})
    head = (
        f"# Written by the study '{cfg['study']}'{f' and {also}' if (also := ', '.join(cfg['also'])) else ''}:\n"
        f"# per arm and task the swept point with the best median validation utility over draws (within\n"
        f"# {cfg['tolerance']:.0%} of it, and not on a cliff: the one with the most refusals). Do not edit; run\n"
        f"#   snakemake --config study={cfg['study']} -- chosen\n"
    )
    files.write_text(out, head + yaml.safe_dump(chosen, sort_keys=True))
    rows = [row for table in tables.values() for row in table]
    known = {(r["family"], r["task"]) for r in rows if (r["task"], r["arm"]) in often}
    shares = [
        {**r, "chosen": often.get((r["task"], r["arm"]), 0.0) if (r["family"], r["task"]) in known else ""}
        for r in rows
    ]
    write_csv(out.with_suffix(".csv"), shares if often else rows)


def _draws(path: Path, table: Sequence[dict[str, str]]) -> dict[str, list[Draw]]:
    """Task -> draws of one sweep: its replicates, each the mean of its seeds; of a table without draws.csv, itself."""
    beside = path.with_name("draws.csv")
    rows = read_csv(beside) if beside.exists() else [row | {"replicate": "0"} for row in table]
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if row.get("utility") and row.get(names.REFUSAL_RATE):
            values = float(row["utility"]), float(row[names.REFUSAL_RATE])
            found.setdefault((row["task"], row["replicate"]), {}).setdefault(row["arm"], []).append(values)
    out: dict[str, list[Draw]] = {}
    for (task, _), arms in found.items():
        means = {arm: np.mean(values, axis=0) for arm, values in arms.items()}
        out.setdefault(task, []).append({arm: (float(u), float(r)) for arm, (u, r) in means.items()})
    return out


def _sweep(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise DataError(
            f"{path} is not there, and the choice averages over it.", found="no table",
            expected="a finished sweep of that study", do=f"snakemake --config study={path.parent.name}",
        )  # fmt: skip
    rows = read_csv(path)
    if any(r["split"] != "validation" for r in rows):
        raise ValueError("settings may only be chosen on validation data")
    return rows
