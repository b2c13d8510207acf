"""Safe Delta (Lu et al., ICML 2025): keep as much of the update as a bound on safety damage allows.

Formula: H = 2 X Xᵀ + λ mean(diag) I over safe activations X,  Uᵀ U = H⁻¹ (U upper triangular),
d = diag U. Tile by tile of at most 2048 columns: W is the aligned weight as earlier tiles left it, and keeping
entry ij of ΔW = W_finetuned − W costs ΔW_ij² / d_j². Entries are taken in the order of 1 / d_j², all rows of a
column before the next, while the cost of the tile stays within ε; the last int(0.15 · entries) of that order are
never kept. From left to right, in groups of four columns, the damage of what was kept is compensated on every
column to the right of the group, in this tile and in those to come:
W_:,k −= (err_j / d_j) U_jk with err_j = W_:,j − the value it got.

`budget: published` is the authors' ε = mean(1 / d²) · s / 2 · rows / 4096. It is an absolute amount of
update energy, so it depends on width, learning rate and epochs. `budget: relative` makes `strength`
the share of a tile's whole cost that may be kept, between 0 (aligned) and 1.

Only linear layers take part: embeddings, norms and the head stay those of the aligned model, so that strength 0 is
that model. `elsewhere: finetuned` takes them from the fine-tuned model: keeping everything then gives that one.
Activations are those of the aligned model throughout, as in the authors' code, which computes what a block hands on
before it adjusts the block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "gram")
CARD = {
    "paper": "Lu et al., ICML 2025 (SafeDelta)",
    "fidelity": "variant",
    "equations": (
        (
            "the whole rule, tile by tile",
            "fuse",
            "merge/test_published_merges.py::test_safe_delta_is_the_published_rule_on_compensated_tiles",
        ),
        (
            "strength 0 is the aligned model",
            "merge",
            "merge/test_merging.py::test_safe_delta_without_a_budget_is_the_aligned_model",
        ),
        (
            "Uᵀ U = (2 X Xᵀ + damping)⁻¹",
            "inverse_factor",
            "merge/test_merging.py::test_safe_delta_factor_is_the_cholesky_factor_of_the_inverse",
        ),
        (
            "Σ kept ΔW² / d² ≤ ε",
            "selection",
            "merge/test_merging.py::test_safe_delta_keeps_more_with_more_strength_and_within_its_budget",
        ),
        (
            "compensation on the columns to the right",
            "fuse",
            "merge/test_merging.py::test_safe_delta_compensation_lowers_the_damage",
        ),
    ),
    "deviations": (
        "the default budget is a share of the update's own cost, because the published one means another amount for "
        "every width, learning rate and number of epochs; `budget: published` is the authors' rule",
        "float64 where the authors' code has float32; rows of one column are taken in their order, where theirs "
        "leaves the order to an unstable sort",
        "safe activations are those of the study's safety rows",
    ),
    "parity": "ColinLu50/SafeDelta at 3a4ea35: equal up to float32 with `budget: published` where their sort is made "
    "stable. As it is, it leaves the rows of one column in any order, and which of them are kept is chance;"
    " ours takes them in their order",
    "cost": "one Cholesky inverse per input (n³) and a column loop of m n² per module",
}


class Settings(MethodSettings):
    """How much damage to safety an update may do, and how it is told."""

    strength: float = Field(0.5, ge=0, description="s; a larger one keeps more of the update.")
    budget: Literal["relative", "published"] = Field("relative", description="What `strength` is measured in.")
    damping: float = Field(0.01, gt=0, description="λ, as a share of the mean diagonal of H.")
    never_kept: float = Field(0.15, ge=0, lt=1, description="Share of a tile's entries, the most costly, never kept.")
    tile: int = Field(2048, ge=1, description="Columns that share one budget.")
    group: int = Field(4, ge=1, description="Columns that do not compensate each other; 1 compensates in every column.")
    elsewhere: Literal["aligned", "finetuned"] = Field(
        "aligned", description="Whose embeddings, norms and head the result has."
    )

    def artifacts(self) -> dict[str, Any]:
        """The Gram matrices of all linear modules."""
        return {"roles": [], "gram": "all"}


def inverse_factor(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """U (n, n) float64, upper triangular, Uᵀ U = (2 G + λ mean(diag) I)⁻¹."""
    import torch

    h = 2 * gram.double()
    h.diagonal().add_(damping * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def selection(delta: torch.Tensor, d: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Boolean (m, k): which entries of one tile of the update are kept."""
    import torch

    m, k = delta.shape
    order = torch.argsort(1 / d**2, stable=True)
    cost = (delta[:, order] / d[order]).pow(2).T.flatten()  # column after column, cheapest columns first
    total = cost.sum()
    share = settings.strength * total if settings.budget == "relative" else (
        (1 / d**2).mean() * settings.strength / 2 * m / 4096
    )  # fmt: skip
    keep = cost.cumsum(0) <= share * (1 + 1e-9)
    keep[keep.numel() - int(settings.never_kept * keep.numel()) :] = False
    out = torch.zeros(m, k, dtype=torch.bool)
    out[:, order] = keep.reshape(k, m).T
    return out


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    return {"grams": context.gram, "factors": {}, "settings": settings, "context": context, "kept": [0, 0]}


def fuse(
    aligned: torch.Tensor, finetuned: torch.Tensor, u: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """(W', kept entries of the update (m, n)): the compensated weight of one module, float64 inside."""
    import torch

    out, target = aligned.double().clone(), finetuned.double()
    kept, n = torch.zeros(out.shape, dtype=torch.bool), out.shape[1]
    for left in range(0, n, settings.tile):
        tile = slice(left, min(left + settings.tile, n))
        factor, block, wanted = u[tile, tile], out[:, tile], target[:, tile]
        kept[:, tile] = keep = selection(wanted - block, factor.diagonal(), settings)
        errors = torch.empty_like(block)
        for i in range(0, block.shape[1], settings.group):
            own, right = slice(i, i + settings.group), slice(i + settings.group, None)
            column = torch.where(keep[:, own], wanted[:, own], block[:, own])
            errors[:, own] = (block[:, own] - column) / factor.diagonal()[own]
            block[:, own] = column  # `block` is a view of `out`
            block[:, right] -= errors[:, own] @ factor[own, right]
        out[:, tile.stop :] -= errors @ u[tile, tile.stop :]
    return out, kept & (finetuned != aligned)


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    from holdfast.model.layers import of_weight

    found = of_weight(name)
    if not found:
        return weights[settings.elsewhere]
    aligned, finetuned = weights.stored("aligned"), weights.stored("finetuned")
    entry = found[0]
    if entry not in state["factors"]:
        block = entry.rsplit(".", 1)[0]
        state["factors"] = {k: v for k, v in state["factors"].items() if k.startswith(f"{block}.")}
        state["factors"][entry] = inverse_factor(state["grams"][entry], settings.damping)
    out, kept = fuse(aligned, finetuned, state["factors"][entry], settings)
    state["kept"][0] += int(kept.count_nonzero())
    state["kept"][1] += int((finetuned != aligned).count_nonzero())
    state["context"].record["kept_fraction"] = state["kept"][0] / max(1, state["kept"][1])
    return out.float()
