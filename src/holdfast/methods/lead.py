"""Leading directions: AdamW that keeps its updates out of the leading directions of the safety activations.

Formula: U_k = the k = r n leading eigenvectors of the Gram matrix of refusals, per target module;
G ← G − (G U_k) U_kᵀ before the moments (`project: both`), ΔW ← ΔW − (ΔW U_k) U_kᵀ always; so that
(W − W_aligned) h = 0 for every h in the span of U_k.

A remedy of this project, simpler than WaRP: no importance scores, no mask, k directions instead of a whole
basis. Where WaRP freezes single coefficients of the rotated weights, here whole directions are held, those in
which refusals have most of their energy. To keep updates out of a subspace of old activations is known from
continual learning: gradient projection memory projects gradients (Saha et al. 2021, arXiv 2103.09762), as orthogonal
gradient descent does with directions of gradients (Farajtabar et al. 2019, arXiv 1910.07104); Adam-NSCL projects the
update of Adam into the null space of the activations (Wang et al. 2021, arXiv 2103.07113). `project: update` is that
last form with another space: what is free is the complement of a chosen share, and no null space. `both` projects
first too, so that neither moment knows what may not move.

`mix` adds refusals to the rows as safety mixing does, as a share of them.
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
    from holdfast.train.loop import TrainSettings
    from holdfast.warp.optimizer import RotatedAdamW

KIND = "train"
NEEDS = ("aligned", "basis", "safety")
LEARNING_RATE = 1.2e-3
CARD = {
    "paper": "a remedy of this project; related: OGD (arXiv 1910.07104), GPM (2103.09762), Adam-NSCL (2103.07113)",
    "fidelity": "variant",
    "equations": (
        (
            "span(U_k) carries nearly what k eigenvectors carry",
            "holdfast.warp.basis.leading",
            "warp/test_leading.py::test_two_rounds_carry_nearly_what_eigenvectors_do",
        ),
        (
            "k per module by energy",
            "holdfast.warp.basis.carrying",
            "warp/test_leading.py::test_the_fewest_eigenvectors_that_carry_a_share",
        ),
        (
            "ΔW ← ΔW − (ΔW U_k) U_kᵀ, with the gradient or without",
            "holdfast.warp.optimizer.Rotation.correct",
            "warp/test_leading.py::test_the_trajectory_is_adamw_with_its_update_projected",
        ),
        (
            "(W − W_aligned) U_k = 0",
            "holdfast.warp.optimizer.RotatedAdamW.frozen_drift",
            "warp/test_leading.py::test_the_answer_to_what_lies_in_the_span_never_changes",
        ),
        (
            "`project: update` is the column form of WaRP where its mask holds the leading ones",
            "optimizer",
            "methods/test_lead.py::test_update_only_is_the_column_form_of_warp",
        ),
        (
            "`mix` adds the refusals that safety mixing draws",
            "rows",
            "methods/test_lead.py::test_mix_draws_the_refusals_of_safety_mixing",
        ),
    ),
    "deviations": (),
    "parity": "no public code: a remedy of this project",
    "cost": "plain fine-tuning plus 8 m n k operations per target module and optimizer step (`project: update`: half); "
    "the directions by two rounds of subspace iteration",
}


class Settings(MethodSettings):
    """Which directions are held, and what else may move."""

    rank_fraction: float = Field(0.3, gt=0, le=1, description="Share r of the input directions that are held.")
    energy: float | None = Field(
        None, gt=0, le=1, description="Hold as many as carry this share of the activations' energy, module by module."
    )
    project: Literal["both", "update"] = Field("both", description="Gradient and update, or the update alone.")
    modules: Literal["targets", "all"] = Field("targets", description="Those of basis.modules, or all linear modules.")
    trainable: Literal["targets", "all"] = Field("targets", description="What else may move: nothing, or all the rest.")
    mix: float = Field(0.0, ge=0, le=1, description="Refusals added, as a share of the task rows.")

    def unread(self) -> set[str]:
        """A share where energy decides."""
        return {"rank_fraction"} if self.energy is not None else set()

    def alone(self) -> str:
        """Directions are of inputs, so that projecting acts on rows, as a rotation of inputs does."""
        return ""

    def artifacts(self) -> dict[str, Any]:
        """The directions."""
        held = {"energy": self.energy} if self.energy is not None else {"share": self.rank_fraction}
        return {"directions": held | {"every": self.modules == "all"}}


def rows(
    task_rows: Sequence[dict[str, Any]], settings: Settings, *, seed: int, safety: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Task rows, and the refusals that `mix` adds."""
    from holdfast.data import draws

    wanted = int(settings.mix * len(task_rows))
    return [*task_rows, *draws.of_safety(safety, wanted, f"safety-mix/{seed}/True")]


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
    basis: Mapping[str, torch.Tensor],
    **needs: Any,
) -> RotatedAdamW:
    """RotatedAdamW over the trainable parameters.

    Args:
        basis: input name -> U_k (n, k), orthonormal columns.
    """
    from holdfast.train.loop import groups
    from holdfast.warp.optimizer import RotatedAdamW, Rotation

    held: dict[str, torch.Tensor] = {}  # modules of one input share theirs on the device too
    rotations = {}
    for layer in layers:
        u = held.setdefault(layer.input, basis[layer.input].to(layer.module.weight))
        rotations[layer.module.weight] = Rotation(u, corrected=True, early=settings.project == "both")
    return RotatedAdamW(
        groups(model, training), rotations, lr=training.learning_rate, betas=training.betas,
        max_grad_norm=training.max_grad_norm,
    )  # fmt: skip
