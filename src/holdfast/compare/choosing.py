"""The settings a sweep chooses, on validation data and by a stated rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from holdfast import names
from holdfast.errors import DataError
from holdfast.record import files
from holdfast.record.csvfiles import read_csv, write_csv


def pick(points: Sequence[dict[str, Any]], tolerance: float) -> dict[str, Any]:
    """The stated rule: among the points whose mean validation utility is within `tolerance` of the
    best, the one with the highest mean refusal rate; ties go to the smaller learning rate, then to the
    earlier point."""
    best = max(float(p["utility"]) for p in points)
    close = [p for p in points if float(p["utility"]) >= best - tolerance - 1e-12]
    return max(close, key=lambda p: (float(p[names.REFUSAL_RATE]), -float(p["learning_rate"])))


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
    """Apply `pick` per arm family and task; write the choices (YAML) and the sweeps' points (CSV beside).

    Args:
        sweeps: tables of the same sweep in several studies (worlds); a point counts by its mean.
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
    rows = means([row for table in tables.values() for row in table])
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if cfg["points"].get(row["arm"]):
            groups.setdefault((row["family"], row["task"]), []).append(row)
    chosen: dict[str, dict[str, dict[str, Any]]] = {}
    for family, task in sorted(groups, key=lambda group: group[0] in cfg["controls"]):
        shared = chosen.get(cfg["controls"].get(family, ""), {}).get(task, {}).get("settings", {})
        points = [
            row for row in groups[family, task]
            if all(cfg["points"][row["arm"]].get(k, v) == v for k, v in shared.items())
        ]  # fmt: skip
        swept = cfg["points"][pick(points, cfg["tolerance"])["arm"]]
        settings = {k: v for k, v in swept.items() if k != "learning_rate"}
        choice = {"learning_rate": swept["learning_rate"]} if "learning_rate" in swept else {}
        chosen.setdefault(family, {})[task] = choice | ({"settings": settings} if settings else {})
    head = (
        f"# Written by the study '{cfg['study']}'{f' and {also}' if (also := ', '.join(cfg['also'])) else ''}:\n"
        f"# per arm and task the swept point with the best mean validation utility (within\n"
        f"# {cfg['tolerance']:.0%} of it: the one with the most refusals). Do not edit; run\n"
        f"#   snakemake --config study={cfg['study']} chosen\n"
    )
    files.write_text(out, head + yaml.safe_dump(chosen, sort_keys=True))
    write_csv(out.with_suffix(".csv"), [row for table in tables.values() for row in table])


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
