"""LoRA (Hu et al. 2021, arXiv 2106.09685) on all seven linear modules, merged after training.

Formula: W' = W + (α / r) B A with A (r, n), B (m, r) = 0 at the start.

The adapter protocol of "LoRA Fine-tuning Efficiently Undoes Safety Training" (arXiv 2310.20624)
uses it to measure how cheaply refusals are lost; here it is the ordinary low-rank arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.checked import Modules
from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch
    from peft import PeftMixedModel, PeftModel
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer

KIND = "train"
NEEDS = ("aligned",)
LEARNING_RATE = 2e-3
CARD = {
    "paper": "Hu et al. 2021, arXiv 2106.09685; as a risk protocol: Lermen et al. 2023, arXiv 2310.20624; "
    "NF4: Dettmers et al. 2023, arXiv 2305.14314",
    "fidelity": "faithful",
    "equations": (
        (
            "trainable = Σ r (m + n)",
            "attach",
            "methods/test_methods.py::test_lora_counts_its_parameters_and_merges_exactly",
        ),
        ("W' = W + (α / r) B A", "fold", "methods/test_published_methods.py::test_lora_adds_alpha_over_rank_times_b_a"),
        (
            "QLoRA: W' = dequantised(NF4(W)) + (α / r) B A",
            "holdfast.model.quantized.merge",
            "model/test_quantized.py::test_a_trained_qlora_model_is_an_ordinary_one",
        ),
    ),
    "deviations": ("peft's implementation; the adapter is merged into plain weights after training",),
    "parity": "nothing to compare with: the adapters are those of peft itself",
    "cost": "1 forward and backward without most weight gradients; moments of the adapters only",
}


class Settings(MethodSettings):
    """The adapters, and how the weights under them are kept."""

    rank: int = Field(8, ge=1, le=65_536, description="Rank r of every adapter.")
    alpha: float = Field(16, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="On the adapters' input.")
    modules: Modules = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Modules with an adapter.",
    )
    base: Literal["float32", "nf4"] = Field(
        "float32", description="How the frozen weights under the adapter are kept; nf4 is QLoRA and needs bitsandbytes."
    )

    def artifacts(self) -> dict[str, Any]:
        """The package that nf4 needs."""
        return {"imports": ["bitsandbytes"]} if self.base == "nf4" else {}

    def alone(self) -> str:
        """Rounded weights have a form of their own, and dropout is drawn for the rows of one process."""
        return "base: nf4" if self.base == "nf4" else "dropout above 0" if self.dropout else ""


def attach(
    model: PreTrainedModel, layers: Sequence[Layer], settings: Settings, **needs: Any
) -> PeftModel | PeftMixedModel:
    """Wrap the model with adapters; only they are trainable."""
    from holdfast.model import lora, quantized

    if settings.base == "nf4":
        quantized.quantize(model, settings.modules)
    return lora.attach(model, settings.modules, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)


def low_rank(model: PeftModel, settings: Settings) -> dict[str, torch.Tensor]:
    """`<module>.lora_A` and `.lora_B` of every module; nothing where they stand on rounded weights."""
    from holdfast.model import lora

    return {} if settings.base == "nf4" else lora.factors(model)


def fold(model: PeftModel, settings: Settings) -> PreTrainedModel:
    """W + (α / r) B A as a plain model."""
    from holdfast.model import lora, quantized

    return quantized.merge(model) if settings.base == "nf4" else lora.folded(model)
