"""LoRA inside the WaRP constraint: a low-rank update whose protected coefficients are zero.

Formula: `constraint: mask`        ΔW = [(1 − M) ⊙ (α / r) B A] Uᵀ with the mask and basis of WaRP;
         `constraint: directions`  ΔW = (α / r) B A (I − E Eᵀ), E the leading share ρ of the safety
eigenvectors (no gradient scores needed).

The ablations "LoRA-WSR" and "projected LoRA" of the WSR-Tune code.
The masked form is dense in the rotated coordinates, so the fold is a dense update; it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer
    from holdfast.warp.bits import BitMask

KIND = "train"
NEEDS = ("aligned", "basis", "mask")
LEARNING_RATE = 2e-3
CARD = {
    "paper": "ablations of WSR-Tune's public code (LoRA-WSR, projected LoRA)",
    "fidelity": "variant",
    "equations": (
        (
            "ΔW ⊙ M = 0 in the rotated coordinates",
            "adapted",
            "methods/test_methods.py::test_lora_wsr_never_moves_what_is_protected",
        ),
        (
            "ΔW of both constraints, α / r included",
            "adapted",
            "methods/test_published_methods.py::test_lora_wsr_is_its_formula_in_forward_and_fold",
        ),
        ("W' = W + ΔW", "fold", "methods/test_methods.py::test_lora_wsr_folds_exactly"),
    ),
    "deviations": ("rank and rate are those of this project's LoRA arm; no published table to compare with",),
    "parity": "min-seong-kim/Safety-WaRP-LLM at 62655ed: with `constraint: mask` what the module says, its gradients "
    "and the folded weight are equal; `directions` is not compared",
    "cost": "LoRA plus one product with U and, with a mask, one dense (m, n) product per layer and micro-batch",
}


class Settings(MethodSettings):
    """The adapters, and what they may not touch."""

    rank: int = Field(8, ge=1, le=65_536, description="Rank r of every adapter.")
    alpha: float = Field(16, gt=0, description="The update is scaled by alpha / rank.")
    constraint: Literal["mask", "directions"] = Field("mask", description="What the update may not touch.")
    freeze_fraction: float = Field(0.1, gt=0, lt=1, description="Share ρ of coefficients, or of directions.")

    def artifacts(self) -> dict[str, Any]:
        """The safety basis, and a mask in its coordinates where entries are protected."""
        needs: dict[str, Any] = {"basis": "safety"}
        if self.constraint == "mask":
            needs["mask"] = {"freeze_fraction": self.freeze_fraction}
        return needs

    def alone(self) -> str:
        """Nobody has tried."""
        return "its adapters hold bases and masks that are not in shards"


def adapted(
    linear: torch.nn.Linear, settings: Settings, u: torch.Tensor, frozen: torch.Tensor | None
) -> torch.nn.Module:
    """A module that adds the constrained low-rank update to a frozen linear layer."""
    import torch

    class Adapted(torch.nn.Module):
        u: torch.Tensor
        free: torch.Tensor | None

        def __init__(self) -> None:
            super().__init__()
            m, n = linear.weight.shape
            self.linear, self.scale = linear, settings.alpha / settings.rank
            self.a = torch.nn.Parameter(torch.empty(settings.rank, n))
            self.b = torch.nn.Parameter(torch.zeros(m, settings.rank))
            torch.nn.init.kaiming_uniform_(self.a, a=5**0.5)
            self.to(linear.weight.device)
            self.u, self.free = u.to(linear.weight.device), None
            if frozen is not None:
                self.free = (~frozen).to(self.u)
            else:
                self.u = self.u[:, : round(settings.freeze_fraction * n)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor
            if self.free is None:
                x_free = x - (x @ self.u) @ self.u.T
                out = self.linear(x) + self.scale * (x_free @ self.a.T) @ self.b.T
                return out
            coefficients = self.free * (self.b @ self.a)
            out = self.linear(x) + self.scale * (x @ self.u) @ coefficients.T
            return out

        @torch.no_grad()
        def factors(self) -> tuple[torch.Tensor, torch.Tensor] | None:
            """A (I − E Eᵀ) and B, whose product is the update over α / r; a masked one has no such form."""
            return None if self.free is not None else (self.a - (self.a @ self.u) @ self.u.T, self.b)

        @torch.no_grad()
        def update(self) -> torch.Tensor:
            """ΔW (m, n)."""
            product = self.b @ self.a
            if self.free is None:
                return self.scale * (product - (product @ self.u) @ self.u.T)
            return self.scale * (self.free * product) @ self.u.T

    return Adapted()


def attach(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: Settings,
    *,
    basis: Mapping[str, torch.Tensor],
    mask: Mapping[str, BitMask] | None = None,
    **needs: Any,
) -> PreTrainedModel:
    """Put an adapter on every target module; only adapters are trainable."""
    model.requires_grad_(False)
    for layer in layers:
        parent, _, child = layer.name.rpartition(".")
        frozen = None
        if settings.constraint == "mask":
            assert mask is not None  # this constraint asks for one
            frozen = mask[layer.name].bools
        module = adapted(layer.module, settings, basis[layer.input], frozen)
        setattr(model.get_submodule(parent), child, module)
    return model


def low_rank(model: PreTrainedModel, settings: Settings) -> dict[str, torch.Tensor]:
    """`<module>.lora_A` and `.lora_B` of every module; nothing with a mask, which makes the update dense."""
    out: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, "factors") and (found := module.factors()) is not None:
            out |= {f"{name}.lora_A": found[0], f"{name}.lora_B": found[1]}
    return out


def fold(model: PreTrainedModel, settings: Settings) -> PreTrainedModel:
    """W + ΔW as a plain model."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "update") and hasattr(module, "linear"):
            module.linear.weight.data.add_(module.update())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.linear)
    return model
