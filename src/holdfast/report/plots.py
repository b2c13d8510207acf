"""Plots of one quantity each: outcomes, breakdowns, losses, spectra, changes of the weights, profiles of masks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from holdfast import names
from holdfast.compare import attacks as attacked
from holdfast.compare.components import PARTS
from holdfast.record import artifact
from holdfast.report.drawing import COLOURS, MARKERS, Row, looks, panel_row, percent, shared_legend, svg, value_of

LAYERS_NAMED = 16  # lines of a legend that is as high as its panel
MODULES_NAMED, BLOCKS_NAMED = 48, 10  # names under a heat map that do not lie upon each other
OUTCOME_COLOURS = {names.REFUSAL: "#009E73", names.COMPLIANCE: "#D55E00", names.OTHER: "#B8BEC6"}


def outcomes(by_task: dict[str, list[Row]]) -> str:
    """Stacked bars: what hazards get as an answer, per arm."""

    def draw() -> Figure:
        most = max((len(rows) for rows in by_task.values()), default=1)
        figure, axes = panel_row(len(by_task), 0.6 + 0.32 * most)
        for axis, (task, rows) in zip(axes, by_task.items(), strict=True):
            arms, left = [r["arm"] for r in rows][::-1], np.zeros(len(rows))
            for outcome, key in (
                (names.REFUSAL, names.REFUSAL_RATE),
                (names.COMPLIANCE, names.COMPLIANCE_RATE),
                (names.OTHER, names.OTHER_RATE),
            ):
                values = np.array([percent(r, key) for r in rows])[::-1]
                axis.barh(arms, values, left=left, color=OUTCOME_COLOURS[outcome], label=outcome)
                left += values
            axis.set(title=task, xlim=(0, 100), xlabel="hazards (%)")
            axis.grid(False)
        shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw)


def variances(rows: list[Row]) -> str:
    """How much refusals and utility of every arm differ when one thing is drawn anew: a mark per thing."""
    panels = ((names.REFUSAL_RATE, "refusals"), ("utility", "utility"))
    parts = [p for p in PARTS if any(r[f"sd_{p}"] for r in rows)]
    arms = list(dict.fromkeys(f"{r['task']} / {r['arm']}" for r in rows if r["arm"] not in names.ROLES))[::-1]

    def draw() -> Figure:
        figure, axes = panel_row(len(panels), 0.9 + 0.3 * len(arms))
        for axis, (rate, title) in zip(axes, panels, strict=True):
            for r in (r for r in rows if r["rate"] == rate and r["arm"] not in names.ROLES):
                y = arms.index(f"{r['task']} / {r['arm']}")
                axis.axhline(y, color="#E4E7EB", lw=0.6, zorder=0)
                for i, part in enumerate(parts):
                    look = {"color": COLOURS[1 + i], "marker": MARKERS[i], "ms": 6, "ls": "none",
                            "label": {"draw": "rows"}.get(part, part)}  # fmt: skip
                    axis.plot(percent(r, f"sd_{part}"), y + 0.1 * (len(parts) / 2 - i), **look)
            axis.set(title=title, xlabel="standard deviation (points)", ylim=(-0.7, len(arms) - 0.3))
            axis.set_yticks(range(len(arms)), labels=arms if axis is axes[0] else [""] * len(arms))
            axis.set_xlim(left=-0.5)
            axis.grid(axis="y", visible=False)
        shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw) if arms else ""


def breakdown(cells: list[Row], by: str, of: str = "") -> str:
    """Refusal rate by hazard category (`by_category`) or wrapper (`by_wrapper`): rows are task and arm, means.

    Args:
        of: a suite, for its categories alone, whose names begin with its own.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    mine = f"{of}: " if of else ""
    for cell in cells:
        label = f"{cell['task'] or 'all'} / {cell['arm']}"
        for category, rates in cell.get(by, {}).items():
            if category == of or category.startswith(mine):
                rate = rates[names.REFUSAL_RATE]
                sums.setdefault(label, {}).setdefault(category.removeprefix(mine), []).append(rate)
    columns = sorted({c for row in sums.values() for c in row})
    if not columns:
        return ""
    short = [c if len(c) < 13 else c.replace(" {request}", "").replace("{request} ", "… ")[:44] for c in columns]

    def draw() -> Figure:
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

    return svg(draw)


def losses(cells: dict[Path, Row]) -> str:
    """Training loss by step for the first seed of every arm (and the first replicate), one panel per task."""
    tasks = list(dict.fromkeys(c["task"] for c in cells.values() if c["task"]))
    first = min((c["seed"] for c in cells.values() if c["task"]), default=0)
    look = looks(c["family"] for c in cells.values() if c["task"])

    def draw() -> Figure:
        figure, axes = panel_row(len(tasks), 2.8)
        for axis, task in zip(axes, tasks, strict=False):
            for path, cell in cells.items():
                curve = path.with_name("train.jsonl")
                if (cell["task"], cell["seed"]) != (task, first) or cell.get("replicate") or not curve.exists():
                    continue
                lines = [json.loads(x) for x in curve.read_text(encoding="utf-8").splitlines()]
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
            shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw)


