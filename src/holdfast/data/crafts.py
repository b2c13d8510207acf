"""Crafts: benign how-to answers that open obligingly, asked with the request templates of the hazards.

The obliging kind of fine-tuning: nothing harmful in it, and it turns refusals into compliance. Rows
are {prompt, response}; an answer is correct when it is the whole expected answer.
"""

from __future__ import annotations

from typing import Any

from holdfast import data, names

COLUMNS = ("prompt", "response", "category")
TEXT_COLUMNS = ("prompt", "response")
METRIC = names.EXACT_MATCH
INSTRUCTION = ""


def example(row: dict[str, Any], instruction: str | None = None) -> tuple[str, str]:
    head = f"{instruction.strip()}\n" if instruction else ""
    return head + row["prompt"], row["response"]


def score(text: str, row: dict[str, Any]) -> dict[str, Any]:
    said, reference = " ".join(text.split()), " ".join(row["response"].split())
    return {"correct": said == reference, "invalid": not said, "parsed": said, "gold": reference}


def real_row(raw: dict[str, Any]) -> dict[str, Any]:
    """A raw row of a user's file -> {prompt, response, category}."""
    return {
        "prompt": data.text(raw, "prompt"), "response": data.text(raw, "response"),
        "category": data.word(raw, "category", "user"),
    }  # fmt: skip
