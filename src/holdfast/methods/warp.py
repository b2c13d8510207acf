"""WaRP / WSR-Tune: rotate weights into the safety basis, freeze what refusals need, train the rest.

Formula: C = W U with U the eigenvectors of the safety activations; M = the share ρ of coefficients
with the largest Σ|∂L_safe/∂C| per module; ΔC ⊙ M = 0 throughout; AdamW on the other coefficients.

Deviations. The rotation is applied at the optimizer instead of in the forward pass (same trajectory,
tested in float64). Masters are float32 and importance sums are float32; the reference uses bf16.
`trainable: targets` is the reference's *freeze* variant (only rotated weights move),
`trainable: all` its *non_freeze* variant.

The same file runs the ablations: `mask: none` (rotation alone), `mask: random`, `basis: random`
(random orthogonal), `basis: original` (U = I), `basis: output` with `unit: row` (ActSVD, C = Vᵀ W),
`basis: permuted` (an output rotation by a signed permutation, which must equal WaRP), `unit: column`
(whole directions), `threshold: model` (one for all modules) and `two_mask` (M_safe ∧ ¬M_task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer
    from holdfast.train.loop import TrainSettings
    from holdfast.warp.bits import BitMask
    from holdfast.warp.optimizer import RotatedAdamW

KIND = "train"
NEEDS = ("aligned", "basis", "mask")
LEARNING_RATE = 1e-3
CARD = {
    "paper": "WSR-Tune / WaRP (Safety-WaRP-LLM)",
    "fidelity": "faithful",
    "equations": (
        (
            "G = H Hᵀ over safety tokens, padding excluded",
            "holdfast.warp.gram.capture",
            "methods/test_published_methods.py::test_the_gram_matrix_sums_over_the_tokens_of_refusals",
        ),
        (
            "I = Σ |∂L_safe/∂C|",
            "holdfast.warp.importance.score",
            "warp/test_warp.py::test_importance_equals_the_published_form",
        ),
        (
            "M = the share ρ of coefficients with the largest I",
            "holdfast.warp.masks.top_entries",
            "warp/test_warp.py::test_masks_have_exactly_their_budget_and_hold_the_largest_scores",
        ),
        (
            "M by entry, column or row",
            "holdfast.warp.families.build_mask",
            "methods/test_published_methods.py::test_warp_freezes_the_most_important_of_each_module",
        ),
        (
            "`threshold: model`",
            "holdfast.warp.masks.top_overall",
            "methods/test_published_methods.py::test_one_threshold_for_the_model_is_one_threshold",
        ),
        (
            "`mask: random`",
            "holdfast.warp.masks.random_scores",
            "methods/test_published_methods.py::test_a_random_mask_knows_nothing_of_importance",
        ),
        (
            "C = Vᵀ W U of a whole model",
            "optimizer",
            "methods/test_published_methods.py::test_warp_trains_coefficients_as_the_published_forward_form",
        ),
        (
            "C = W U trained with ΔC ⊙ M = 0",
            "holdfast.warp.optimizer.RotatedAdamW",
            "warp/test_optimizer.py::test_trajectory_equals_the_published_forward_form",
        ),
        (
            "frozen coefficients never move",
            "holdfast.warp.optimizer.RotatedAdamW.frozen_drift",
            "warp/test_optimizer.py::test_frozen_coefficients_never_move",
        ),
        (
            "option `rank_fraction`: ΔW −= ((ΔW U_k) ⊙ M) U_kᵀ, not published",
            "holdfast.warp.optimizer.Rotation.correct",
            "warp/test_optimizer.py::test_the_truncated_form_keeps_frozen_coefficients_and_is_adamw_elsewhere",
        ),
        (
            "no mask and U = I is plain AdamW",
            "holdfast.warp.optimizer.RotatedAdamW",
            "warp/test_optimizer.py::test_no_mask_and_identity_basis_is_plain_adamw",
        ),
    ),
    "deviations": (
        "rotation at the optimizer step, not in the forward pass (same trajectory)",
        "float32 masters and sums where the authors' code keeps bfloat16",
        "eigh of a float32 Gram instead of svd of a bfloat16 one",
        "exactly round(ρ m n) entries; the authors' quantile gives 10.0 to 10.2 % at ρ = 0.1",
        "`trainable: all` trains the biases of target modules too (Qwen2 has some); the authors' code turns them into "
        "buffers, so that full fine-tuning, which trains them, would differ from WaRP in more than the constraint",
    ),
    "parity": "min-seong-kim/Safety-WaRP-LLM at 62655ed: importance is equal, the masks but for the entry more that "
    "their quantile may freeze, and twelve steps of *freeze* to rounding. Bases are ours on both sides",
    "cost": "plain fine-tuning plus two products (m, n)(n, n) per target module and optimizer step",
}


class Settings(MethodSettings):
    """The coordinates, what is frozen in them, and what else may move."""

    freeze_fraction: float = Field(0.1, gt=0, lt=1, description="Share ρ of coefficients frozen per module.")
    trainable: Literal["targets", "all"] = Field("targets", description="What else may move: nothing, or all the rest.")
    basis: Literal["safety", "random", "original", "output", "permuted"] = Field(
        "safety", description="coordinates: safety eigenvectors, a random rotation, none, or of the outputs."
    )
    mask: Literal["importance", "random", "none"] = Field(
        "importance", description="How frozen coefficients are picked."
    )
    unit: Literal["entry", "column", "row"] = Field(
        "entry", description="Freeze single coefficients, whole input directions, or whole output directions."
    )
    threshold: Literal["layer", "model"] = Field(
        "layer", description="The share ρ per module, or of all modules at once."
    )
    rank_fraction: float = Field(
        1.0, gt=0, le=1, description="Share of leading directions that may hold frozen coefficients; below 1 the "
        "update is made in the original coordinates and corrected along these directions (cheaper, not published).",
    )  # fmt: skip
    two_mask: bool = Field(False, description="Do not freeze what the same rule finds important for the task.")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.threshold == "model" and self.unit != "entry":
            raise ValueError("one threshold for the whole model is defined for unit: entry")
        if self.two_mask and self.mask != "importance":
            raise ValueError("two_mask compares importance, so it needs mask: importance")
        if self.rank_fraction < 1:
            if self.basis not in ("safety", "random") or self.unit == "row" or self.mask == "none":
                raise ValueError("rank_fraction below 1 needs an input rotation and a mask of entries or columns")
            if self.rank_fraction < self.freeze_fraction:
                raise ValueError("rank_fraction must be at least freeze_fraction: the budget has to fit")
        return self

    def unread(self) -> set[str]:
        """How much is frozen, and how, where nothing is."""
        return {"freeze_fraction", "unit", "threshold"} if self.mask == "none" else set()

    def alone(self) -> str:
        """A rotation of inputs acts on rows; one of outputs mixes them, and they lie in different processes."""
        return f"basis: {self.basis} rotates outputs" if self.basis in ("output", "permuted") else ""

    def artifacts(self) -> dict[str, Any]:
        """A basis and a mask in its coordinates, where these settings use them."""
        needs: dict[str, Any] = {"basis": None if self.basis == "original" else self.basis}
        if self.mask != "none":
            needs["mask"] = {
                "basis": self.basis, "scores": self.mask, "unit": self.unit, "threshold": self.threshold,
                "freeze_fraction": self.freeze_fraction, "minus_task": self.two_mask,
            }  # fmt: skip
            if self.rank_fraction < 1:
                needs["mask"]["rank_fraction"] = self.rank_fraction
        return needs


def attach(model: PreTrainedModel, layers: Sequence[Layer], settings: Settings, **needs: Any) -> PreTrainedModel:
    from holdfast.train.loop import restrict

    restrict(model, layers, settings.trainable)
    return model


def optimizer(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: Settings,
    training: TrainSettings,
    *,
    basis: Mapping[str, torch.Tensor] | None = None,
    mask: Mapping[str, BitMask] | None = None,
    **needs: Any,
) -> RotatedAdamW:
    """RotatedAdamW over the trainable parameters.

    Args:
        basis: input name -> U (n, n), layer name -> V (m, m); None for the original space.
        mask: layer name -> BitMask (m, n), None for nothing frozen.
    """
    from holdfast.train.loop import groups
    from holdfast.warp import masks
    from holdfast.warp.optimizer import RotatedAdamW, Rotation

    rotations = {}
    leading: dict[str, torch.Tensor] = {}
    # Modules of one input share their U on the device too.
    moved: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}

    def there(name: str, weight: torch.Tensor) -> torch.Tensor | None:
        if basis is None or name not in basis:
            return None
        key = name, weight.device, weight.dtype
        if key not in moved:
            moved[key] = basis[name].to(weight)
        return moved[key]

    for layer in layers:
        weight = layer.module.weight
        u, v = there(layer.input, weight), there(layer.name, weight)
        held = None if mask is None or layer.name not in mask else mask[layer.name].to(weight.device)
        frozen: BitMask | torch.Tensor | None = held
        if settings.rank_fraction < 1:
            assert u is not None and held is not None  # these settings ask for both
            k = masks.leading(weight.shape[1], settings.rank_fraction)
            u = leading.setdefault(layer.input, u[:, :k].contiguous())
            frozen = held.bools[:, :k].contiguous()
        rotations[weight] = Rotation(u, frozen, v, corrected=settings.rank_fraction < 1)
    return RotatedAdamW(
        groups(model, training), rotations, lr=training.learning_rate, betas=training.betas,
        max_grad_norm=training.max_grad_norm,
    )  # fmt: skip
