r"""MATH: competition problems with worked solutions whose answer stands in \boxed{...} (Hendrycks et al., 2021).

Hub id `EleutherAI/hendrycks_math`, all seven subjects. It has no validation split: one is cut from the training rows.
"""

from __future__ import annotations

from holdfast.data import table
from holdfast.data.table import COLUMNS, TEXT_COLUMNS, Row
from holdfast.model import chat

__all__ = ["COLUMNS", "TEXT_COLUMNS"]

INSTRUCTION = "Solve the problem step by step and put the final answer into \\boxed{}."
READS = {"prompt": "{problem}", "response": "solution"}
SCORER = {"boxed": True}
HUB_ID, REVISION = "EleutherAI/hendrycks_math", "21a5633873b6a120296cce3e2df9d5550074f4a3"
HUB_CONFIG = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
FOLDER = "math"


def example(row: Row, instruction: str | None = None) -> tuple[chat.Prompt, str]:
    """(prompt, response): the instruction, the problem and its solution."""
    return table.example(row, instruction or INSTRUCTION)
