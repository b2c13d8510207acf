"""SaLoRA (Li et al., ICLR 2025, arXiv 2501.01765): LoRA that cannot write where refusals do, begun where the task does.

Formula: W' = W + s C (B A − B₀ A₀),  s = α / r,  C = I − V_s V_sᵀ,  B, A = B₀, A₀ at the start,
V_s the leading eigenvectors of W G_s Wᵀ, G_s = Σ x xᵀ over answer tokens of refusals,
B₀ = V_u V_uᵀ U √S,  A₀ = √S Vᵀ,  U S Vᵀ ≈ W of rank r,  V_u as V_s with G_u over answer tokens of the task.

What a module writes along V_s, where most of what it writes on refusals is, stays as in the aligned model whatever it
reads: V_sᵀ (W' − W) = 0. The published form trains B and A on top of W − s C B₀ A₀; here W stays as it is and the same
start is subtracted in every pass, which is the same function, equals the aligned model to the last bit at the start,
and folds without W having been rounded twice. C is never formed: C B = B − V_s (V_sᵀ B).

A module with no more outputs than `safety_directions` does not move at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from holdfast.study.checked import Modules
from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.model.chat import Example
    from holdfast.model.layers import Layer

KIND = "train"
NEEDS = ("aligned", "gram")
LEARNING_RATE = 2e-3
CARD = {
    "paper": "Li et al., ICLR 2025, arXiv 2501.01765 (homles11/SaLoRA at 3f73de1)",
    "fidelity": "faithful",
    "equations": (
        (
            "the leading eigenvectors of W G Wᵀ",
            "holdfast.warp.basis.leading_outputs",
            "methods/test_adapters.py::test_leading_outputs_are_the_eigenvectors_of_what_a_module_writes",
        ),
        (
            "B₀ = V_u V_uᵀ U √S, A₀ = √S Vᵀ, C B₀ A₀",
            "beginning",
            "methods/test_adapters.py::test_salora_begins_as_it_is_written",
        ),
        (
            "x ↦ W x + s C (B A − B₀ A₀) x, and the same folded",
            "adapted",
            "methods/test_adapters.py::test_salora_is_its_formula_in_forward_fold_and_adapter",
        ),
        (
            "V_sᵀ (W' − W) = 0 after training",
            "fold",
            "methods/test_adapters.py::test_salora_writes_along_safety_directions_as_before",
        ),
    ),
    "deviations": (
        "Gram matrices of the rows that basis.rows names, where the authors keep activations of 128 rows; eigenvectors "
        "by subspace iteration in float64, where they call svd_lowrank without spare columns",
        "activations of the task are those of the aligned model; in the authors' script those of later blocks are of a "
        "model whose earlier blocks lack C B₀ A₀ already",
        "all seven linear modules and r = 8, as this project's LoRA arm; the authors train q and v with r = 16",
    ),
    "parity": "homles11/SaLoRA at 3f73de1: C, the start and the weight of trained factors are equal up to float32 "
    "once their svd_lowrank gets columns to spare; as they call it the last directions are not exact, and "
    "ours are",
    "cost": "LoRA with two low-rank products in place of one; before it 30 rounds of products (m, n) with r_s + 10 "
    "columns per module, and a forward pass over `task_rows` rows",
}


class Settings(MethodSettings):
    """The adapters, what they may not write, and where they begin."""

    rank: int = Field(8, ge=1, le=65_536, description="Rank r of every adapter.")
    alpha: float = Field(8, gt=0, description="The update is scaled by alpha / rank; the authors': by 1.")
    safety_directions: int = Field(
        32, ge=1, description="r_s: output directions of refusals that no module may write along."
    )
    task_directions: int = Field(32, ge=1, description="d_u: output directions of the task that adapters begin in.")
    task_rows: int = Field(128, ge=1, description="Training rows that these are found on.")
    modules: Modules = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Modules with an adapter.",
    )

    def artifacts(self) -> dict[str, Any]:
        """Gram matrices over the answer tokens of refusals."""
        return {"gram": "response"}

    def alone(self) -> str:
        """Nobody has tried."""
        return "its adapters hold directions that are not in shards"


def beginning(
    weight: torch.Tensor, safety: torch.Tensor, task: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(V_s (m, r_s), A₀ (r, n), B₀ (m, r)) of a weight (m, n) and the Gram matrices (n, n) of its inputs, in the
    weight's type."""
    import torch

    from holdfast.warp import basis

    v_s = basis.leading_outputs(weight, safety, settings.safety_directions)
    v_u = basis.leading_outputs(weight, task, settings.task_directions)
    u = basis.leading_outputs(weight, None, settings.rank)
    # Directions that a module with fewer outputs does not have are zeros: all adapters have one rank, and one scale.
    u = torch.nn.functional.pad(u, (0, settings.rank - u.shape[1]))
    rows = u.T @ weight.double()  # S Vᵀ
    root = rows.norm(dim=1).sqrt()
    a = rows / root.clamp(min=1e-150)[:, None]
    b = v_u @ (v_u.T @ (u * root))
    return v_s.to(weight.dtype), a.to(weight.dtype), b.to(weight.dtype)


