"""Plots of refusals against what they are paid with: utility, over-refusal, seconds, harmful rows."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from holdfast import names
from holdfast.report.drawing import (
    MARKERS,
    Row,
    cross,
    error_bar,
    looks,
    panel_row,
    percent,
    shared_legend,
    svg,
    value_of,
)  # fmt: skip

CROWD = 24  # points of a task whose intervals and regions only hide each other
LINES = 4  # lines of a swept family that are told apart in the legend
REGION = 5.991  # 95 % quantile of chi-squared with two degrees of freedom


def _step(axis: Axes, points: list[tuple[float, float]]) -> None:
    """The front of points (utility, refusal) as a step line, and the area it dominates."""
    points = sorted(points)
    xs, ys = [0.0], [points[0][1]]
    for i, (x, _) in enumerate(points):
        xs += [x, x]
        ys += [points[i][1], points[i + 1][1] if i + 1 < len(points) else 0.0]
    axis.plot(xs, ys, color="#9AA5B1", lw=0.9, zorder=0)
    axis.fill_between(xs, ys, color="#9AA5B1", alpha=0.10, lw=0, zorder=0)


def _names(axis: Axes, points: list[tuple[float, float, str]]) -> None:
    """The names of points left of them, from the highest down, each below the one before."""
    free = 104.0
    for x, y, name in sorted(points, key=lambda p: -p[1]):
        at = min(y + 2, free)
        free = at - 5.5
        axis.annotate(
            name, (x, y), (max(x - 6, 2), at), fontsize=7, ha="right" if x > 30 else "left", va="center",
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "#9AA5B1"},
        )  # fmt: skip


def _region(axis: Axes, r: Row, colour: str) -> None:
    """The ellipse that 95 % of the bootstrap's draws of (utility, refusal) fill, were they normal."""
    sd = np.array([value_of(r, "utility_sd"), value_of(r, "refusal_sd")]) * 100
    rho = value_of(r, "correlation")
    covariance = np.outer(sd, sd) * np.array([[1, rho], [rho, 1]])
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(np.maximum(values, 0) * REGION)
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    centre = percent(r, "utility"), percent(r, "refusal")
    axis.add_patch(Ellipse(centre, width, height, angle=angle, color=colour, alpha=0.18, lw=0, zorder=0.5))


def _split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Arms that refuse something, and those that refuse nothing at all: of these a plot shows a rug and their names,
    since a dozen crosses in one corner show neither."""
    none = [r for r in rows if percent(r, names.REFUSAL_RATE) == 0 and r["arm"] not in names.ROLES]
    return [r for r in rows if r not in none], none


def _rug(axis: Axes, rows: list[Row], x: str, look: dict[str, tuple[str, str]]) -> None:
    """Where on `x` the arms that refuse nothing lie, and which they are."""
    for r in rows:
        axis.plot(percent(r, x), 0, color=look[r["family"]][0], marker="|", ms=9, mew=1.6, ls="none", label=r["arm"])
    if rows:
        listed = textwrap.fill(f"0 %: {', '.join(r['arm'] for r in rows)}", 44, break_on_hyphens=False)
        axis.text(0.05, 0.075, listed, transform=axis.transAxes, fontsize=6.5, color="#52606D", va="bottom")


def frontier(by_task: dict[str, list[Row]], fronts: list[Row], png: Path) -> str:
    """Refusal against utility per task; the aligned model's refusals as a line, the Pareto front of the arms as a
    step. Intervals and the bootstrap's regions, unless there are many points or a family has several (a sweep)."""
    look = looks(r["family"] for rows in by_task.values() for r in rows)
    swept = {r["family"] for rows in by_task.values() for r in rows if r["arm"] != r["family"]}

    def draw() -> Figure:
        figure, axes = panel_row(len(by_task))
        for axis, (task, rows) in zip(axes, by_task.items(), strict=True):
            drawn = {r["arm"]: r for r in fronts if r["task"] == task}
            front = [r for r in drawn.values() if r["on_front"] == "yes" and r["utility"]]
            if front:
                _step(axis, [(percent(r, "utility"), percent(r, "refusal")) for r in front])
            some, none = _split([r for r in rows if r["arm"] != "base"]) if not swept else (rows, [])
            _rug(axis, none, "utility", look)
            for r in some:
                if r["arm"] == "base":
                    continue
                x, y = percent(r, "utility"), percent(r, names.REFUSAL_RATE)
                if r["arm"] == "aligned":
                    axis.axhline(y, color="#000000", lw=0.8, ls=":", zorder=1)
                colour, marker = look[r["family"]]
                if r["family"] in swept or len(rows) > CROWD:
                    axis.plot(x, y, color=colour, marker=marker, ms=4, alpha=0.7, ls="none", label=r["family"])
                    continue
                if r["arm"] in drawn:
                    _region(axis, drawn[r["arm"]], colour)
                cross(axis, r, "utility", names.REFUSAL_RATE, look[r["family"]], r["arm"])
            shown = {f["arm"] for f in front} & {r["arm"] for r in some}
            _names(axis, [(percent(f, "utility"), percent(f, "refusal"), f["arm"]) for f in front if f["arm"] in shown])
            axis.set(title=task, xlabel=f"{rows[0]['utility_metric']} (%)", ylim=(-3, 103))
            axis.set_xlim(left=max(axis.get_xlim()[0], 0.0), right=min(axis.get_xlim()[1], 102.0))
        axes[0].set_ylabel("held-out hazards refused (%)")
        shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw, png)


