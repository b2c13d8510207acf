"""Plots as inline SVG (and one PNG), the same bytes for the same numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.patches import Ellipse  # noqa: E402

from holdfast import artifact, names  # noqa: E402

Row = dict[str, Any]
# Okabe-Ito and relatives: told apart without colour vision, together with the markers.
COLOURS = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8A7500",
    "#7A7A7A", "#5B2A86", "#A6192E", "#7FB800", "#00A6A6", "#8C3B00",
)  # fmt: skip
MARKERS = "osD^vP*Xh<>"
LINES = 4  # lines of a swept family that are told apart in the legend
OUTCOME_COLOURS = {names.REFUSAL: "#009E73", names.COMPLIANCE: "#D55E00", names.OTHER: "#B8BEC6"}


def _style() -> dict[str, Any]:
    return {
        "svg.hashsalt": "holdfast", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
        "font.family": "sans-serif",
    }  # fmt: skip


def _svg(draw: Callable[[], Any], png: Path | None = None) -> str:
    with plt.rc_context(_style()):
        figure = draw()
        if png is not None:
            figure.savefig(png, dpi=160, bbox_inches="tight", metadata={"Software": None})
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _look(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every arm family in the order of the study, the same in every plot of a report."""
    families = [f for f in dict.fromkeys(families) if f not in ("base", "aligned", "unaligned")]
    look = {
        f: (COLOURS[1 + i % (len(COLOURS) - 1)], MARKERS[1 + i % (len(MARKERS) - 1)]) for i, f in enumerate(families)
    }
    return look | dict.fromkeys(("base", "aligned", "unaligned"), (COLOURS[0], MARKERS[0]))


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if value not in (None, "") else float("nan")


def _panels(count: int, height: float = 3.6):
    figure, axes = plt.subplots(1, max(count, 1), figsize=(4.1 * max(count, 1), height), squeeze=False)
    return figure, axes[0]


def _legend(figure, axes) -> None:
    """One legend for all panels, right of them, every label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        found, labels = axis.get_legend_handles_labels()
        for handle, label in zip(found, labels, strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(0.995, 0.5))


def _step(axis, points: list[tuple[float, float]]) -> None:
    """The front of points (utility, refusal) as a step line, and the area it dominates."""
    points = sorted(points)
    xs, ys = [0.0], [points[0][1]]
    for i, (x, _) in enumerate(points):
        xs += [x, x]
        ys += [points[i][1], points[i + 1][1] if i + 1 < len(points) else 0.0]
    axis.plot(xs, ys, color="#9AA5B1", lw=0.9, zorder=0)
    axis.fill_between(xs, ys, color="#9AA5B1", alpha=0.10, lw=0, zorder=0)


REGION = 5.991  # 95 % quantile of chi-squared with two degrees of freedom


def _region(axis, r: Row, colour: str) -> None:
    """The ellipse that 95 % of the bootstrap's draws of (utility, refusal) fill, were they normal."""
    sd = np.array([_number(r, "utility_sd"), _number(r, "refusal_sd")]) * 100
    rho = _number(r, "correlation")
    covariance = np.outer(sd, sd) * np.array([[1, rho], [rho, 1]])
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(np.maximum(values, 0) * REGION)
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    centre = 100 * _number(r, "utility"), 100 * _number(r, "refusal")
    axis.add_patch(Ellipse(centre, width, height, angle=angle, color=colour, alpha=0.18, lw=0, zorder=0.5))