def adapted(
    linear: torch.nn.Linear, settings: Settings, v_s: torch.Tensor, a: torch.Tensor, b: torch.Tensor
) -> torch.nn.Module:
    """A module that adds s C (B A − B₀ A₀) to a frozen linear layer."""
    import torch

    def kept(b: torch.Tensor) -> torch.Tensor:
        """C B, in full precision wherever products are not."""
        with torch.autocast(b.device.type, enabled=False):
            return b - v_s @ (v_s.T @ b)

    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = linear, settings.alpha / settings.rank
            self.a, self.b = torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())
            self.start = a, kept(b)  # A₀ and C B₀, which are no parameters

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.start
            moved = (x @ self.a.T) @ kept(self.b).T - (x @ a.T) @ b.T
            out: torch.Tensor = self.linear(x) + self.scale * moved
            return out

        @torch.no_grad()
        def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
            """(2 r, n) and (m, 2 r), whose product is C (B A − B₀ A₀)."""
            a, b = self.start
            return torch.cat([self.a, a]), torch.cat([kept(self.b), -b], dim=1)

        @torch.no_grad()
        def update(self) -> torch.Tensor:
            """ΔW (m, n) in float64."""
            a, b = self.factors()
            return self.scale * (b.double() @ a.double())

    return Adapted()


def attach(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: Settings,
    *,
    encoded: Sequence[Example],
    gram: Mapping[str, torch.Tensor],
    **needs: Any,
) -> PreTrainedModel:
    """Put an adapter on every module; only adapters are trainable.

    Args:
        encoded: the task's rows, some of which say what it writes.
        gram: input name -> G_s (n, n).
    """
    from holdfast.model import layers as layering
    from holdfast.warp import gram as capturing

    targets = layering.resolve(model, settings.modules)
    # Whatever stands where a row is padded, no matrix sums over it.
    rows = encoded[: settings.task_rows]
    task, _ = capturing.capture(model, targets, rows, batch_size=8, pad_id=0, tokens="response")
    model.requires_grad_(False)
    for layer in targets:
        v_s, a, b = beginning(layer.module.weight, gram[layer.input], task[layer.input], settings)
        parent, _, child = layer.name.rpartition(".")
        setattr(model.get_submodule(parent), child, adapted(layer.module, settings, v_s, a, b))
    return model


def low_rank(model: PreTrainedModel, settings: Settings) -> dict[str, torch.Tensor]:
    """`<module>.lora_A` and `.lora_B` of every module, of rank 2 r: an adapter on the aligned model as it is."""
    out: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, "factors"):
            a, b = module.factors()
            out |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
    return out


def fold(model: PreTrainedModel, settings: Settings) -> PreTrainedModel:
    """W + ΔW as a plain model, rounded once."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "factors"):
            weight = module.linear.weight
            weight.data.copy_(weight.double() + module.update())
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.linear)
    return model