def spectrum(basis: Path) -> str:
    """Cumulative energy of the leading eigenvectors per layer input; of many layers, a colour per kind of input."""
    tensors, header = artifact.read(basis, family="basis", torch=False)
    known = {name: tensors[f"{name}.eigenvalues"] for name in header["layers"] if f"{name}.eigenvalues" in tensors}
    crowd = len(known) > LAYERS_NAMED
    kinds = list(dict.fromkeys(_kind(name) if crowd else name for name in known))

    def draw() -> Figure:
        figure, axis = plt.subplots(figsize=(5, 3))
        named = set()
        for name, values in known.items():
            kind = _kind(name) if crowd else name
            share = np.cumsum(values) / max(float(values.sum()), 1e-30)
            axis.plot(
                np.arange(1, len(share) + 1) / len(share) * 100,
                share * 100,
                lw=0.6 if crowd else 1,
                color=COLOURS[kinds.index(kind) % len(COLOURS)],
                label="" if kind in named else kind,
            )
            named.add(kind)
        axis.set(xlabel="leading directions (%)", ylabel="energy (%)", ylim=(0, 101))
        axis.legend(fontsize=7, ncols=1 if crowd else 2)
        return figure

    return svg(draw)


def _kind(layer: str) -> str:
    return f"{layer.rsplit('.', 1)[-1].replace('_', ' ')}, every block"


def changes(cells: dict[Path, list[Row]]) -> str:
    """Heat maps over arms and modules, per task: ‖ΔW‖ / ‖W‖, and the share of ‖ΔW‖² inside the safety subspace against
    what a change without preference would have there. Keys are the folders .../task/arm/seed of the cells."""
    by_task: dict[str, dict[str, list[Row]]] = {}
    for folder, rows in cells.items():
        by_task.setdefault(folder.parts[-3], {})[folder.parts[-2]] = rows

    def draw() -> Figure:
        most = max(len(arms) for arms in by_task.values())
        figure, axes = plt.subplots(
            2, len(by_task), figsize=(4.6 * len(by_task), 2 * (0.9 + 0.22 * most)), squeeze=False, sharex="row"
        )
        for column, (task, arms) in enumerate(by_task.items()):
            inside = [r for r in next(iter(arms.values())) if r["directions"]]
            for row, (key, kept) in enumerate((("relative_norm", None), ("inside", {_place(r) for r in inside}))):
                axis = axes[row][column]
                rows = [[r for r in cell if kept is None or _place(r) in kept] for cell in arms.values()]
                values = np.array([[value_of(r, key) for r in cell] for cell in rows])
                if row:
                    values = values / np.array([[value_of(r, "directions") for r in cell] for cell in rows])
                shown = np.log10(np.maximum(values, 1e-6)) if not row else values
                limits = (
                    {"vmin": 0, "vmax": 2, "cmap": "RdBu_r"} if row else {"vmin": -4, "vmax": 0.5, "cmap": "viridis"}
                )
                image = axis.imshow(shown, aspect="auto", interpolation="nearest", **limits)
                axis.grid(False)
                at, words = _ticks([_place(r) for r in rows[0]])
                axis.set_xticks(at, words, rotation=90, fontsize=5 if len(at) > BLOCKS_NAMED else 6)
                axis.set_yticks(range(len(arms)), list(arms), fontsize=6)
                title = "‖ΔW‖ / ‖W‖, log10" if not row else "inside the safety subspace, × chance"
                axis.set_title(f"{task}: {title}", fontsize=8)
                figure.colorbar(image, ax=axis, shrink=0.8)
        figure.tight_layout()
        return figure

    return svg(draw)