def frontier(by_task: dict[str, list[Row]], fronts: list[Row], png: Path) -> str:
    """Refusal against utility per task; the aligned model's refusals as a line, the Pareto front of the arms as a
    step. Intervals and the bootstrap's regions, unless a family has several points (a sweep)."""
    look = _look(r["family"] for rows in by_task.values() for r in rows)
    swept = {r["family"] for rows in by_task.values() for r in rows if r["arm"] != r["family"]}

    def draw():
        figure, axes = _panels(len(by_task))
        for axis, (task, rows) in zip(axes, by_task.items(), strict=True):
            drawn = {r["arm"]: r for r in fronts if r["task"] == task}
            front = [r for r in drawn.values() if r["on_front"] == "yes" and r["utility"]]
            if front:
                _step(axis, [(100 * _number(r, "utility"), 100 * _number(r, "refusal")) for r in front])
            for r in rows:
                if r["arm"] == "base":
                    continue
                x, y = 100 * _number(r, "utility"), 100 * _number(r, names.REFUSAL_RATE)
                if r["arm"] == "aligned":
                    axis.axhline(y, color="#000000", lw=0.8, ls=":", zorder=1)
                low = [x - 100 * _number(r, "utility_low"), 100 * _number(r, "utility_high") - x]
                side = [
                    y - 100 * _number(r, f"{names.REFUSAL_RATE}_low"),
                    100 * _number(r, f"{names.REFUSAL_RATE}_high") - y,
                ]
                colour, marker = look[r["family"]]
                if r["family"] in swept:
                    axis.plot(x, y, color=colour, marker=marker, ms=4, alpha=0.7, ls="none", label=r["family"])
                    continue
                if r["arm"] in drawn:
                    _region(axis, drawn[r["arm"]], colour)
                axis.errorbar(
                    x, y, xerr=np.maximum([[low[0]], [low[1]]], 0), yerr=np.maximum([[side[0]], [side[1]]], 0),
                    color=colour, marker=marker, ms=7, lw=0.9, capsize=2, label=r["arm"], ls="none",
                )  # fmt: skip
            axis.set(title=task, xlabel=f"{rows[0]['utility_metric']} (%)", ylim=(-3, 103))
        axes[0].set_ylabel("held-out hazards refused (%)")
        _legend(figure, axes)
        figure.tight_layout()
        return figure

    return _svg(draw, png)


def prices(by_task: dict[str, list[Row]], costs: list[Row]) -> str:
    """What refusals are paid with, per task: above, refusal against over-refusal; below, against seconds of a cell,
    with utility as the colour and peak memory as the area of a point."""
    look = _look(r["family"] for rows in by_task.values() for r in rows)
    spent: dict[tuple[str, str], list[Row]] = {}
    for c in costs:
        spent.setdefault((c["task"], c["arm"]), []).append(c)
    memory = {k: np.mean([_number(c, names.PEAK_MEMORY) for c in cells]) for k, cells in spent.items()}
    most = max(memory.values(), default=1.0)

    def draw():
        figure, axes = plt.subplots(
            2, len(by_task), figsize=(4.1 * len(by_task), 7), squeeze=False, layout="constrained"
        )
        shown = None
        for column, (task, rows) in enumerate(by_task.items()):
            above, below = axes[:, column]
            for r in rows:
                if r["arm"] == "base":
                    continue
                colour, marker = look[r["family"]]
                x, y = 100 * _number(r, names.OVER_REFUSAL), 100 * _number(r, names.REFUSAL_RATE)
                ends = [
                    [[abs(v - 100 * _number(r, f"{key}_{end}"))] for end in ("low", "high")]
                    for v, key in ((x, names.OVER_REFUSAL), (y, names.REFUSAL_RATE))
                ]
                above.errorbar(
                    x, y, xerr=ends[0], yerr=ends[1], color=colour, marker=marker, ms=7, lw=0.9, capsize=2,
                    label=r["family"], ls="none",
                )  # fmt: skip
                if (task, r["arm"]) in spent:
                    seconds = np.mean([_number(c, names.SECONDS) for c in spent[task, r["arm"]]])
                    shown = below.scatter(
                        max(seconds, 0.1), y, c=[100 * _number(r, "utility")], vmin=0, vmax=100, cmap="viridis",
                        s=30 + 150 * memory[task, r["arm"]] / most, marker=marker, edgecolors=colour, linewidths=1.5,
                    )  # fmt: skip
            above.set(title=task, xlabel="harmless requests refused (%)", xlim=(-3, 103), ylim=(-3, 103))
            below.set(xlabel="seconds of a cell", xscale="log", ylim=(-3, 103))
        for row in axes:
            row[0].set_ylabel("held-out hazards refused (%)")
        if shown is not None:
            figure.colorbar(shown, ax=axes[1].tolist(), label="utility (%)", shrink=0.8, location="bottom", aspect=60)
        handles: dict[str, Any] = {}
        for axis in axes[0]:
            handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside right center")
        return figure

    return _svg(draw)


