"""RESTA (Bhardwaj et al. 2024, arXiv 2402.11746): add a safety vector back after fine-tuning.

Formula: θ' = θ_finetuned + γ v,  v = θ_aligned − θ_unaligned.

`vector: unaligned` is the published one: `unaligned` is the aligned model after a short fine-tuning
on harmful answers. `vector: base` takes aligned − base, the difference safety training made, which
is what the WSR-Tune authors used as their RESTA baseline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Weights

KIND = "merge"
NEEDS = ("aligned", "unaligned", "base")
CARD = {
    "paper": "Bhardwaj et al. 2024, arXiv 2402.11746",
    "fidelity": "faithful",
    "equations": (
        ("θ' = θ_ft + γ v", "merge", "merge/test_merging.py::test_resta_adds_the_safety_vector"),
        (
            "γ = 1 and θ_ft = θ_unaligned give θ_aligned",
            "merge",
            "merge/test_merging.py::test_resta_of_the_unaligned_model_is_the_aligned_one",
        ),
        ("linear in γ", "merge", "merge/test_merging.py::test_resta_is_linear_in_gamma"),
    ),
    "deviations": ("float32 arithmetic; LoRA cells are merged models, so v is a weight-space vector there too",),
    "parity": "the authors' own repository could not be had. Against the merge of WSR-Tune's authors, min-seong-"
    "kim/Safety-WaRP-LLM at 62655ed: equal in float32; they write bfloat16 unless asked otherwise",
    "cost": "one pass over the weights, three tensors at a time; no training beyond the unaligned twin",
}


class Settings(MethodSettings):
    """The safety vector, and how much of it is added."""

    gamma: float = Field(0.5, ge=0, le=10, description="How much of the safety vector is added.")
    vector: Literal["unaligned", "base"] = Field("unaligned", description="What is subtracted from aligned.")

    def artifacts(self) -> dict[str, Any]:
        """The model the safety vector is measured from."""
        return {"roles": [self.vector]}


def merge(name: str, weights: Weights, settings: Settings, state: None) -> torch.Tensor:
    out = weights["finetuned"]
    if settings.gamma == 0:
        return out
    vector = weights["aligned"].sub_(weights.stored(settings.vector))
    return out.add_(vector, alpha=settings.gamma)
