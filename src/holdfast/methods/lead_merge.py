"""Leading directions after training: take out of a finished update what acts on the safety activations.

Formula: W' = W_aligned + ΔW (I − U_k U_kᵀ),  ΔW = W_finetuned − W_aligned, U_k the k = r n leading eigenvectors
of the Gram matrix of refusals, per linear module.

The merge form of `lead`: no training run is needed again, and none of it can make up for what is lost.
`elsewhere` says whose embeddings, norms and head the result has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned",)
CARD = {
    "paper": "a remedy of this project: `lead` applied to a finished update",
    "fidelity": "variant",
    "equations": (
        (
            "W' = W_aligned + ΔW (I − U_k U_kᵀ)",
            "merge",
            "merge/test_lead_merge.py::test_the_update_loses_what_acts_on_the_span",
        ),
    ),
    "deviations": (
        "with `rank_fraction` U_k is found by two rounds of subspace iteration, as `lead` finds it, and spans the k "
        "leading eigenvectors nearly; with `energy` by a whole decomposition",
    ),
    "parity": "no public code: a remedy of this project",
    "cost": "the directions, and 4 m n k operations per linear module",
}


class Settings(MethodSettings):
    """Which directions are held, and what the rest of the model is."""

    rank_fraction: float = Field(0.3, gt=0, le=1, description="Share r of the input directions that are held.")
    energy: float | None = Field(
        None, gt=0, le=1, description="Hold as many as carry this share of the activations' energy, module by module."
    )
    elsewhere: Literal["aligned", "finetuned"] = Field(
        "finetuned", description="Whose embeddings, norms and head the result has."
    )

    def unread(self) -> set[str]:
        """A share where energy decides."""
        return {"rank_fraction"} if self.energy is not None else set()

    def artifacts(self) -> dict[str, Any]:
        """The Gram matrices of all linear modules."""
        return {"gram": "all"}


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    return {"grams": context.gram, "held": {}}


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    from holdfast.model.layers import of_weight
    from holdfast.warp import basis

    found = of_weight(name)
    if not found:
        return weights[settings.elsewhere]
    reads = found[0]
    if reads not in state["held"]:
        state["held"] = {reads: basis.held(state["grams"][reads], reads, settings.rank_fraction, settings.energy)}
    u = state["held"][reads]
    if u.shape[0] == u.shape[1]:  # nothing of the update is left, to the last bit
        return weights["aligned"]
    update = weights.update()
    return weights["aligned"].add_(update.addmm_(update @ u, u.T, alpha=-1))