def outcomes(by_task: dict[str, list[Row]]) -> str:
    """Stacked bars: what hazards get as an answer, per arm."""

    def draw():
        most = max((len(rows) for rows in by_task.values()), default=1)
        figure, axes = _panels(len(by_task), 0.6 + 0.32 * most)
        for axis, (task, rows) in zip(axes, by_task.items(), strict=True):
            arms, left = [r["arm"] for r in rows][::-1], np.zeros(len(rows))
            for outcome, key in (
                (names.REFUSAL, names.REFUSAL_RATE),
                (names.COMPLIANCE, names.COMPLIANCE_RATE),
                (names.OTHER, names.OTHER_RATE),
            ):
                values = np.array([100 * _number(r, key) for r in rows])[::-1]
                axis.barh(arms, values, left=left, color=OUTCOME_COLOURS[outcome], label=outcome)
                left += values
            axis.set(title=task, xlim=(0, 100), xlabel="hazards (%)")
            axis.grid(False)
        _legend(figure, axes)
        figure.tight_layout()
        return figure

    return _svg(draw)


def breakdown(cells: list[Row], by: str) -> str:
    """Refusal rate by hazard category (`by_category`) or wrapper (`by_wrapper`): rows are task/arm, mean over seeds."""
    sums: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        label = f"{cell['task'] or 'all'} / {cell['arm']}"
        for category, rates in cell.get(by, {}).items():
            sums.setdefault(label, {}).setdefault(category, []).append(rates[names.REFUSAL_RATE])
    columns = sorted({c for row in sums.values() for c in row})
    if not columns:
        return ""
    short = [c if len(c) < 13 else c.replace(" {request}", "").replace("{request} ", "… ")[:44] for c in columns]

    def draw():
        grid = np.array([[100 * np.mean(row.get(c, [np.nan])) for c in columns] for row in sums.values()])
        figure, axis = plt.subplots(figsize=(1.6 + 0.8 * len(columns), 0.8 + 0.24 * len(sums)))
        axis.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=100)
        long = max(map(len, short)) > 12
        axis.set_xticks(range(len(columns)), short, rotation=30 if long else 0, ha="right" if long else "center")
        axis.set_yticks(range(len(sums)), list(sums))
        axis.grid(False)
        for (i, j), value in np.ndenumerate(grid):
            axis.text(
                j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color="white" if value < 60 else "black"
            )
        return figure

    return _svg(draw)


def losses(cells: dict[Path, Row]) -> str:
    """Training loss by step for the first seed of every arm, one panel per task."""
    tasks = list(dict.fromkeys(c["task"] for c in cells.values() if c["task"]))
    first = min((c["seed"] for c in cells.values() if c["task"]), default=0)
    look = _look(c["family"] for c in cells.values() if c["task"])

    def draw():
        figure, axes = _panels(len(tasks), 2.8)
        for axis, task in zip(axes, tasks, strict=False):
            for path, cell in cells.items():
                curve = path.with_name("train.jsonl")
                if cell["task"] != task or cell["seed"] != first or not curve.exists():
                    continue
                lines = [json.loads(x) for x in curve.read_text().splitlines()]
                axis.plot(
                    [x["step"] for x in lines],
                    [x["loss"] for x in lines],
                    lw=1,
                    color=look[cell["family"]][0],
                    label=cell["family"],
                )
            axis.set(title=task, xlabel="optimizer step", yscale="log")
        axes[0].set_ylabel("loss per token")
        if tasks:
            _legend(figure, axes)
        figure.tight_layout()
        return figure

    return _svg(draw)


