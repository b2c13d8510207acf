"""Safety last: the task first, safety training after it, from the base; every other arm has them the other way round.

Formula: θ_task = argmin L_task from θ_base,  θ' = argmin L_safety from θ_task, both by AdamW with the rate of the arm
and the schedule, passes and batches of the task.

That a model forgets its safety training more when a task is learned after it than the task when safety is learned after
that is what Ung et al. found (2024, arXiv 2412.16469). Beside `full`, which is safety first, this is the other order of
the same rows. It is an exact exchange where `safety.training` and the task's `training` say the same and the arm has
their rate (config/order.yaml); otherwise recipes are exchanged too. The safety rows are all of the study, refusals and
answered benign ones, as safety training has them.

`start: aligned` trains for safety before the task too: a second helping after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from holdfast.model.checkpoint import Adapted, Checkpoint
    from holdfast.model.layers import Layer
    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned", "base", "safety")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "the order that Ung et al. 2024, arXiv 2412.16469 (Chained Tuning Leads to Biased Forgetting) hold "
    "against the usual one",
    "fidelity": "variant",
    "equations": (
        (
            "θ_task from θ_base on the task's rows, then θ' on the safety rows",
            "prelude",
            "methods/test_safety_last.py::test_it_is_both_trainings_in_the_other_order",
        ),
        ("all safety rows of the study", "rows", "methods/test_safety_last.py::test_the_last_rows_are_those_of_safety"),
        (
            "`start: aligned` keeps the safety training before the task",
            "prelude",
            "methods/test_safety_last.py::test_a_second_helping_starts_from_the_aligned_model",
        ),
    ),
    "deviations": (
        "refusals and tasks of this project; the authors chain published safety, bias and capability sets",
        "both phases have the task's training; the study's own safety training has its own",
    ),
    "parity": "no public code was found",
    "cost": "plain fine-tuning plus as many passes over the safety rows as over the task's",
}


class Settings(MethodSettings):
    """Which model the task is learned from."""

    start: Literal["base", "aligned"] = Field("base", description="Where the task's training starts.")

    def artifacts(self) -> dict[str, Any]:
        """The base model, where the task's training starts from it."""
        return {"roles": ["base"]} if self.start == "base" else {}

    def alone(self) -> str:
        """A model in shards is trained once."""
        return "it trains twice, the task first"


def rows(
    task_rows: Sequence[dict[str, Any]], settings: Settings, *, seed: int, safety: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The safety rows, which are trained on last."""
    return list(safety)


def prelude(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    settings: Settings,
    *,
    rows: list[dict[str, Any]],
    training: TrainSettings,
    train: Callable[[list[dict[str, Any]], TrainSettings, Optimizer, str], None],
    models: Mapping[str, Checkpoint | Adapted] | None = None,
    **needs: Any,
) -> None:
    """The weights of the base, and the task.

    Args:
        rows: of the task; models: `base`, as it is stored.
    """
    import torch

    from holdfast.train.loop import groups

    if settings.start == "base":
        assert models is not None  # these settings ask for them
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(models["base"].get_tensor(name))
    optimizer = torch.optim.AdamW(groups(model, training), lr=training.learning_rate, betas=training.betas, fused=True)
    train(rows, training, optimizer, "the task first")
