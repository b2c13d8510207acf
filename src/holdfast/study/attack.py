"""An attacker who tunes, as a study file describes him: what he may choose, how often he tries, what he must keep."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from holdfast.study.checked import LARGEST_SEED, Name, Strict


def _rises(value: tuple[Any, Any]) -> tuple[Any, Any]:
    if value[0] > value[1]:
        raise ValueError("a range is [lowest, highest]")
    return value


Rate = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1000)]


class Attack(Strict):
    """Per defence, task and seed an attacker tunes the fine-tuning for few refusals at a utility that he must keep: so
    many trials, chosen on validation prompts and rows; the best one is measured on the evaluated split. Needs the extra
    `attack`."""

    arms: tuple[Name, ...] = Field(
        min_length=1,
        description="Defences: arms that are trained, with his settings in place of theirs, and merges, whose source "
        "is trained with his settings and which is then merged with its own.",
    )
    tasks: tuple[Name, ...] = Field(min_length=1, description="Tasks whose rows he fine-tunes on.")
    trials: int = Field(20, ge=1, le=10_000, description="How often he fine-tunes, per defence, task and seed.")
    learning_rate: Annotated[tuple[Rate, Rate], AfterValidator(_rises)] = Field(
        description="Lowest and highest peak learning rate, drawn by its logarithm."
    )
    epochs: Annotated[tuple[Count, Count], AfterValidator(_rises)] = Field(
        (1, 3), description="Fewest and most passes over the rows."
    )
    harmful_fraction: Annotated[tuple[Share, Share], AfterValidator(_rises)] = Field(
        (0.0, 0.0), description="Smallest and largest share of rows that are forbidden answers of the fictional world."
    )
    rank: Annotated[tuple[Count, Count], AfterValidator(_rises)] | None = Field(
        None, description="Smallest and largest rank, of defences whose method has one; none: the arm's own."
    )
    order: int = Field(
        1, ge=1, le=1000, description="How many orders of the rows he may choose from; the first is the study's."
    )
    utility_loss: float = Field(
        0.05, ge=0, lt=1,
        description="How far below full fine-tuning the utility of his model may be on validation rows, to count.",
    )  # fmt: skip
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="How he comes from trials to the next one: `tpe` learns from them, `random` does not."
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Of his choices.")
    dollars_per_hour: float | None = Field(
        None, gt=0, description="Price of the machine that one trial has, for dollars in the table; none: no dollars."
    )

    @field_validator("arms", "tasks")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("name each once")
        return value

    @model_validator(mode="after")
    def _chooses(self) -> Attack:
        if not self.chooses(ranked=True):
            raise ValueError("an attacker who may choose nothing does not tune: give a range")
        return self

    def chooses(self, *, ranked: bool) -> bool:
        """Whether there is anything to choose against a defence that has a rank, or none."""
        ranges: list[tuple[float, float]] = [self.learning_rate, self.epochs, self.harmful_fraction]
        ranges += [self.rank] if self.rank and ranked else []
        return self.order > 1 or any(low < high for low, high in ranges)

    @property
    def harmful(self) -> bool:
        """Whether he may mix in forbidden answers."""
        return self.harmful_fraction[1] > 0
