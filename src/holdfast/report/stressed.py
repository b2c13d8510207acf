"""Defences against attacks in one picture: what every arm refuses after everything that was done to it, by those who
deploy it (stress.csv) and by an attacker who tunes (attack.csv)."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from holdfast import names
from holdfast.compare.stress import PLAIN
from holdfast.report.drawing import Row, percent, svg

TUNED = "an attacker\nwho tunes"


def gathered(stress: list[Row], attack: list[Row], table: list[Row]) -> list[Row]:
    """The cells of the picture: rows of stress.csv, and a column for the attacker; a defence that was only attacked
    has its rates as it was from the table."""
    there = {(r["task"], r["arm"]) for r in stress}
    attacked = {(r["task"], r["arm"]): r for r in attack}
    short = {"refusal": names.REFUSAL_RATE, "over_refusal": names.OVER_REFUSAL, "utility": "utility"}
    before = [
        {"task": r["task"], "arm": r["arm"], "stress": PLAIN}
        | {f"{k}{end}": r.get(f"{key}{end}") for k, key in short.items() for end in ("", "_low", "_high")}
        for r in table if (r["task"], r["arm"]) in attacked.keys() - there
    ]  # fmt: skip
    return [*stress, *before, *(r | {"stress": TUNED} for r in attack)]


def heat(rows: list[Row]) -> str:
    """A panel per task: rows arms, columns stresses; refusals as colour and digits with their interval, over-refusal
    and utility below. Nothing without rows."""
    if not rows:
        return ""
    tasks, stresses = (list(dict.fromkeys(r[key] for r in rows)) for key in ("task", "stress"))

    def draw() -> Figure:
        arms = {task: list(dict.fromkeys(r["arm"] for r in rows if r["task"] == task)) for task in tasks}
        height = sum(1.0 + 0.62 * len(of) for of in arms.values())
        figure, axes = plt.subplots(
            len(tasks), 1, figsize=(1.8 + 1.25 * len(stresses), height), squeeze=False, layout="constrained",
            height_ratios=[1 + len(of) for of in arms.values()],
        )  # fmt: skip
        for axis, task in zip(axes[:, 0], tasks, strict=True):
            found = {(r["arm"], r["stress"]): r for r in rows if r["task"] == task}
            shown = np.full((len(arms[task]), len(stresses)), np.nan)
            for y, arm in enumerate(arms[task]):
                for x, stress in enumerate(stresses):
                    if (row := found.get((arm, stress))) and not row.get("refusal"):
                        why = "no trial counts" if stress == TUNED else "not asked"
                        axis.text(x, y, why, ha="center", va="center", fontsize=6)
                    elif row:
                        shown[y, x] = percent(row, "refusal")
                        _write(axis, x, y, row)
            axis.imshow(shown, vmin=0, vmax=100, cmap="cividis", aspect="auto", alpha=0.85)
            axis.set_xticks(range(len(stresses)), stresses, fontsize=7)
            axis.set_yticks(range(len(arms[task])), arms[task])
            axis.xaxis.tick_top()
            axis.set_title(task, loc="left")
            axis.grid(False)
        return figure

    return svg(draw)


def _write(axis: Axes, x: int, y: int, row: Row) -> None:
    refused = percent(row, "refusal")
    colour = "#FFFFFF" if refused < 55 else "#000000"
    axis.text(x, y - 0.18, f"{refused:.0f}", ha="center", va="center", fontsize=10, color=colour)
    axis.text(
        x, y + 0.1, f"{percent(row, 'refusal_low'):.0f}–{percent(row, 'refusal_high'):.0f}", ha="center", va="center",
        fontsize=6, color=colour,
    )  # fmt: skip
    below = [f"over {percent(row, 'over_refusal'):.0f}"] if row.get("over_refusal") else []
    below += [f"utility {percent(row, 'utility'):.0f}"] if row.get("utility") else []
    axis.text(x, y + 0.32, ", ".join(below), ha="center", va="center", fontsize=5.5, color=colour)