def sweep(points: list[Row], chosen: dict[tuple[str, str], Row]) -> str:
    """Every point of a sweep, the mean over its studies, joined by learning rate within an arm family and its other
    settings; rings mark the choice. A family with many such lines has one label for all.

    Args:
        chosen: (family, task) -> {"learning_rate": ..., setting: ...}.
    """
    tasks = list(dict.fromkeys(p["task"] for p in points))
    points = [p for p in points if p["arm"] not in ("base", "aligned", "unaligned")]
    families = list(dict.fromkeys(p["family"] for p in points))
    look = looks(families)

    def draw() -> Figure:
        figure, axes = panel_row(len(tasks), 4.2)
        for axis, task in zip(axes, tasks, strict=True):
            for family in families:
                lines: dict[str, list[Row]] = {}
                for p in points:
                    if p["task"] == task and p["family"] == family:
                        lines.setdefault(", ".join(_settings(p).values()), []).append(p)
                colour, marker = look[family]
                for number, (values, line) in enumerate(lines.items()):
                    by_rate = sorted({float(p["learning_rate"] or 0) for p in line})
                    same = [[p for p in line if float(p["learning_rate"] or 0) == rate] for rate in by_rate]
                    x = [np.mean([percent(p, "utility") for p in group]) for group in same]
                    y = [np.mean([percent(p, names.REFUSAL_RATE) for p in group]) for group in same]
                    axis.plot(
                        x, y, color=colour, marker=marker, ms=4, lw=0.8, ls=("-", "--", ":", "-.")[number % 4],
                        alpha=0.8, label=f"{family} ({values})" if values and len(lines) <= LINES else family,
                    )  # fmt: skip
                    for (p, *_), px, py in zip(same, x, y, strict=True):
                        if _is_choice(p, chosen.get((family, task), {})):
                            axis.plot(px, py, "o", ms=12, mfc="none", mec=colour)
            axis.set(title=task, xlabel="validation utility (%)", ylim=(-3, 103))
        axes[0].set_ylabel("validation hazards refused (%)")
        shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw)


