"""KL to the aligned model on safety rows: the plain penalty that constrained methods have to beat.

Formula: L(θ) = L_task(θ) + β · mean_t KL(π_aligned(· | x, y_<t) || π_θ(· | x, y_<t)), t over the answer tokens of
`rows` safety rows, others in every optimizer step.

The direction is the one that asks θ to cover whatever the aligned model may say; the gradient with respect to the
logits is π_θ − π_aligned. Answers are those of the safety data, so that nothing is generated. The aligned model is a
frozen copy beside the trained one: exact whatever the vocabulary, where stored log-probabilities would be rows ×
tokens × vocabulary numbers (64 GB of 5,000 answers of 100 tokens and 32,000 words). The log shows the task's loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings
from holdfast.train.beside import Beside, Stream, predicted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned", "safety")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "a baseline without a paper of its own; the penalty of RLHF (Ziegler et al. 2019, arXiv 1909.08593), here "
    "on safety rows",
    "fidelity": "variant",
    "equations": (
        (
            "mean_t Σ_v π_a(v) (log π_a(v) − log π_θ(v))",
            "divergence",
            "methods/test_beside_methods.py::test_the_penalty_is_the_mean_kl_over_answer_tokens_and_pulls_as_it_should",
        ),
        (
            "L_task + β KL, once an optimizer step",
            "Penalty",
            "methods/test_beside_methods.py::test_the_penalty_counts_once_a_step_however_many_micro_batches",
        ),
        ("β = 0 is plain", "beside", "methods/test_beside_methods.py::test_strength_zero_is_plain_training"),
    ),
    "deviations": (),
    "parity": "no public code: a baseline of this project",
    "cost": "one more copy of the weights (4 bytes each, no gradients or moments: a fifth copy beside four), and per "
    "optimizer step a forward of it and a forward and backward of the model over `rows` rows",
}


class Settings(MethodSettings):
    """How strongly the aligned model is held to, and where."""

    strength: float = Field(1.0, ge=0, description="β, on the mean divergence of an answer token, in nats.")
    rows: int = Field(8, ge=1, description="Safety rows looked at in every optimizer step.")
    prompts: Literal["refused", "all"] = Field(
        "refused", description="Refused requests only, or the answered benign safety rows among them."
    )

    def cost(self) -> tuple[float, float]:
        """The frozen copy, which goes forward only."""
        return (1.0, 4 / 3 * self.rows) if self.strength else (0.0, 0.0)

    def alone(self) -> str:
        """The frozen copy is whole."""
        return "its frozen copy is not in shards"


def divergence(
    model: torch.nn.Module, frozen: torch.nn.Module, batch: dict[str, torch.Tensor], *, bf16: bool = False
) -> torch.Tensor:  # fmt: skip
    """Mean KL(frozen || model), in nats, over the answer tokens of a batch."""
    import torch

    with torch.no_grad():
        aligned = torch.log_softmax(predicted(frozen, batch, bf16=bf16)[0], dim=-1)
    current = torch.log_softmax(predicted(model, batch, bf16=bf16)[0], dim=-1)
    return torch.nn.functional.kl_div(current, aligned, log_target=True, reduction="sum") / len(current)


class Penalty(Beside):
    """The gradient of β KL on the safety rows of every step."""

    def __init__(self, frozen: torch.nn.Module, batches: Stream, strength: float, *, bf16: bool) -> None:
        self.frozen, self.stream, self.strength, self.bf16 = frozen, batches, strength, bf16

    def before_step(self, model: torch.nn.Module, step: int, steps: int) -> None:
        """Leave it in `.grad`."""
        loss = self.strength * divergence(model, self.frozen, self.stream.batch(step), bf16=self.bf16)
        loss.backward()  # type: ignore[no-untyped-call]


def beside(
    model: PreTrainedModel,
    settings: Settings,
    training: TrainSettings,
    *,
    stream: Callable[[list[dict[str, Any]], int], Stream],
    safety: Sequence[dict[str, Any]],
    **others: Any,
) -> Beside:
    """The penalty towards `model` as it is now; nothing at all with strength 0."""
    if not settings.strength:
        return Beside()
    rows = [r for r in safety if settings.prompts == "all" or r["kind"] == "hazard"]
    frozen = copy.deepcopy(model).requires_grad_(False).eval()  # type: ignore[no-untyped-call]
    return Penalty(frozen, stream(rows, settings.rows), settings.strength, bf16=training.precision == "bf16")
