"""Lisa (Huang et al. 2024, arXiv 2405.18641): spells of safety rows and of task rows, each kept near where it began.

Formula: in turn `align_steps` steps on safety rows and `task_steps` on task rows, each step on
L(θ) + ρ / 2 ‖θ − a‖² with a = θ at the beginning of the spell.

The paper keeps two states, the last weights of each kind of spell, and pulls either to the other's: the weights at the
last switch, so one copy is enough. As in the authors' code the pull rests for the first tenth of all steps, a kind with
0 steps never has its turn (then a is the start), and the first spell aligns.

K is counted in optimizer steps. The rows of the task are in the order and number of plain training, and those whose
turn comes in an aligning spell are left out of that pass, as there: the run is as long as plain fine-tuning and sees
`task_steps` of `align_steps + task_steps` of its rows. The pull's gradient ρ (θ − a) is added once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from holdfast.errors import TrainingError
from holdfast.study.registry import MethodSettings
from holdfast.train.beside import Beside, Stream

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from holdfast.train.beside import Batch
    from holdfast.train.loop import TrainSettings

KIND = "train"
NEEDS = ("aligned", "safety")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "Huang et al. 2024, arXiv 2405.18641",
    "fidelity": "variant",
    "equations": (
        (
            "align_steps on safety rows, task_steps on task rows, in turn",
            "Spells.batches",
            "methods/test_beside_methods.py::test_spells_take_turns_and_safety_rows_come_as_they_are_counted",
        ),
        (
            "ρ / 2 ‖θ − a‖², a = θ at the last switch",
            "Spells.before_step",
            "methods/test_beside_methods.py::test_lisa_is_its_formula_step_by_step",
        ),
        (
            "ρ = 0 with one kind of spell is plain training on its rows",
            "beside",
            "methods/test_beside_methods.py::test_one_kind_of_spell_without_a_pull_is_plain_training",
        ),
        (
            "the larger ρ, the nearer the end of a spell to its beginning",
            "Spells.before_step",
            "methods/test_beside_methods.py::test_a_stronger_pull_keeps_a_spell_nearer_its_beginning",
        ),
    ),
    "deviations": (
        "all weights, where the authors train adapters (rank 8 on q and v): ‖θ − a‖² is over many more numbers, and "
        "ρ = 1 holds harder; sweep it downwards",
        "1 and 9 steps in turn, where their 20,000 steps have spells of 100 and 900: a run of some hundred steps would "
        "end within one",
        "steps are optimizer steps, and the pull counts once in each; theirs are micro-batches, the same without "
        "accumulation",
    ),
    "parity": "git-disl/Lisa at 68e3659: whose turn a step is and the weights after forty steps are equal, at one "
    "micro-batch a step",
    "cost": "plain fine-tuning plus one more copy of the trained weights (4 bytes each), read once a step",
}


class Settings(MethodSettings):
    """How long the spells are, and how strongly they are kept near their beginning."""

    align_steps: int = Field(1, ge=0, description="Optimizer steps of a spell on safety rows.")
    task_steps: int = Field(9, ge=0, description="Optimizer steps of a spell on task rows.")
    strength: float = Field(1.0, ge=0, description="ρ, on half the squared distance from the spell's beginning.")
    rest_fraction: float = Field(0.1, ge=0, le=1, description="Share of all steps before the pull begins.")
    benign: bool = Field(True, description="Answered benign safety rows too, as the safety training has them.")

    @model_validator(mode="after")
    def _something(self) -> Settings:
        if not self.align_steps + self.task_steps:
            raise ValueError("align_steps and task_steps cannot both be 0")
        return self

    def unread(self) -> set[str]:
        """When a pull begins that there is not, how strong one is that never begins, and which rows of a spell that
        there is not."""
        pull = {"rest_fraction"} if not self.strength else {"strength"} if self.rest_fraction == 1 else set()
        return pull | ({"benign"} if not self.align_steps else set())

    def cost(self) -> tuple[float, float]:
        """Where a spell began."""
        return (1.0 if self.strength and self.rest_fraction < 1 else 0.0), 0.0

    def fewest_steps(self) -> int:
        """One more than the first aligning spell, for a row of the task to be seen."""
        return self.align_steps + 1 if self.task_steps else 1

    def alone(self) -> str:
        """Rows of aligning spells are not shared out."""
        return "its safety rows are not shared out over processes"


class Spells(Beside):
    """Whose turn a step is, and the weights its spell began with."""

    def __init__(self, settings: Settings, batches: Stream | None, accumulation: int) -> None:
        self.settings, self.stream, self.accumulation = settings, batches, accumulation
        self.began: dict[str, torch.Tensor] = {}

    def aligning(self, step: int) -> bool:
        """Whether a step is on safety rows."""
        s = self.settings
        return step % (s.align_steps + s.task_steps) < s.align_steps

    def begins(self, step: int) -> bool:
        """Whether a step is the first of its spell."""
        return step == 0 or self.aligning(step) != self.aligning(step - 1)

    def batches(self, batches: list[Batch], step: int) -> list[Batch]:
        """As many micro-batches of safety rows as the step would have of the task's."""
        if self.stream is None or not self.aligning(step):
            return batches
        spells, within = divmod(step, self.settings.align_steps + self.settings.task_steps)
        before = spells * self.settings.align_steps + within
        return [self.stream.batch(before * self.accumulation + i) for i in range(len(batches))]

    def before_step(self, model: torch.nn.Module, step: int, steps: int) -> None:
        """ρ (θ − a) as a gradient, from the second step of a spell on, where it is 0.

        Raises:
            TrainingError: the whole run would be one aligning spell.
        """
        s = self.settings
        if step == 0 and s.task_steps and steps <= s.align_steps:
            raise TrainingError(
                "Lisa's first aligning spell is longer than the run, so that no row of the task would be seen.",
                found=f"align_steps {s.align_steps} of {steps} steps", expected=f"fewer than {steps}",
                do="lower align_steps of the arm, or train for longer",
            )  # fmt: skip
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not s.strength:
            return
        if self.begins(step):
            self.began = {name: p.detach().clone() for name, p in named.items()}
        elif step > s.rest_fraction * steps:
            for name, p in named.items():
                p.grad = s.strength * (p.detach() - self.began[name])

    def state(self) -> dict[str, torch.Tensor]:
        """Where the spell began."""
        return self.began

    def restore(self, state: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
        """Where it began, on the model's device."""
        there = dict(model.named_parameters())
        self.began = {name: tensor.to(there[name]) for name, tensor in state.items()}


def beside(
    model: PreTrainedModel,
    settings: Settings,
    training: TrainSettings,
    *,
    stream: Callable[[list[dict[str, Any]], int], Stream],
    safety: Sequence[dict[str, Any]],
    **others: Any,
) -> Beside:
    """Spells over the safety rows, in micro-batches as large as the task's."""
    rows = [r for r in safety if settings.benign or r["kind"] == "hazard"]
    guide = stream(rows, training.batch_size) if settings.align_steps else None
    return Spells(settings, guide, training.accumulation)
