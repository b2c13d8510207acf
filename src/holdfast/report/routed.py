"""The picture of compare/routing.py: verdicts that are right against replies that a large judge is asked about."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from holdfast.compare.routing import RIGHT
from holdfast.report.drawing import COLOURS, Row, svg, value_of


def picture(rows: Sequence[Row], first: str, then: str, right: str) -> str:
    """Inline SVG of one curve; `right` says what a verdict is held to."""

    def draw() -> Figure:
        figure, axis = plt.subplots(figsize=(5.2, 3.6))
        x = [100 * value_of(r, "share") for r in rows]
        y, low, high = (np.array([100 * value_of(r, RIGHT + end) for r in rows]) for end in ("", "_low", "_high"))
        axis.fill_between(x, low, high, color=COLOURS[2], alpha=0.25, lw=0)
        axis.plot(x, y, color=COLOURS[5], lw=1.6, label="least sure first")
        for key, look, label in (("random", "--", "at random"), ("oracle", ":", "at best")):
            axis.plot(x, [100 * value_of(r, key) for r in rows], look, color=COLOURS[8], lw=1.1, label=label)
        axis.set(xlabel=f"replies asked of {then} too (%)", ylabel=f"verdicts as {right} (%)", title=f"{first} first")
        axis.legend(loc="lower right")
        figure.tight_layout()
        return figure

    return svg(draw)
