"""The hook of judges that are given plain text: their own published instruction with both texts in it."""

from __future__ import annotations

from holdfast.model import chat
from holdfast.study.registry import fill


def encode(tokenizer, template: str, request: str, reply: str) -> list[int]:
    return chat.encode_text(tokenizer, fill(template, request, reply))
