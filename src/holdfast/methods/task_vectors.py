"""Task vectors of safety training and of the task, merged on the base model: task arithmetic (Ilharco et al. 2023,
arXiv 2212.04089), TIES (Yadav et al. 2023, arXiv 2306.01708) or DARE (Yu et al. 2023, arXiv 2311.03099), with the
aligned model as the second model. Nothing is learned.

Formula: δ_s = θ_aligned − θ_base,  δ_t = θ_finetuned − θ_start,  θ' = θ_base + λ Merge(δ_s, δ_t).

`fusion: sum` is task arithmetic, `ties` trims, elects signs and averages what agrees, `dare` adds vectors of which a
share was dropped. `start: base` measures both vectors from the base, as published for models that were trained apart.
Here fine-tuning starts from the aligned model, so both then hold safety training; `start: aligned` counts it once, and
TIES decides between what safety training and what the task did to an entry.

Some corners are other methods: with `sum` and `start: base`, λ = 1/2 is the soup of equal parts and λ = 1 is RESTA
with `vector: base` and γ = 1; with `sum` and `start: aligned`, λ = 1 is the fine-tuned model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "base")
CARD = {
    "paper": "Ilharco et al. 2023, arXiv 2212.04089; TIES: arXiv 2306.01708; DARE: arXiv 2311.03099",
    "fidelity": "faithful",
    "equations": (
        (
            "θ' = θ_base + λ (δ_s + δ_t)",
            "merge",
            "merge/test_plain_merges.py::test_task_arithmetic_adds_both_vectors_to_the_base",
        ),
        (
            "TIES: trim, elect, disjoint mean",
            "holdfast.merge.fusion.ties",
            "merge/test_plain_merges.py::test_ties_with_the_aligned_model_is_the_published_rule",
        ),
        (
            "DARE of each vector",
            "holdfast.merge.fusion.dare",
            "merge/test_plain_merges.py::test_dare_with_the_aligned_model_thins_each_vector_by_itself",
        ),
        (
            "λ = 1/2 is a soup, λ = 1 is RESTA, or the fine-tuned model",
            "merge",
            "merge/test_plain_merges.py::test_task_arithmetic_has_soup_resta_and_the_model_itself_as_corners",
        ),
    ),
    "deviations": (
        "one λ for all tensors, embeddings, norms and head included; trimming is per tensor, so that the merge streams",
    ),
    "parity": "arcee-ai/mergekit at a6e4028: task arithmetic and TIES are equal, and DARE with the same entries "
    "dropped. mergekit keeps the norm of a vector that was thinned (`rescale`); ours divides by the share "
    "kept, as the paper does",
    "cost": "one pass over the weights, four tensors at a time; TIES sorts each once per vector",
}


class Settings(MethodSettings):
    """How the two task vectors become one, and how much of it is added to the base."""

    fusion: Literal["sum", "ties", "dare"] = Field("ties", description="Task arithmetic, TIES, or sums after DARE.")
    weight: float = Field(1.0, ge=0, le=10, description="λ, on the merged task vector.")
    density: float = Field(0.2, gt=0, le=1, description="TIES: share of entries of a vector kept by magnitude.")
    drop: float = Field(0.3, ge=0, lt=1, description="DARE: probability that an entry is dropped.")
    start: Literal["base", "aligned"] = Field("base", description="What the vector of the task is measured from.")

    def unread(self) -> set[str]:
        """What belongs to another way to fuse."""
        return {"density", "drop"} - {"ties": {"density"}, "dare": {"drop"}}.get(self.fusion, set())

    def artifacts(self) -> dict[str, Any]:
        """The model that safety training started from."""
        return {"roles": ["base"]}


def prepare(settings: Settings, context: Context) -> int:
    return context.seed


def merge(name: str, weights: Weights, settings: Settings, state: int) -> torch.Tensor:
    from holdfast.merge import fusion

    base = weights["base"]
    task = weights.update() if settings.start == "aligned" else weights["finetuned"].sub_(base)
    merged = fusion.combine(
        [weights["aligned"].sub_(base), task], settings.fusion, drop=settings.drop, density=settings.density,
        stream=lambda i: fusion.generator(state, name, i),
    )  # fmt: skip
    return base.add_(merged, alpha=settings.weight)
