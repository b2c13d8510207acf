"""WaRP / WSR-Tune: rotate weights into the safety basis, freeze what refusals need, train the rest.

Formula: C = W U with U the eigenvectors of the safety activations; M = the share ρ of coefficients
with the largest Σ|∂L_safe/∂C| per module; ΔC ⊙ M = 0 throughout; AdamW on the other coefficients.

Deviations. The rotation is applied at the optimizer instead of in the forward pass (same trajectory,
tested in float64). Masters are float32 and importance sums are float32; the reference uses bf16.
`trainable: targets` is the reference's *freeze* variant (only rotated weights move),
`trainable: all` its *non_freeze* variant.

The same file runs the controls: `mask: none` (rotation alone), `mask: random`, `basis: random`
(random orthogonal), `basis: original` (U = I) and `unit: column` (whole directions).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from holdfast.registry import MethodSettings

KIND = "train"
NEEDS = ("aligned", "basis", "mask")
LEARNING_RATE = 1e-3


class Settings(MethodSettings):
    freeze_fraction: float = Field(0.1, gt=0, lt=1, description="share ρ of coefficients frozen per module")
    trainable: Literal["targets", "all"] = Field("targets", description="what else may move: nothing, or all the rest")
    basis: Literal["safety", "random", "original"] = Field(
        "safety", description="coordinates: safety eigenvectors, a random rotation, or none"
    )
    mask: Literal["importance", "random", "none"] = Field(
        "importance", description="how frozen coefficients are picked"
    )
    unit: Literal["entry", "column"] = Field("entry", description="freeze single coefficients or whole directions")

    def artifacts(self) -> dict[str, Any]:
        needs: dict[str, Any] = {"basis": None if self.basis == "original" else self.basis}
        if self.mask != "none":
            needs["mask"] = {
                "basis": self.basis, "scores": self.mask, "unit": self.unit, "freeze_fraction": self.freeze_fraction,
            }  # fmt: skip
        return needs


def attach(model, layers, settings, **needs):
    from holdfast.training import restrict

    restrict(model, layers, settings.trainable)
    return model


def optimizer(model, layers, settings, training, *, basis=None, mask=None, **needs):
    """RotatedAdamW over the trainable parameters.

    Args:
        basis: input name -> U (n, n), None for the original space.
        mask: layer name -> boolean (m, n), None for nothing frozen.
    """
    from holdfast.warp.optimizer import RotatedAdamW, Rotation

    rotations = {}
    for layer in layers:
        weight = layer.module.weight
        rotations[weight] = Rotation(
            None if basis is None else basis[layer.input].to(weight.device),
            None if mask is None else mask[layer.name].to(weight.device),
        )
    return RotatedAdamW(
        [p for p in model.parameters() if p.requires_grad], rotations, lr=training.learning_rate,
        betas=training.betas, weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm,
    )  # fmt: skip