def _ticks(places: list[str]) -> tuple[list[int], list[str]]:
    """Where a heat map names its columns, and how: each where there is room, else the first of every so many blocks."""
    if len(places) <= MODULES_NAMED:
        return list(range(len(places))), [p.replace("_proj", "") for p in places]
    first: dict[str, int] = {}
    for i, place in enumerate(places):
        first.setdefault(place.split(".", 1)[0], i)
    kept = list(first.items())[:: -(-len(first) // BLOCKS_NAMED)]
    return [i for _, i in kept], [f"block {block}" for block, _ in kept]


def _place(row: Row) -> str:
    return f"{row['block']}.{row['module']}"


def profiles(masks: dict[str, list[Row]]) -> str:
    """The share of entries each mask freezes by direction of the basis, leading first, mean over layers."""

    def draw() -> Figure:
        figure, axis = plt.subplots(figsize=(5, 3))
        for i, (name, rows) in enumerate(masks.items()):
            by_layer: dict[str, list[Row]] = {}
            for r in rows:
                by_layer.setdefault(r["layer"], []).append(r)
            grid = np.linspace(0, 1, 101)[1:]
            lines = [
                np.interp(grid, [value_of(r, "directions") for r in layer], [value_of(r, "frozen") for r in layer])
                for layer in by_layer.values()
            ]
            axis.plot(100 * grid, 100 * np.mean(lines, axis=0), lw=1.2, color=COLOURS[i % len(COLOURS)], label=name)
        axis.set(xlabel="directions of the basis, leading first (%)", ylabel="entries frozen (%)", ylim=(0, 102))
        axis.legend(fontsize=6)
        return figure

    return svg(draw)


def attacks(trials: Mapping[tuple[str, str], Sequence[Sequence[Row]]]) -> str:
    """What is left of the refusals on validation prompts after so many trials of an attacker, one panel a task: of
    those that count the best so far, a line per defence, its mean over seeds and replicates from where all have one; a
    mark for every trial that counts."""
    tasks = list(dict.fromkeys(task for task, _ in trials))
    look = looks(arm for _, arm in trials)

    def draw() -> Figure:
        figure, axes = panel_row(len(tasks))
        for axis, task in zip(axes, tasks, strict=True):
            for arm in (arm for of, arm in trials if of == task):
                jobs, (colour, marker) = trials[task, arm], look[arm]
                left = [attacked.best_so_far(job, job[0]["needed_utility"]) for job in jobs]
                mean = [float("nan") if None in at else 100 * float(np.mean(at)) for at in zip(*left, strict=True)]
                axis.plot(range(1, len(mean) + 1), mean, color=colour, drawstyle="steps-post", lw=1.4, label=arm)
                points = [(t["trial"] + 1, 100 * t["refusal"]) for job in jobs for t in job if t["admissible"]]
                if points:
                    axis.plot(*zip(*points, strict=True), ls="none", marker=marker, ms=3, color=colour, alpha=0.4)
            start = np.mean(
                [100 * job[0]["aligned_refusal"] for (of, _), jobs in trials.items() if of == task for job in jobs]
            )
            for level, text in ((start, "aligned"), (start / 2, "half of it")):
                axis.axhline(level, color="#9AA5B1", lw=0.8, ls=":")
                axis.annotate(text, (1, level + 1), fontsize=7, color="#52606D")
            axis.set(title=task, xlabel="trials", ylim=(-3, 103))
        axes[0].set_ylabel("validation hazards refused (%)")
        shared_legend(figure, axes)
        figure.tight_layout()
        return figure

    return svg(draw)


def ranks(rows: list[Row]) -> str:
    """Mean ranks of families over tasks and replicates, or the seeds of a single one (ranks.csv), the best on top, with
    their intervals; a bar on the right joins what the critical difference does not tell apart. Nothing without rows."""
    if not rows:
        return ""
    found = [value_of(r, "rank") for r in rows]
    gap = value_of(rows[0], "critical_difference")
    look = looks(r["family"] for r in rows)

    def draw() -> Figure:
        figure, axis = plt.subplots(figsize=(6.2, 0.9 + 0.3 * len(rows)), layout="constrained")
        for y, row in enumerate(rows):
            bar = [[found[y] - value_of(row, "rank_low")], [value_of(row, "rank_high") - found[y]]]
            colour, marker = look[row["family"]]
            axis.errorbar(
                found[y], y, xerr=None if np.isnan(bar).any() else np.maximum(bar, 0), color=colour, marker=marker,
                ms=5, lw=1, capsize=2,
            )  # fmt: skip
        joined: list[tuple[int, int]] = []
        for first in range(len(rows)):
            last = max(i for i in range(len(rows)) if found[i] - found[first] <= gap)
            if last > first and not (joined and joined[-1][1] >= last):
                joined.append((first, last))
        for i, (first, last) in enumerate(joined):
            axis.plot([len(rows) + 0.6 + 0.35 * i] * 2, [first - 0.2, last + 0.2], color="#52606D", lw=3, clip_on=False)
        axis.set_yticks(range(len(rows)), [r["family"] for r in rows])
        axis.set(xlim=(0.8, len(rows) + 0.9 + 0.35 * len(joined)), ylim=(len(rows) - 0.5, -0.5))
        axis.set_xticks([t for t in axis.get_xticks() if 1 <= t <= len(rows)])
        units = "replicates" if rows[0]["replicates"] != "1" else "seeds"
        counts = [f"{rows[0][of]} {of if rows[0][of] != '1' else of[:-1]}" for of in ("tasks", units)]
        over = " and ".join(counts)
        axis.set_xlabel(f"mean rank over {over}; critical difference {gap:.1f}")
        return figure

    return svg(draw)