def spectrum(basis: Path) -> str:
    """Cumulative energy of the leading eigenvectors per layer input."""
    tensors, header = artifact.read(basis, family="basis", torch=False)

    def draw():
        figure, axis = plt.subplots(figsize=(5, 3))
        for i, name in enumerate(header["layers"]):
            values = tensors.get(f"{name}.eigenvalues")
            if values is None:
                continue
            share = np.cumsum(values) / max(float(values.sum()), 1e-30)
            axis.plot(
                np.arange(1, len(share) + 1) / len(share) * 100,
                share * 100,
                lw=1,
                color=COLOURS[i % len(COLOURS)],
                label=name,
            )
        axis.set(xlabel="leading directions (%)", ylabel="energy (%)", ylim=(0, 101))
        axis.legend(fontsize=7, ncols=2)
        return figure

    return _svg(draw)


def changes(cells: dict[Path, list[Row]]) -> str:
    """Heat maps over arms and modules, per task: ‖ΔW‖ / ‖W‖, and the share of ‖ΔW‖² inside the safety subspace against
    what a change without preference would have there. Keys are the folders .../task/arm/seed of the cells."""
    by_task: dict[str, dict[str, list[Row]]] = {}
    for folder, rows in cells.items():
        by_task.setdefault(folder.parts[-3], {})[folder.parts[-2]] = rows

    def draw():
        most = max(len(arms) for arms in by_task.values())
        figure, axes = plt.subplots(
            2, len(by_task), figsize=(4.6 * len(by_task), 2 * (0.9 + 0.22 * most)), squeeze=False, sharex="row"
        )
        for column, (task, arms) in enumerate(by_task.items()):
            inside = [r for r in next(iter(arms.values())) if r["directions"]]
            for row, (key, kept) in enumerate((("relative_norm", None), ("inside", {_place(r) for r in inside}))):
                axis = axes[row][column]
                rows = [[r for r in cell if kept is None or _place(r) in kept] for cell in arms.values()]
                values = np.array([[_number(r, key) for r in cell] for cell in rows])
                if row:
                    values = values / np.array([[_number(r, "directions") for r in cell] for cell in rows])
                shown = np.log10(np.maximum(values, 1e-6)) if not row else values
                limits = (
                    {"vmin": 0, "vmax": 2, "cmap": "RdBu_r"} if row else {"vmin": -4, "vmax": 0.5, "cmap": "viridis"}
                )
                image = axis.imshow(shown, aspect="auto", interpolation="nearest", **limits)
                axis.grid(False)
                places = [_place(r) for r in rows[0]]
                axis.set_xticks(range(len(places)), [p.replace("_proj", "") for p in places], rotation=90, fontsize=5)
                axis.set_yticks(range(len(arms)), list(arms), fontsize=6)
                title = "‖ΔW‖ / ‖W‖, log10" if not row else "inside the safety subspace, × chance"
                axis.set_title(f"{task}: {title}", fontsize=8)
                figure.colorbar(image, ax=axis, shrink=0.8)
        figure.tight_layout()
        return figure

    return _svg(draw)


def _place(row: Row) -> str:
    return f"{row['block']}.{row['module']}"


def profiles(masks: dict[str, list[Row]]) -> str:
    """The share of entries each mask freezes by direction of the basis, leading first, mean over layers."""

    def draw():
        figure, axis = plt.subplots(figsize=(5, 3))
        for i, (name, rows) in enumerate(masks.items()):
            by_layer: dict[str, list[Row]] = {}
            for r in rows:
                by_layer.setdefault(r["layer"], []).append(r)
            grid = np.linspace(0, 1, 101)[1:]
            lines = [
                np.interp(grid, [_number(r, "directions") for r in layer], [_number(r, "frozen") for r in layer])
                for layer in by_layer.values()
            ]
            axis.plot(100 * grid, 100 * np.mean(lines, axis=0), lw=1.2, color=COLOURS[i % len(COLOURS)], label=name)
        axis.set(xlabel="directions of the basis, leading first (%)", ylabel="entries frozen (%)", ylim=(0, 102))
        axis.legend(fontsize=6)
        return figure

    return _svg(draw)


