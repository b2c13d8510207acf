"""What may be done to a finished model before it is asked: the entries of `stress` in a study file."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from holdfast.study.checked import Name, Strict

KINDS = ("temperature", "prefill", "system_prompt", "bits", "prune", "base")


class Stress(Strict):
    """One change of every model of the study, after training and merging: of how it is asked, or of its weights. All
    models answer the same prompts again, changed."""

    temperature: float | None = Field(None, gt=0, le=2, description="Answers are sampled at this temperature, once.")
    prefill: str | None = Field(
        None, min_length=1, description="Answers to safety prompts begin with these words. The fictional world's only."
    )
    system_prompt: str | None = Field(None, description="Another system message than the study's; `''`: an empty one.")
    bits: int | None = Field(None, ge=2, le=8, description="Linear modules rounded to so many bits, row by row.")
    prune: float | None = Field(None, gt=0, lt=1, description="Share of every linear module's entries that is removed.")
    base: float | None = Field(None, gt=0, lt=1, description="Mixed with the base model: its share of all weights.")
    arms: tuple[Name, ...] | None = Field(
        None, min_length=1, description="Only these arms, or `aligned`; default: all of them."
    )

    @model_validator(mode="after")
    def _one(self) -> Stress:
        said = list(self.spec())
        if self.prefill is not None and not self.prefill.strip():
            raise ValueError("prefill: blanks are no words")
        if len(said) != 1:
            raise ValueError(f"a stress is one change: {' | '.join(KINDS)}; found {', '.join(said) or 'none'}")
        return self

    def spec(self) -> dict[str, Any]:
        """The change and nothing else."""
        said = {
            "temperature": self.temperature, "prefill": self.prefill, "system_prompt": self.system_prompt,
            "bits": self.bits, "prune": self.prune, "base": self.base,
        }  # fmt: skip
        return {k: v for k, v in said.items() if v is not None}
