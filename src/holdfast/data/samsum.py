"""SAMSum: what was a chat of a few people about (Gliwa et al., 2019)? Scored by ROUGE-L against the summary.

Files with the columns dialogue and summary: train, validation and test of the corpus, or summaries of your own.
"""

from __future__ import annotations

from holdfast.data import table
from holdfast.data.table import COLUMNS, TEXT_COLUMNS, Row
from holdfast.model import chat

__all__ = ["COLUMNS", "TEXT_COLUMNS"]

INSTRUCTION = "Say in a sentence or two what this chat is about."
READS = {"prompt": "{dialogue}", "response": "summary"}
SCORER = {"rouge": {"variant": "rougeL"}}


def example(row: Row, instruction: str | None = None) -> tuple[chat.Prompt, str]:
    """(prompt, response): the instruction, the chat and its summary."""
    return table.example(row, instruction or INSTRUCTION)
