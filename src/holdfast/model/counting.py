"""How many tokens have prompts and rows, for the tokenizer in a model folder? Asked at planning, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.model import chat, template

Row = dict[str, Any]


class Tokens:
    """Counts of the conversations that `chat` encodes. What fits by its bytes alone is not encoded (a token is a byte
    at least) and counts as 0."""

    def __init__(self, folder: Path, system_prompt: str | None = None) -> None:
        self.tokenizer = template.tokenizer_of(folder)
        template.introduce(self.tokenizer, system_prompt)
        self.tokenizer.model_max_length = 1 << 30  # what is too long is counted here: no warning
        self.frame = len(chat.encode(self.tokenizer, "a", "b")["input_ids"])

    def prompts(self, texts: Sequence[str], room: int) -> list[int]:
        """Tokens of every prompt with its template, 0 where it has at most `room` in any case."""
        return [len(chat.encode_prompt(self.tokenizer, t)) if len(t.encode()) + self.frame > room else 0 for t in texts]

    def rows(self, rows: Sequence[Row], room: int) -> list[tuple[int, int]]:
        """(tokens of the prompt, of the whole) of every row of prompt and response, as `prompts`."""
        out = []
        for r in rows:
            count = (0, 0)
            if len(r["prompt"].encode()) + len(r["response"].encode()) + self.frame > room:
                labels = chat.encode(self.tokenizer, r["prompt"], r["response"])["labels"]
                count = (labels.count(chat.IGNORE), len(labels))
            out.append(count)
        return out
