"""Preference pairs: (prompt, chosen, rejected) as token ids, and the log-probabilities DPO compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from holdfast.model import chat

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
    model: Callable[..., Any],
    pairs: Sequence[Pair],
    pad_id: int,
    batch_size: int,
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(chosen, rejected): sums of log-probabilities over response tokens, one per pair.

    Args:
        model: called with input_ids and attention_mask; returns an object with logits.
    """
    device = device or cast("PreTrainedModel", model).device
    sums: list[list[torch.Tensor]] = [[], []]
    for start in range(0, len(pairs), batch_size):
        chunk = pairs[start : start + batch_size]
        batch = chat.collate([p[0] for p in chunk] + [p[1] for p in chunk], pad_id)
        labels = batch.pop("labels").to(device)
        logits = model(**{k: v.to(device) for k, v in batch.items()}).logits[:, :-1].float()
        targets = labels[:, 1:]
        kept = targets != chat.IGNORE
        tokens = torch.log_softmax(logits, dim=-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
        total = (tokens * kept).sum(dim=1)
        sums[0].append(total[: len(chunk)])
        sums[1].append(total[len(chunk) :])
    return torch.cat(sums[0]), torch.cat(sums[1])
