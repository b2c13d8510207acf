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

    def __init__(self, folder: Path, system_prompt: str | None = None, *, anyhow: bool = False) -> None:
        self.tokenizer = template.tokenizer_of(folder)
        template.introduce(self.tokenizer, system_prompt, anyhow=anyhow)
        self.tokenizer.model_max_length = 1 << 30  # what is too long is counted here: no warning
        self.frame = len(chat.encode(self.tokenizer, "a", "b")["input_ids"])

    def _most(self, prompt: chat.Prompt) -> int:
        """More tokens than a prompt and what the template writes around it have.

        Raises:
            ChatTemplateError: the template does not take the turns.
        """
        turns = chat.turns(prompt)
        if len(turns) > 1:
            template.check_turns(self.tokenizer, [t["role"] for t in turns])
        return sum(len(t["content"].encode()) for t in turns) + self.frame * len(turns)

    def prompts(self, prompts: Sequence[chat.Prompt], room: int) -> list[int]:
        """Tokens of every prompt with its template, 0 where it has at most `room` in any case."""
        return [len(chat.encode_prompt(self.tokenizer, p)) if self._most(p) > room else 0 for p in prompts]

    def rows(self, rows: Sequence[Row], room: int) -> list[tuple[int, int]]:
        """(tokens of the prompt, of the whole) of every row of prompt and response, as `prompts`."""
        out = []
        for r in rows:
            count = (0, 0)
            if self._most(r["prompt"]) + len(r["response"].encode()) > room:
                labels = chat.encode(self.tokenizer, r["prompt"], r["response"])["labels"]
                count = (labels.count(chat.IGNORE), len(labels))
            out.append(count)
        return out
