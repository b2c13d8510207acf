"""The hook of judges that are given plain text: their own published instruction with both texts in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.model import chat
from holdfast.study.registry import fill

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, template: str, request: str, reply: str) -> list[int]:
    return chat.encode_text(tokenizer, fill(template, request, reply))