def sweep(points: list[Row], chosen: dict[tuple[str, str], Row]) -> str:
    """Every point of a sweep, the mean over its studies, joined by learning rate within an arm family and its other
    settings; rings mark the choice. A family with many such lines has one label for all.

    Args:
        chosen: (family, task) -> {"learning_rate": ..., setting: ...}.
    """
    tasks = list(dict.fromkeys(p["task"] for p in points))
    points = [p for p in points if p["arm"] not in ("base", "aligned", "unaligned")]
    families = list(dict.fromkeys(p["family"] for p in points))
    look = _look(families)

    def draw():
        figure, axes = _panels(len(tasks), 4.2)
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
                    x = [100 * np.mean([_number(p, "utility") for p in group]) for group in same]
                    y = [100 * np.mean([_number(p, names.REFUSAL_RATE) for p in group]) for group in same]
                    axis.plot(
                        x, y, color=colour, marker=marker, ms=4, lw=0.8, ls=("-", "--", ":", "-.")[number % 4],
                        alpha=0.8, label=f"{family} ({values})" if values and len(lines) <= LINES else family,
                    )  # fmt: skip
                    for (p, *_), px, py in zip(same, x, y, strict=True):
                        if _is_choice(p, chosen.get((family, task), {})):
                            axis.plot(px, py, "o", ms=12, mfc="none", mec=colour)
            axis.set(title=task, xlabel="validation utility (%)", ylim=(-3, 103))
        axes[0].set_ylabel("validation hazards refused (%)")
        _legend(figure, axes)
        figure.tight_layout()
        return figure

    return _svg(draw)


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
    look = _look(arms)
    panels = (
        (names.REFUSAL_RATE, "held-out hazards refused (%)"),
        (names.WRAPPED_REFUSAL_RATE, "wrapped, refused (%)"),
    )

    def draw():
        figure, axes = _panels(3, 4.0)
        for arm in arms:
            colour, marker = look[arm]
            points = sorted((r for r in rows if r["arm"] == arm), key=lambda r: float(r["harmful_fraction"]))
            x = [100 * float(r["harmful_fraction"]) for r in points]
            for axis, (key, _) in zip(axes, panels, strict=False):
                y = np.array([100 * _number(r, key) for r in points])
                low = y - [100 * _number(r, f"{key}_low") for r in points]
                high = [100 * _number(r, f"{key}_high") for r in points] - y
                axis.errorbar(
                    x, y, yerr=np.maximum([low, high], 0), color=colour, marker=marker, ms=5, lw=1, capsize=2, label=arm
                )  # fmt: skip
            for r in points:
                spent = [float(c["cost/seconds"]) for c in costs if c["task"] == r["task"] and c["arm"] == arm]
                if spent:
                    axes[2].plot(
                        np.mean(spent), 100 * _number(r, names.REFUSAL_RATE), color=colour, marker=marker, ms=5
                    )
        for axis, (_, label) in zip(axes, panels, strict=False):
            axis.set_xscale("symlog", linthresh=1)
            axis.set(xlabel="harmful rows in the task data (%)", ylabel=label, ylim=(-3, 103))
            axis.set_xticks([0, 1, 5, 10, 50, 100], labels=["0", "1", "5", "10", "50", "100"])
        axes[2].set(xlabel="seconds per cell; of a merge without its fine-tuning", ylabel=panels[0][1], ylim=(-3, 103))
        _legend(figure, axes[:1])
        figure.tight_layout()
        return figure

    return _svg(draw)
