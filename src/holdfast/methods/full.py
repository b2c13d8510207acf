"""Full-parameter fine-tuning: min over θ of the task loss, AdamW, nothing protected.

Formula: θ ← AdamW(θ, ∇ L_task(θ)).

The reference every remedy is compared with. `trainable: targets` trains only the weights of the
study's target modules: the same trainable set as WaRP, without mask and rotation, so that the part
owed to leaving the rest of the model alone can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer

KIND = "train"
NEEDS = ("aligned",)
LEARNING_RATE = 6e-4
CARD = {
    "paper": "the reference every remedy is compared with",
    "fidelity": "faithful",
    "equations": (
        (
            "weight decay on all but norms and biases",
            "holdfast.train.loop.groups",
            "train/test_weight_decay.py::test_every_optimizer_decays_what_the_trainer_does",
        ),
        ("θ ← AdamW(θ, ∇L)", "holdfast.train.loop.train", "train/test_training.py::test_loop_equals_plain_torch"),
    ),
    "deviations": (),
    "parity": "nothing to compare with: plain fine-tuning, held to a plain loop by the tests above",
    "cost": "1 forward and backward per row; AdamW moments of every trained weight",
}


class Settings(MethodSettings):
    """Which weights are trained."""

    trainable: Literal["all", "targets"] = Field("all", description="All weights, or those of basis.modules only.")

    def alone(self) -> str:
        """AdamW works entry by entry."""
        return ""


def attach(model: PreTrainedModel, layers: Sequence[Layer], settings: Settings, **needs: Any) -> PreTrainedModel:
    """Choose the trainable set."""
    from holdfast.train.loop import restrict

    restrict(model, layers, settings.trainable)
    return model
