"""AsFT (Yang et al. 2025, arXiv 2506.08473): LoRA whose update is pulled into the direction that alignment took.

Formula: L = L_task + λ R,  R = Σ ‖(I − Ĉ) B A‖²_F over the adapted modules,  Ĉ = V Vᵀ / ‖V‖_F,
V = W_aligned − W_base,  W' = W_aligned + (α / r) B A.

Ĉ is Safe LoRA's: symmetric and no projector, it rescales with ‖V‖, so that with a small V nearly all of B A is
penalised. Neither Ĉ nor B A is formed: with X = B − V (Vᵀ B) / ‖V‖_F it is ‖X A‖²_F = tr((Xᵀ X)(A Aᵀ)), m n r
operations. V is taken of the stored weights, in float32 whatever the training's precision: it is a thousandth of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from holdfast.study.checked import Modules
from holdfast.study.registry import MethodSettings
from holdfast.train.beside import Beside

if TYPE_CHECKING:
    import torch
    from peft import PeftMixedModel, PeftModel
    from transformers import PreTrainedModel

    from holdfast.model.checkpoint import Adapted, Checkpoint
    from holdfast.model.layers import Layer
    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned", "base")
LEARNING_RATE = 2e-3
CARD = {
    "paper": "Yang et al. 2025, arXiv 2506.08473 (PKU-YuanGroup/AsFT at 1361f5c)",
    "fidelity": "faithful",
    "equations": (
        (
            "‖(I − Ĉ) B A‖²_F = tr((Xᵀ X)(A Aᵀ))",
            "outside",
            "methods/test_adapters.py::test_the_trace_form_is_the_penalty_as_it_is_written",
        ),
        (
            "L_task + λ R, once an optimizer step",
            "Narrowed",
            "methods/test_adapters.py::test_asft_is_its_loss_however_a_step_is_split",
        ),
        ("λ = 0 is plain LoRA", "beside", "methods/test_adapters.py::test_asft_without_strength_is_lora"),
    ),
    "deviations": (
        "λ counts once an optimizer step; the authors' code adds it to every micro-batch after the loss was divided by "
        "their number, so that theirs grows with the accumulation",
        "adapters, rate and schedule are those of this project's LoRA arm; the authors train q and v, r = 8, α = 32, "
        "at 5e-5 and less from epoch to epoch",
    ),
    "parity": "PKU-YuanGroup/AsFT at 1361f5c: penalty and gradient are equal at one micro-batch a step. At k of them "
    "theirs is k times as large, since it adds the penalty to each after dividing the loss; ours is the "
    "formula whatever the accumulation",
    "cost": "LoRA, one more copy of the adapted weights (float32), and about 8 m n r operations per module and "
    "optimizer step",
}


class Settings(MethodSettings):
    """The adapters, and how strongly they are pulled."""

    strength: float = Field(1.0, ge=0, description="λ, on the squared norm of what leaves the alignment direction.")
    rank: int = Field(8, ge=1, le=65_536, description="Rank r of every adapter.")
    alpha: float = Field(16, gt=0, description="The update is scaled by alpha / rank.")
    modules: Modules = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Modules with an adapter.",
    )

    def artifacts(self) -> dict[str, Any]:
        """The base model, from which the alignment direction is measured."""
        return {"roles": ["base"]} if self.strength else {}

    def cost(self) -> tuple[float, float]:
        """V of all adapted modules, nearly all weights."""
        return (1.0, 0.0) if self.strength else (0.0, 0.0)

    def alone(self) -> str:
        """V is whole, and the adapters would not be."""
        return "its alignment direction is not in shards"


def attach(
    model: PreTrainedModel, layers: Sequence[Layer], settings: Settings, **needs: Any
) -> PeftModel | PeftMixedModel:
    """Wrap the model with adapters; only they are trainable."""
    from holdfast.model import lora

    return lora.attach(model, settings.modules, rank=settings.rank, alpha=settings.alpha)


def outside(v: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """‖(I − V Vᵀ / ‖V‖_F) B A‖²_F of v (m, n), a (r, n), b (m, r); of a V of zeros all of B A is outside."""
    import torch

    norm = torch.linalg.matrix_norm(v).clamp(min=1e-30)  # by less a gradient may be infinite, and times V no number
    x = b - v @ (v.T @ b) / norm
    total: torch.Tensor = ((x.T @ x) * (a @ a.T)).sum()
    return total


class Narrowed(Beside):
    """The gradient of λ R in every step."""

    def __init__(self, modules: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], strength: float) -> None:
        self.modules, self.strength = modules, strength

    def before_step(self, model: torch.nn.Module, step: int, steps: int) -> None:
        """Leave it in `.grad`, module by module."""
        for v, a, b in self.modules:
            penalty = self.strength * outside(v, a.to(v.dtype), b.to(v.dtype))
            penalty.backward()  # type: ignore[no-untyped-call]


def beside(
    model: PeftModel,
    settings: Settings,
    training: TrainSettings,
    *,
    models: Mapping[str, Checkpoint | Adapted] | None = None,
    **others: Any,
) -> Beside:
    """The penalty on the adapters of `model`; nothing at all with strength 0.

    Args:
        models: `aligned` and `base`, as they are stored.
    """
    import torch

    from holdfast.model import lora

    if not settings.strength:
        return Beside()
    assert models is not None  # these settings ask for them
    modules = []
    for name, a, b in lora.pairs(model):
        aligned, base = (models[role].get_tensor(name) for role in ("aligned", "base"))
        kind = torch.promote_types(aligned.dtype, torch.float32)
        modules.append(((aligned.to(kind) - base.to(kind)).to(a.device), a, b))
    return Narrowed(modules, settings.strength)


def low_rank(model: PeftModel, settings: Settings) -> dict[str, torch.Tensor]:
    """`<module>.lora_A` and `.lora_B` of every module."""
    from holdfast.model import lora

    return lora.factors(model)


def fold(model: PeftModel, settings: Settings) -> PreTrainedModel:
    """W + (α / r) B A as a plain model."""
    from holdfast.model import lora

    return lora.folded(model)
