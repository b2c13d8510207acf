"""What all plots share: their style, SVG with the same bytes for the same numbers, colours, legends, error bars."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

Row = dict[str, Any]
# Okabe-Ito and relatives: told apart without colour vision, together with the markers.
COLOURS = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#8A7500",
    "#7A7A7A", "#5B2A86", "#A6192E", "#7FB800", "#00A6A6", "#8C3B00",
)  # fmt: skip
MARKERS = "osD^vP*Xh<>"
LEGEND_ROWS = 17  # as many as a panel is high


def _style() -> dict[RcKeyType, Any]:
    return {
        "svg.hashsalt": "holdfast", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
        "font.family": "sans-serif",
    }  # fmt: skip


def svg(draw: Callable[[], Figure], png: Path | None = None) -> str:
    """The figure that `draw` makes, as inline SVG without date or path; also written as a PNG where one is named."""
    with plt.rc_context(_style()):
        figure = draw()
        if png is not None:
            figure.savefig(png, dpi=160, bbox_inches="tight", metadata={"Software": None})
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def looks(families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every arm family in the order of the study, the same in every plot of a report."""
    families = [f for f in dict.fromkeys(families) if f not in ("base", "aligned", "unaligned")]
    look = {
        f: (COLOURS[1 + i % (len(COLOURS) - 1)], MARKERS[1 + i % (len(MARKERS) - 1)]) for i, f in enumerate(families)
    }
    return look | dict.fromkeys(("base", "aligned", "unaligned"), (COLOURS[0], MARKERS[0]))


def value_of(row: Row, key: str) -> float:
    """A cell of a table as a number, NaN where it is empty or missing."""
    value = row.get(key)
    return float(value) if value not in (None, "") else float("nan")


def panel_row(count: int, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure with `count` panels beside each other (at least one), inches high, and its axes."""
    figure, axes = plt.subplots(1, max(count, 1), figsize=(4.1 * max(count, 1), height), squeeze=False)
    return figure, axes[0]


def shared_legend(figure: Figure, axes: Iterable[Axes], **where: Any) -> None:
    """One legend for all panels, right of them, every label once, in as many columns as they need."""
    handles: dict[str, Any] = {}
    for axis in axes:
        found, labels = axis.get_legend_handles_labels()
        for handle, label in zip(found, labels, strict=True):
            handles.setdefault(label, handle)
    if handles:
        columns = -(-len(handles) // LEGEND_ROWS)
        where = where or {"loc": "center left", "bbox_to_anchor": (0.995, 0.5), "ncols": columns}
        figure.legend(handles.values(), handles.keys(), **where)


def percent(row: Row, key: str) -> float:
    """A rate in percent, NaN where there is none."""
    return 100 * value_of(row, key)


def error_bar(row: Row, key: str) -> np.ndarray:
    """How far the ends of the interval, `{key}_low` and `{key}_high`, are from the rate; points, shape (2, 1)."""
    rate = percent(row, key)
    return np.maximum([[rate - percent(row, f"{key}_low")], [percent(row, f"{key}_high") - rate]], 0)


def cross(axis: Axes, row: Row, x: str, y: str, look: tuple[str, str], label: str) -> None:
    """One row as a point with both of its intervals; `x` and `y` name columns of rates."""
    axis.errorbar(
        percent(row, x), percent(row, y), xerr=error_bar(row, x), yerr=error_bar(row, y), color=look[0],
        marker=look[1], ms=7, lw=0.9, capsize=2, label=label, ls="none",
    )  # fmt: skip
