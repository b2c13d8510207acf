"""Activation capture: one streamed Gram matrix H Hᵀ per distinct layer input.

WSR-Tune, phase 1: H stacks the inputs of a module over all safety tokens, padding excluded. q, k and
v read one activation, gate and up another, so there are at most four matrices per block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from holdfast.model import chat, folders
from holdfast.model.layers import Layer, inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def capture(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    encoded: Sequence[chat.Example],
    *,
    batch_size: int,
    pad_id: int,
    tokens: str = "all",
    unit: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, torch.Tensor], int]:
    """({input name: (n, n) float32 Gram}, number of tokens summed).

    Sums run in float64 and are rounded once at the end; padding never enters. `tokens` names the
    positions: all, prompt, or response. With `unit` every input counts with length 1, whatever its own.
    """
    grams: dict[str, torch.Tensor] = {}
    keep: dict[str, torch.Tensor] = {}
    handles = []

    def hook(name: str) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        def add(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            h = args[0][keep["mask"]].float()
            if unit:
                h = torch.nn.functional.normalize(h, dim=-1)
            product = (h.T @ h).double()
            grams[name] = product if name not in grams else grams[name].add_(product)

        return add

    for name, readers in inputs(layers).items():
        handles.append(readers[0].module.register_forward_pre_hook(hook(name)))
    count, few = 0, folders.few_logits(model)
    model.eval()  # type: ignore[no-untyped-call]
    try:
        for start in range(0, len(encoded), batch_size):
            batch = chat.collate(encoded[start : start + batch_size], pad_id)
            batch = {k: v.to(model.device) for k, v in batch.items()}
            labels = batch.pop("labels")
            mask = batch["attention_mask"].bool()
            if tokens == "prompt":
                mask &= labels == chat.IGNORE
            elif tokens == "response":
                mask &= labels != chat.IGNORE
            keep["mask"] = mask
            count += int(mask.sum())
            model(**batch, use_cache=False, **few)
            say(f"captured {min(start + batch_size, len(encoded))}/{len(encoded)} rows")
    finally:
        for handle in handles:
            handle.remove()
    return {k: g.float() for k, g in grams.items()}, count
