"""Weights in NF4 under a LoRA adapter (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), through bitsandbytes.

Merging never goes back into four bits: W' = dequantised(W) + (α / r) B A, in float32. What a QLoRA
cell saves is therefore an ordinary model, and its weights differ from the start by the rounding of
NF4 as well as by the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from holdfast.model import layers as layering

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def _replace(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def quantize(model: PreTrainedModel, modules: Sequence[str]) -> None:
    """Put the named linear modules into NF4 (blocks of 64, double quantisation), in place.

    The products run in the dtype the weights had.
    """
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for layer in layering.resolve(model, modules):
        linear = layer.module
        small = Linear4bit(  # type: ignore[no-untyped-call, unused-ignore]  # where there is no bitsandbytes
            linear.in_features, linear.out_features, bias=linear.bias is not None, compute_dtype=linear.weight.dtype,
            compress_statistics=True, quant_type="nf4",
        )  # fmt: skip
        small.weight = Params4bit(
            linear.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=small
        )
        if linear.bias is not None:
            small.bias = linear.bias
        _replace(model, layer.name, small.to(linear.weight.device))  # moving is what quantises
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # peft looks for this mark


def dequantized(module: Any) -> torch.Tensor:
    """The float32 weight (m, n) that an NF4 module stands for.

    Raises:
        RuntimeError: bitsandbytes has repacked the weight for inference on this CPU, which it does at the
            first forward pass outside training; the four-bit layout is then another one.
    """
    from bitsandbytes.functional import dequantize_4bit

    if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
        raise RuntimeError("an NF4 weight was used for inference before it was merged")
    return dequantize_4bit(module.weight.data, module.weight.quant_state).float()


def merge(adapted: PeftModel) -> PreTrainedModel:
    """The plain model of a peft model over NF4 modules, adapters added in float32."""
    weights = {}
    for name, module in adapted.get_base_model().named_modules():
        if hasattr(module, "get_delta_weight"):
            weights[name] = dequantized(module.get_base_layer()) + module.get_delta_weight("default").float()
    model: PreTrainedModel = adapted.unload()
    for name, weight in weights.items():
        small = model.get_submodule(name)
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=small.bias is not None, device=weight.device)
        linear.weight = torch.nn.Parameter(weight.detach().contiguous())
        if small.bias is not None:
            linear.bias = cast("torch.nn.Parameter", small.bias)
        _replace(model, name, linear)
    del model.is_loaded_in_4bit
    return model
