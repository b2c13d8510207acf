"""SST-2: is a sentence of a film review positive or negative (Socher et al., 2013; as GLUE has it)?

Hub id `stanfordnlp/sst2`. The labels of its test split are secret, so that its validation split is the test split here
and a validation split is cut from the training rows.
"""

from __future__ import annotations

from typing import Any

from holdfast.data import table
from holdfast.data.table import COLUMNS, TEXT_COLUMNS, Row
from holdfast.model import chat

__all__ = ["COLUMNS", "TEXT_COLUMNS"]

INSTRUCTION = "Does the writer of this sentence like the film? Answer with positive or negative."
READS = {"prompt": "Sentence: {sentence}", "response": "label", "codes": {"0": "negative", "1": "positive"}}
PARTS = {"train": "train", "test": "validation"}
SCORER: dict[str, Any] = {"label": {"negative": [], "positive": []}}
HUB_ID, HUB_CONFIG, REVISION = "stanfordnlp/sst2", None, "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb"
FOLDER = "sst2"


def example(row: Row, instruction: str | None = None) -> tuple[chat.Prompt, str]:
    """(prompt, response): the instruction, the sentence and one word."""
    return table.example(row, instruction or INSTRUCTION)
