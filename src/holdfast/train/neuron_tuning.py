"""What SN-Tune and RSN-Tune share: settings and hooks. Imports torch inside functions only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer
    from holdfast.train.loop import TrainSettings
    from holdfast.warp.bits import BitMask
    from holdfast.warp.optimizer import RotatedAdamW


ROWS = 8  # of a step of that phase


class NeuronSettings(MethodSettings):
    """Which neurons are protected, and how they are tuned before the task."""

    fraction: float = Field(0.2, gt=0, lt=1, description="Share of a block's neurons that count for one sample.")
    frequency: float = Field(0.9, gt=0, le=1, description="Share of samples a neuron must count for; 1 intersects.")
    detection: Literal["paper", "code"] = Field(
        "paper",
        description="How importance is scored: by what a neuron's removal changes, or as the public detector does.",
    )
    samples: int = Field(100, ge=1, description="Rows importance is measured on.")
    tune_rows: int = Field(50, ge=0, description="Refusals the neurons are tuned on first; 0 skips it.")
    tune_learning_rate: float = Field(1e-6, ge=0, lt=1, description="Peak rate of that phase, one epoch.")
    robust: ClassVar[bool]  # whether neurons that general text needs are left out

    def artifacts(self) -> dict[str, Any]:
        """A mask over the rows and columns of safety neurons."""
        spec = self.model_dump(include={"fraction", "frequency", "samples", "detection"})
        return {"neurons": spec | {"robust": self.robust}}

    def alone(self) -> str:
        """A model in shards is trained once."""
        return "it trains twice, neurons first"


def prelude(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: NeuronSettings,
    *,
    mask: Mapping[str, BitMask],
    safety: Sequence[dict[str, Any]],
    training: TrainSettings,
    train: Callable[[list[dict[str, Any]], TrainSettings, Optimizer, str], None],
    **needs: Any,
) -> None:
    """Tune the neurons alone on a few refusals, eight a step, everything else held.

    Args:
        training: of the task; no more rows than its micro-batches have are in memory together.
    """
    from holdfast.train.loop import TrainSettings
    from holdfast.warp.optimizer import RotatedAdamW, Rotation

    if not settings.tune_rows or not settings.tune_learning_rate:
        return
    together = math.gcd(ROWS, training.batch_size)
    phase = TrainSettings(
        learning_rate=settings.tune_learning_rate, epochs=1, batch_size=together, accumulation=ROWS // together
    )
    rotations = {x.module.weight: Rotation(frozen=~mask[x.name].bools.to(x.module.weight.device)) for x in layers}
    optimizer = RotatedAdamW(list(rotations), rotations, lr=phase.learning_rate, max_grad_norm=phase.max_grad_norm)
    rows = [r for r in safety if r["kind"] == "hazard"][: settings.tune_rows]
    model.requires_grad_(False)
    for weight in rotations:
        weight.requires_grad_(True)
    train(rows, phase, optimizer, "tuning neurons")
    model.requires_grad_(True)


def optimizer(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: NeuronSettings,
    training: TrainSettings,
    *,
    mask: Mapping[str, BitMask],
    **needs: Any,
) -> RotatedAdamW:
    """AdamW over all parameters with the neurons' weights held exactly where they are."""
    from holdfast.train.loop import groups
    from holdfast.warp.optimizer import RotatedAdamW, Rotation

    rotations = {x.module.weight: Rotation(frozen=mask[x.name].to(x.module.weight.device)) for x in layers}
    return RotatedAdamW(
        groups(model, training), rotations, lr=training.learning_rate, betas=training.betas,
        max_grad_norm=training.max_grad_norm,
    )  # fmt: skip