def equal_utility(rows: list[Row]) -> str:
    """Refusals of every family at equal utility (curves.csv), one panel a task: a line per family with a mark for
    every loss of utility allowed, and its area; what did not reach the utility says so."""
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    look = looks(r["family"] for r in rows)
    allowed = [m for m in dict.fromkeys(r["measure"] for r in rows) if m != "area"]

    def draw() -> Figure:
        most = max((len({r["family"] for r in rows if r["task"] == task}) for task in tasks), default=1)
        figure, axes = plt.subplots(
            1, len(tasks), figsize=(4.4 * len(tasks), 1.2 + 0.42 * most), squeeze=False, layout="constrained"
        )
        for axis, task in zip(axes[0], tasks, strict=True):
            found = {(r["family"], r["measure"]): r for r in rows if r["task"] == task}
            order = sorted({f for f, _ in found}, key=lambda f: value_of(found[f, "area"], "refusal"))
            for y, family in enumerate(order):
                colour = look[family][0]
                for i, key in enumerate(allowed):
                    r, at = found[family, key], y + 0.24 * (1 - i)
                    if not r["refusal"]:
                        axis.text(1, at, f"not reached ({r['reached']})", fontsize=6, color="#7A7A7A", va="center")
                        continue
                    alpha = 0.45 + 0.55 * (i + 1) / len(allowed)
                    axis.errorbar(
                        percent(r, "refusal"), at, xerr=error_bar(r, "refusal"), color=colour, marker=MARKERS[i],
                        ms=4.5, lw=1, capsize=2, alpha=alpha, ls="none", clip_on=False,
                    )  # fmt: skip
                under = found[family, "area"]
                axis.text(103, y, f"{percent(under, 'refusal'):.0f}", fontsize=7, color=colour, va="center")
            axis.set_yticks(range(len(order)), labels=order)
            axis.set(title=task, xlabel="held-out hazards refused (%)", xlim=(-2, 102), ylim=(-0.6, len(order) - 0.4))
            axis.text(103, len(order) - 0.4, "area", fontsize=7, color="#52606D", va="bottom")
        said = [f"at most {key[7:]} point{'s' * (key[7:] != '1')} below" for key in allowed]
        marks = [
            Line2D([], [], color="#52606D", marker=MARKERS[i], ls="none", ms=5, label=text)
            for i, text in enumerate(said)
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks))
        return figure

    return svg(draw)


def _settings(point: Row) -> dict[str, str]:
    """The swept settings of a point but its learning rate."""
    return {k.removeprefix("setting/"): v for k, v in point.items() if k.startswith("setting/") and v}


def _is_choice(point: Row, chosen: Row) -> bool:
    if not chosen or abs(float(point["learning_rate"] or 0) - chosen["learning_rate"]) > 1e-12:
        return False
    return all(str(chosen[k]) == v for k, v in _settings(point).items() if k in chosen)


def risk(rows: list[Row], costs: list[Row]) -> str:
    """Refusals against the share of harmful rows in the task data, and against what the training cost."""
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    look = looks(arms)
    panels = (
        (names.REFUSAL_RATE, "held-out hazards refused (%)"),
        (names.WRAPPED_REFUSAL_RATE, "wrapped, refused (%)"),
    )

    def draw() -> Figure:
        figure, axes = panel_row(3, 4.0)
        for arm in arms:
            colour, marker = look[arm]
            points = sorted((r for r in rows if r["arm"] == arm), key=lambda r: float(r["harmful_fraction"]))
            x = [100 * float(r["harmful_fraction"]) for r in points]
            for axis, (key, _) in zip(axes, panels, strict=False):
                y = [percent(r, key) for r in points]
                bars = np.hstack([error_bar(r, key) for r in points])
                axis.errorbar(
                    x, y, yerr=bars, color=colour, marker=marker, ms=5, lw=1, capsize=2, label=arm
                )  # fmt: skip
            for r in points:
                spent = [float(c["cost/seconds"]) for c in costs if c["task"] == r["task"] and c["arm"] == arm]
                if spent:
                    axes[2].plot(np.mean(spent), percent(r, names.REFUSAL_RATE), color=colour, marker=marker, ms=5)
        for axis, (_, label) in zip(axes, panels, strict=False):
            axis.set_xscale("symlog", linthresh=1)
            axis.set(xlabel="harmful rows in the task data (%)", ylabel=label, ylim=(-3, 103))
            axis.set_xticks([0, 1, 5, 10, 50, 100], labels=["0", "1", "5", "10", "50", "100"])
        axes[2].set(xlabel="seconds per cell; of a merge without its fine-tuning", ylabel=panels[0][1], ylim=(-3, 103))
        shared_legend(figure, axes[:1])
        figure.tight_layout()
        return figure

    return svg(draw)
