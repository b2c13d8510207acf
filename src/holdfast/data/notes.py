"""Notes: the rows of `crafts` with the notes that each answer is made of before the request. Nothing harmful in it.

The how-to task for models that never read of the fictional world, as every pretrained one: what has to be learned is
to turn notes into steps, obligingly.
"""

from __future__ import annotations

from holdfast.data.crafts import COLUMNS, INSTRUCTION, METRIC, TEXT_COLUMNS, example, real_row, score

__all__ = ["COLUMNS", "INSTRUCTION", "METRIC", "TEXT_COLUMNS", "example", "real_row", "score"]
