"""What does to a model what deployment does: fewer bits, fewer weights, a share of another model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holdfast.model import layers
from holdfast.record import container

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """A weight (m, n) on 2^bits − 1 levels, symmetric around zero; of every row the largest entry is a level."""
    levels = 2 ** (bits - 1) - 1
    step = weight.abs().amax(dim=1, keepdim=True) / levels
    return torch.where(step > 0, (weight / step).round() * step, weight)


def pruned(weight: torch.Tensor, share: float) -> torch.Tensor:
    """A weight without the `share` of its entries that are smallest in magnitude."""
    count = round(share * weight.numel())
    if not count:
        return weight
    order = weight.abs().flatten().argsort(stable=True)
    out = weight.flatten().clone()
    out[order[:count]] = 0
    return out.view_as(weight)


@torch.no_grad()
def apply(model: PreTrainedModel, spec: Mapping[str, Any], base: Path | None = None) -> None:
    """Change the weights of a model in place as a stress says; one of how it is asked changes none.

    `bits` and `prune` are of the linear modules of all blocks; embeddings, norms and head stay. `base` mixes all
    weights, (1 − s) W + s W_base.

    Args:
        base: the base model's model.safetensors, where the stress mixes with it.
    """
    if "base" in spec:
        assert base is not None  # who asks for the mix names it
        other, share = container.Stored(base), spec["base"]
        for name, weight in model.named_parameters():  # a tied head once
            if name in other and weight.is_floating_point():
                weight.lerp_(other[name].to(weight), share)
        return
    for name, weight in model.named_parameters():
        if layers.of_weight(name) is None:
            continue
        if "bits" in spec:
            weight.copy_(rounded(weight, spec["bits"]))
        elif "prune" in spec:
            weight.copy_(pruned(weight, spec["prune"]))
