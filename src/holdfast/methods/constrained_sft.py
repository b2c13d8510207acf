"""Token-wise constrained SFT (Qi et al. 2024, arXiv 2406.05946): the first tokens of an answer may hardly move.

Formula: L(θ) = −mean_t (2 / β_t) log σ(β_t Δ_t) with Δ_t = log π_θ(y_t | x, y_<t) − log π_start(y_t | x, y_<t), whose
gradient is that of −mean_t w_t log π_θ(y_t | x, y_<t) with w_t = 2 (1 − σ(β_t Δ_t)) held constant.

A token that the tuned model already says more readily than the model it started from counts less, and the less the
larger β_t is: 5 β for the first token, 20 β up to the fifth, β for the rest, with β = 0.1. As β goes to 0 every w_t
goes to 1: plain fine-tuning. As β grows, tokens that have gained stop counting. At the start w_t = 1 everywhere.

The authors halve AdamW's memory of gradients (β₁ = 0.5), so that weights which fall act at once; so does `momentum`.
Trained on in the second form, as the authors' code does, which is stable however small β is. The start model's
log-probabilities are taken once before training and kept, a number per supervised token: no second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from holdfast.model import chat
from holdfast.study.registry import MethodSettings
from holdfast.train.beside import Beside, predicted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.model.layers import Layer
    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned",)
LEARNING_RATE = 6e-4
CARD = {
    "paper": "Qi et al. 2024, arXiv 2406.05946 (Safety Alignment Should Be Made More Than Just a Few Tokens Deep)",
    "fidelity": "faithful",
    "equations": (
        (
            "∇L = −mean_t w_t ∇log π_θ(y_t)",
            "Constrained",
            "methods/test_beside_methods.py::test_weighted_tokens_have_the_gradient_of_the_published_objective",
        ),
        (
            "w_t = 2 (1 − σ(β_t Δ_t)), at least `floor`",
            "weights",
            "methods/test_beside_methods.py::test_weights_of_tokens_that_gained_and_lost",
        ),
        (
            "β_t = 5 β, 20 β, 20 β, 20 β, 20 β, β, ...",
            "betas",
            "methods/test_beside_methods.py::test_the_first_tokens_have_the_published_betas",
        ),
        (
            "AdamW with β₁ = 0.5",
            "optimizer",
            "methods/test_beside_methods.py::test_momentum_of_the_constrained_loss_is_the_published_one",
        ),
        (
            "β = 0 is plain, w_t = 1 at the start",
            "beside",
            "methods/test_beside_methods.py::test_beta_zero_is_plain_training_and_at_the_start_every_weight_is_one",
        ),
    ),
    "deviations": ("a cosine to 0, as in every arm; theirs is linear after 10 steps of warm-up, at 2e-5",),
    "parity": "Unispac/shallow-vs-deep-alignment at fb1749e: β of every place, the loss of a batch and its gradient "
    "are equal",
    "cost": "plain fine-tuning plus one forward pass over the task's rows before it, and 4 bytes per token of them",
}


class Settings(MethodSettings):
    """How strongly the tokens of an answer are held, by their place in it."""

    beta: float = Field(0.1, ge=0, description="β of the tokens after the early ones, per nat.")
    early_tokens: int = Field(5, ge=0, description="Tokens at the beginning of an answer that are held more.")
    early_factor: float = Field(20.0, ge=0, description="Their β over that of the others.")
    first_factor: float = Field(5.0, ge=0, description="That of the very first, whose loss is large to begin with.")
    momentum: float = Field(0.5, ge=0, lt=1, description="AdamW's β₁.")
    floor: float = Field(1e-3, ge=0, le=1, description="The least a token counts.")

    def unread(self) -> set[str]:
        """What early tokens have where there are none, and the second one's where there is one."""
        if not self.beta:
            return {"early_tokens", "early_factor", "first_factor", "floor"}
        return {0: {"early_factor", "first_factor"}, 1: {"early_factor"}}.get(self.early_tokens, set())

    def alone(self) -> str:
        """Values of tokens are not shared out."""
        return "what it knows of every token is not shared out over processes"


def betas(count: int, settings: Settings) -> list[float]:
    """β_t of an answer of `count` tokens, the end of the turn among them."""
    early = [settings.beta * settings.early_factor] * min(count, settings.early_tokens)
    early[:1] = [settings.beta * settings.first_factor] * min(1, len(early))
    return (early + [settings.beta] * count)[:count]


def weights(gained: torch.Tensor, beta: torch.Tensor, floor: float) -> torch.Tensor:
    """w_t of tokens whose log-probability is `gained` (N,) nats above the start model's, constant for a gradient."""
    import torch

    return (2 * torch.sigmoid(-beta * gained)).clamp(min=floor).detach()


def optimizer(
    model: PreTrainedModel, layers: Sequence[Layer], settings: Settings, training: TrainSettings, **needs: Any
) -> torch.optim.AdamW:
    """AdamW with its own momentum."""
    import torch

    from holdfast.train.loop import groups

    return torch.optim.AdamW(
        groups(model, training), lr=training.learning_rate, betas=(settings.momentum, training.betas[1]), fused=True
    )


class Constrained(Beside):
    """Token losses times w_t; examples know the start model's log-probability and β of every token."""

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def token_losses(
        self, logits: torch.Tensor, targets: torch.Tensor, values: dict[str, torch.Tensor]
    ) -> torch.Tensor:  # fmt: skip
        """w_t times the loss of token t."""
        losses = super().token_losses(logits, targets, values)
        return weights(-losses - values["reference"], values["beta"], self.floor) * losses


def beside(
    model: PreTrainedModel,
    settings: Settings,
    training: TrainSettings,
    *,
    encoded: Sequence[chat.Example],
    **others: Any,
) -> Beside:
    """Give every example the reference and β of its tokens, 0 where nothing is supervised; nothing with β = 0."""
    import torch

    if not settings.beta:
        return Beside()
    for start in range(0, len(encoded), training.batch_size):
        chunk = encoded[start : start + training.batch_size]
        with torch.no_grad():
            logits, targets, _ = predicted(model, chat.collate(chunk, pad_id=0), bf16=training.precision == "bf16")
            known = iter(torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0].tolist())
        for example in chunk:
            places = [i for i, label in enumerate(example["labels"]) if label != chat.IGNORE]
            values = {name: [0.0] * len(example["labels"]) for name in ("reference", "beta")}
            for place, beta in zip(places, betas(len(places), settings), strict=True):
                values["reference"][place], values["beta"][place] = next(known), beta
            example["values"] = values
    return Constrained(settings.floor)
