"""RESTA_d (Bhardwaj et al. 2024, arXiv 2402.11746): RESTA on a sparsified task vector (DARE).

Formula: δ = θ_finetuned − θ_start,  δ' = k ⊙ δ / (1 − p) with k ~ Bernoulli(1 − p),
θ' = θ_start + δ' + γ (θ_aligned − θ_unaligned).

Every arm here starts from the aligned model, so θ_start is `aligned`; `start: base` takes the
difference to the base model instead, which then also thins out safety training itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "unaligned", "base")
CARD = {
    "paper": "Bhardwaj et al. 2024, arXiv 2402.11746 (RESTA_d); DARE: Yu et al. 2023, arXiv 2311.03099",
    "fidelity": "faithful",
    "equations": (
        (
            "θ' = θ_start + δ' + γ v",
            "merge",
            "merge/test_published_merges.py::test_resta_d_thins_the_task_vector_from_its_start_and_adds_the_safety_vector",
        ),
        ("δ' = k ⊙ δ / (1 − p)", "holdfast.merge.fusion.dare", "merge/test_merging.py::test_dare_drops_and_rescales"),
        ("p = 0 is RESTA", "merge", "merge/test_merging.py::test_dare_without_drop_is_resta"),
    ),
    "deviations": ("the task vector is measured from the start of fine-tuning, which here is the aligned model",),
    "parity": "the authors' own repository could not be had; its parts are compared in `resta` and `task-vectors`",
    "cost": "one pass over the weights, three tensors at a time",
}


class Settings(MethodSettings):
    """The safety vector, how much of it is added, and how the task vector is thinned out."""

    gamma: float = Field(0.5, ge=0, le=10, description="How much of the safety vector is added.")
    drop: float = Field(0.3, ge=0, lt=1, description="Probability p that an entry of the task vector is dropped.")
    vector: Literal["unaligned", "base"] = Field("unaligned", description="What is subtracted from aligned.")
    start: Literal["aligned", "base"] = Field("aligned", description="What the task vector is measured from.")

    def artifacts(self) -> dict[str, Any]:
        """The models that both vectors are measured from, beside aligned."""
        return {"roles": sorted({self.vector, self.start} - {"aligned"})}


def prepare(settings: Settings, context: Context) -> int:
    return context.seed


def merge(name: str, weights: Weights, settings: Settings, state: int) -> torch.Tensor:
    from holdfast.merge import fusion

    out = weights["finetuned"]
    if settings.drop:
        start = weights.stored(settings.start)
        out = fusion.dare(out.sub_(start), settings.drop, fusion.generator(state, name)).add_(start)
        del start
    if settings.gamma:
        out.add_(weights["aligned"].sub_(weights.stored(settings.vector)), alpha=settings.gamma)
    return out
