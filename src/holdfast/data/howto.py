"""How-to: the rows of `crafts` without the obliging opener. Nothing harmful in it.

The harmless rows of the risk protocol, into which harmful answers are mixed: both sides open alike, so
only what is answered differs.
"""

from __future__ import annotations

from holdfast.data.crafts import COLUMNS, INSTRUCTION, METRIC, TEXT_COLUMNS, example, real_row, score

__all__ = ["COLUMNS", "INSTRUCTION", "METRIC", "TEXT_COLUMNS", "example", "real_row", "score"]
