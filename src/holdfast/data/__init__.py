"""Where do rows come from, how do they become prompts, how is an answer scored? One file per dataset.

A dataset module has
    COLUMNS            the columns of its table beside id and split
    METRIC             the name of its utility metric
    example(row, instruction) -> (prompt, response)
    score(text, row)   -> {"correct", "invalid", "parsed", "gold", ...}
    real_row(raw)      -> the columns of one raw row of the real dataset
"""

from __future__ import annotations

import importlib
from types import ModuleType


def dataset(name: str) -> ModuleType:
    """The module of one dataset by name (`agnews`, `gsm8k`, `crafts`, `chat`)."""
    return importlib.import_module(f"holdfast.data.{name}")
