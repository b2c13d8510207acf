"""LSSF (Zhou et al., ACL 2025, arXiv 2602.00038): add back the part of the safety vector that lies in a low-rank
subspace of what a module writes on refusals.

Formula: δ = W_aligned − W_unaligned,  Z = W_aligned X̂ = U S Vᵀ (X̂: inputs on refusals, columns of length 1),
p_i = σ_i² / Σ σ²,  H_k = −Σ_{i≤k} p_i ln p_i,  r = min {k : H_k / H_n ≥ η},
a_i = 1 + (a_1 − 1)(σ_i − σ_r) / (σ_1 − σ_r),  P = U_r diag(a)² U_rᵀ,  W' = W_finetuned + α P δ.

The authors published no code. What the paper as told by others does not settle, or what is not always at hand, is a
setting:

* `power`. Columns of U_r scaled by a make P = U'U'ᵀ, which holds a²; 1 takes a itself. Without emphasis (a_1 = 1)
  both are the projector on the subspace.
* `vector: unaligned` is the published one, the aligned model after a short fine-tuning on harmful answers;
  `vector: base` takes what safety training made of the base.
* `subspace: vector` needs no data: U and σ are those of δ itself.

Z Zᵀ = W (X̂ X̂ᵀ) Wᵀ, so the Gram matrix of inputs of length 1 is all that is kept of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "unaligned", "base", "gram")
CARD = {
    "paper": "Zhou et al., ACL 2025, arXiv 2602.00038",
    "fidelity": "variant",
    "equations": (
        (
            "U, σ of Z = W X̂ from a Gram matrix",
            "holdfast.merge.subspace.left",
            "merge/test_subspace_merges.py::test_a_gram_matrix_is_enough_for_what_a_module_writes",
        ),
        (
            "the whole rule, from rows to weights",
            "merge",
            "merge/test_subspace_merges.py::test_lssf_is_the_published_rule_on_activations_of_refusals",
        ),
        (
            "r = min {k : H_k / H_n ≥ η}",
            "rank",
            "merge/test_subspace_merges.py::test_the_rank_keeps_the_asked_share_of_the_entropy",
        ),
        (
            "a_i, and P with a or a²",
            "emphases",
            "merge/test_subspace_merges.py::test_leading_directions_are_emphasised_between_one_and_the_first",
        ),
        (
            "a_1 = 1: P is symmetric and idempotent; η = 1: P δ = δ",
            "directions",
            "merge/test_subspace_merges.py::test_lssf_without_emphasis_projects_and_with_all_entropy_is_resta",
        ),
    ),
    "deviations": (
        "no code was published; the formula is the paper's as two accounts of it agree, and η, α and a_1 are ours",
        "all linear modules of the decoder blocks; embeddings, norms and head stay fine-tuned",
        "refusals of the study (their safety rows) instead of 128 requests that the aligned model refuses",
    ),
    "parity": "no public code was found",
    "cost": "an eigendecomposition per module (n³) and an SVD (m n²), float64; training the twin",
}


class Settings(MethodSettings):
    """The safety vector, the subspace it is projected on, and how much of it is added."""

    strength: float = Field(1.0, ge=0, le=10, description="α, how much of the projected safety vector is added.")
    entropy: float = Field(0.9, gt=0, le=1, description="η, share of the entropy of singular values that is kept.")
    emphasis: float = Field(1.0, ge=1, le=10, description="a_1, the factor of the leading direction; the last has 1.")
    power: Literal[1, 2] = Field(2, description="Whether P holds a or, as U'U'ᵀ with scaled columns does, a².")
    vector: Literal["unaligned", "base"] = Field("unaligned", description="What is subtracted from aligned.")
    subspace: Literal["activations", "vector"] = Field(
        "activations", description="Directions of what modules write on refusals, or of the safety vector itself."
    )

    def unread(self) -> set[str]:
        """The power of factors that are all 1."""
        return {"power"} if self.emphasis == 1 else set()

    def artifacts(self) -> dict[str, Any]:
        """The model the safety vector is measured from, and Gram matrices of inputs of length 1."""
        return {"roles": [self.vector], "gram": "unit" if self.subspace == "activations" else None}


def rank(s: torch.Tensor, entropy: float) -> int:
    """r, the least number of singular values (falling) whose entropy is that share of that of all."""
    import torch

    p = s.double() ** 2 / (s.double() ** 2).sum()
    each = torch.special.entr(p).cumsum(0)
    # A spectrum of one direction has no entropy, and rank 1.
    return int((each < entropy * each[-1]).count_nonzero()) + 1


def emphases(s: torch.Tensor, first: float) -> torch.Tensor:
    """A (r,), from `first` at the leading singular value to 1 at the last; all 1 where they do not differ."""
    import torch

    spread = s[0] - s[-1]
    return 1 + (first - 1) * (s - s[-1]) / spread if spread > 0 else torch.ones_like(s)


def directions(
    w: torch.Tensor, gram: torch.Tensor | None, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """(U_r (m, r), a to its power (r,)), float64: P = U_r diag(a^power) U_rᵀ."""
    from holdfast.merge import subspace

    u, s = subspace.left(w, gram)
    r = rank(s, settings.entropy)
    return u[:, :r], emphases(s[:r], settings.emphasis) ** settings.power


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    return {"context": context, "ranks": []}


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    from holdfast.model.layers import of_weight

    out, found = weights["finetuned"], of_weight(name)
    if not found or settings.strength == 0:
        return out
    aligned = weights.stored("aligned")
    delta = aligned - weights.stored(settings.vector)
    if not delta.any():
        return out
    if settings.subspace == "vector":
        u, a = directions(delta, None, settings)
    else:
        u, a = directions(aligned, state["context"].gram[found[0]], settings)
    state["ranks"].append(u.shape[1] / min(aligned.shape))
    state["context"].record["rank_share"] = sum(state["ranks"]) / len(state["ranks"])
    return out.add_(((u * a) @ (u.T @ delta.double())).float(), alpha=settings.strength)
