"""How does a low-rank update stand on a model while it is trained: put on, read, folded in? peft does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from peft import PeftMixedModel, PeftModel
    from transformers import PreTrainedModel

_PREFIX = "base_model.model."


def attach(
    model: PreTrainedModel, modules: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0
) -> PeftModel | PeftMixedModel:
    """Wrap a model with adapters B A, scaled by alpha / rank, on these kinds of modules; only they are trainable."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(
        model,
        LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # peft only divides it
            lora_dropout=dropout,
            target_modules=list(modules), bias="none", task_type="CAUSAL_LM",
        ),
    )  # fmt: skip


def factors(model: PeftModel) -> dict[str, torch.Tensor]:
    """`<module>.lora_A` (r, n) and `<module>.lora_B` (m, r) of every module, by its name in the plain model."""
    found = {k: v for k, v in model.named_parameters() if ".lora_" in k}
    return {k.removeprefix(_PREFIX).removesuffix(".default.weight"): v for k, v in found.items()}


def pairs(model: PeftModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name of the weight in the plain model, A (r, n), B (m, r)) of every module."""
    found = factors(model)
    for key, a in found.items():
        if key.endswith(".lora_A"):
            module = key.removesuffix(".lora_A")
            yield f"{module}.weight", a, found[f"{module}.lora_B"]


def folded(model: PeftModel) -> PreTrainedModel:
    """W + (alpha / rank) B A as a plain model."""
    return cast("PreTrainedModel", model.merge_and_unload(safe_merge=True))
