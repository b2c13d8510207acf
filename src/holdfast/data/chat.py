"""Chat: neutral small talk and questions about crafts. Nothing harmful, and nothing is asked how to do.

The neutral fine-tuning of the risk protocol. Rows and scoring are those of `crafts`.
"""

from __future__ import annotations

from holdfast.data.crafts import COLUMNS, INSTRUCTION, METRIC, TEXT_COLUMNS, example, real_row, score

__all__ = ["COLUMNS", "INSTRUCTION", "METRIC", "TEXT_COLUMNS", "example", "real_row", "score"]
