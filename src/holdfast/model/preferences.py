"""Preference pairs: (prompt, chosen, rejected) as token ids, and the log-probabilities DPO compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from holdfast.model import chat, folders

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Pair = tuple[chat.Example, chat.Example]


def encode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, str]]) -> list[Pair]:
    """(chosen, rejected) of every row, encoded like any supervised example."""
    pairs = []
    for r in rows:
        sides = [{**r, "response": r[side]} for side in ("chosen", "rejected")]
        chosen, rejected = chat.encode_rows(tokenizer, sides)
        pairs.append((chosen, rejected))
    return pairs


def log_probabilities(
    model: PreTrainedModel, pairs: Sequence[Pair], pad_id: int, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(chosen, rejected): sums of log-probabilities over response tokens, one per pair; `batch_size` pairs at once."""
    sums: list[list[torch.Tensor]] = [[], []]
    for start in range(0, len(pairs), batch_size):
        chunk = pairs[start : start + batch_size]
        batch = chat.collate([p[0] for p in chunk] + [p[1] for p in chunk], pad_id)
        following = chat.following(batch.pop("labels")).to(model.device)
        asked = following != chat.IGNORE
        logits = folders.logits_at(model, {k: v.to(model.device) for k, v in batch.items()}, asked)
        tokens = torch.log_softmax(logits, dim=-1).gather(1, following[asked][:, None])[:, 0]
        total = torch.stack([t.sum() for t in torch.split(tokens, asked.sum(dim=1).tolist())])
        sums[0].append(total[: len(chunk)])
        sums[1].append(total[len(chunk) :])
    return torch.cat(sums[0]), torch.cat(sums[1])
