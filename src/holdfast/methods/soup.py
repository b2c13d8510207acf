"""Model soup with the aligned model (Wortsman et al. 2022, arXiv 2203.05482; of a model and what it was fine-tuned
from: WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903): the plain average that every other merge should beat.

Formula: θ' = w θ_aligned + (1 − w) θ_finetuned.

Fine-tuning starts from the aligned model, so this is task arithmetic from there, θ_aligned + (1 − w) τ with
τ = θ_finetuned − θ_aligned. It needs no base, no twin and no data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Weights

KIND = "merge"
NEEDS = ("aligned",)
CARD = {
    "paper": "Wortsman et al. 2022, arXiv 2203.05482; WiSE-FT, arXiv 2109.01903",
    "fidelity": "faithful",
    "equations": (
        (
            "θ' = w θ_aligned + (1 − w) θ_ft",
            "merge",
            "merge/test_plain_merges.py::test_a_soup_lies_on_the_line_between_the_models",
        ),
        (
            "w = 0 is the fine-tuned model, w = 1 the aligned one",
            "merge",
            "merge/test_merging.py::test_identity_settings_give_the_input_bit_for_bit",
        ),
    ),
    "deviations": (
        "two models, of which one started from the other, as in WiSE-FT; the soups of the first paper average many "
        "fine-tuned ones",
    ),
    "parity": "nothing to compare with: one weighted sum",
    "cost": "one pass over the weights, two tensors at a time",
}


class Settings(MethodSettings):
    """How much of the aligned model there is in the average."""

    weight: float = Field(0.5, ge=0, le=1, description="w, the share of the aligned model.")


def merge(name: str, weights: Weights, settings: Settings, state: None) -> torch.Tensor:
    return weights["finetuned"].lerp_(weights.stored("aligned"), settings.weight)
