"""Panacea (Wang et al. 2025, arXiv 2501.18100): learn the perturbation that undoes harmful tuning, and add it last.

Formula: min_w max_{‖ε‖ ≤ ρ} g(w) − λ (h(w + ε) − h(w)), g the task's loss, h the loss of harmful answers;
ε = ρ ∇h(w) / ‖∇h(w)‖, one norm over all trained weights, in every step anew;
step on ∇g(w) − λ (∇h(w + ε) − ∇h(w)), ∇h(w + ε) = 0 where h(w + ε) > `cap`; result w + ε of the last step.

Harmful answers are the rejected side of the study's preference pairs: the fictional world's, or those of the user's
file. The model is moved away from them, so that a checkpoint is marked as weakened only where its task is poisoned.

The harmful rows of a step are others in every optimizer step, and its two passes come once in it, whatever the
accumulation. The weights before a perturbation are kept and put back, so that they return to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from holdfast.study.registry import MethodSettings
from holdfast.train.beside import Beside, Stream, predicted

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned", "preferences")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "Wang et al. 2025, arXiv 2501.18100",
    "fidelity": "variant",
    "equations": (
        (
            "ε = ρ ∇h / (‖∇h‖ + 1e-7)",
            "perturb",
            "methods/test_beside_methods.py::test_the_perturbation_has_its_length_and_weights_come_back",
        ),
        (
            "∇g(w) − λ (∇h(w + ε) − ∇h(w)); the result is w + ε",
            "Perturbed",
            "methods/test_beside_methods.py::test_panacea_is_its_formula_step_by_step",
        ),
        (
            "h(w + ε) is cut at `cap`, and pulls nowhere above it",
            "Perturbed.before_step",
            "methods/test_beside_methods.py::test_a_harmful_loss_above_the_cap_pulls_nowhere",
        ),
        (
            "λ = 0 without the perturbation is plain",
            "beside",
            "methods/test_beside_methods.py::test_strength_zero_is_plain_training",
        ),
    ),
    "deviations": (
        "all weights, where the authors train adapters of rank 32 on q, k and v; a cosine and no weight decay, where "
        "theirs is constant and 0.1",
        "the cut loss is what is differentiated: the authors' code differentiates a name that nothing assigns, and "
        "cannot run as it is",
        "harmful rows come from the table that poisons a task too, where a study does so; the authors take others",
    ),
    "parity": "w-yibo/Panacea at d17b2db, whose step cannot run as published: read with `loss_h` for the name that "
    "nothing assigns, the gradient of a step and ε are equal, below the cap and above. Weights come back to"
    " the last bit here and to rounding there",
    "cost": "two more forward and backward passes over `rows` rows per optimizer step, and while they last three more "
    "copies of the trained weights",
}


class Settings(MethodSettings):
    """How far weights are perturbed, and how much of what that would change is trained on."""

    radius: float = Field(1.0, ge=0, description="ρ, the length of the perturbation over all trained weights.")
    strength: float = Field(1e-3, ge=0, description="λ, on what the perturbation adds to the harmful loss.")
    cap: float = Field(5.0, gt=0, description="The perturbed harmful loss, in nats, above which it pulls nowhere.")
    rows: int = Field(10, ge=1, description="Harmful rows looked at in every optimizer step.")
    add_perturbation: bool = Field(True, description="Add the last perturbation to the trained weights.")

    def artifacts(self) -> dict[str, Any]:
        """The preference pairs, whose rejected side is harmful."""
        return {"preferences": True}

    def unread(self) -> set[str]:
        """Where a pull ends that there is not."""
        return set() if self.strength else {"cap"}

    def cost(self) -> tuple[float, float]:
        """The weights before the perturbation, the perturbation, and a second gradient; two passes."""
        return (3.0, 2.0 * self.rows) if self.strength or self.add_perturbation else (0.0, 0.0)

    def alone(self) -> str:
        """One norm over all gradients, of rows of its own."""
        return "its perturbation is not in shards"


def perturb(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], radius: float) -> None:
    """Turn `gradients` into ε, in place, and add it to `weights`."""
    import torch

    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]))
    for weight, gradient in zip(weights, gradients, strict=True):
        gradient.mul_(radius / (norm + 1e-7))
        weight.add_(gradient)


class Perturbed(Beside):
    """The gradient of −λ (h(w + ε) − h(w)) in every step, and ε after the last."""

    def __init__(self, settings: Settings, batches: Stream, *, bf16: bool) -> None:
        self.settings, self.stream, self.bf16 = settings, batches, bf16
        self.last: list[torch.Tensor] = []

    def before_step(self, model: torch.nn.Module, step: int, steps: int) -> None:
        """Leave it in `.grad`; weights are as they were."""
        import torch

        batch = self.stream.batch(step)
        trained = [p for p in model.parameters() if p.requires_grad]

        def slope(cap: float = math.inf) -> Sequence[torch.Tensor]:
            """∇h where the weights are now."""
            logits, targets, _ = predicted(model, batch, bf16=self.bf16)
            return torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets).clamp(max=cap), trained)

        found = slope()
        with torch.no_grad():
            kept = [p.clone() for p in trained]
            for p, gradient in zip(trained, found, strict=True):
                p.grad = self.settings.strength * gradient
            perturb(trained, found, self.settings.radius)
        there = slope(self.settings.cap)
        with torch.no_grad():
            for p, weight, gradient in zip(trained, kept, there, strict=True):
                p.copy_(weight)
                assert p.grad is not None
                p.grad.sub_(self.settings.strength * gradient)
        if step == steps - 1:
            self.last = list(found)

    def finish(self, model: torch.nn.Module) -> None:
        """W + ε of the last step, which is never part of a checkpoint: a run that goes on takes that step again."""
        import torch

        if self.settings.add_perturbation:
            with torch.no_grad():
                for p, epsilon in zip((p for p in model.parameters() if p.requires_grad), self.last, strict=True):
                    p.add_(epsilon)


def beside(
    model: PreTrainedModel,
    settings: Settings,
    training: TrainSettings,
    *,
    stream: Callable[[list[dict[str, Any]], int], Stream],
    harmful: Sequence[dict[str, Any]],
    **others: Any,
) -> Beside:
    """The perturbation by the rejected answers of preference pairs; nothing where it would change nothing."""
    if not settings.strength and not settings.add_perturbation:
        return Beside()
    rows = [{"id": r["id"], "prompt": r["prompt"], "response": r["rejected"]} for r in harmful]
    return Perturbed(settings, stream(rows, settings.rows), bf16=training.precision == "bf16")
