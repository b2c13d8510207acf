"""Safe Delta (Lu et al., ICML 2025): keep as much of the update as a bound on safety damage allows.

Formula: H = 2 X Xᵀ + λ mean(diag) I over safe activations X,  Uᵀ U = H⁻¹ (U upper triangular),
d = diag U. Keeping entry ij of ΔW = W_finetuned − W_aligned costs ΔW_ij² / d_j². Columns are taken in
the order of 1 / d_j² while the cost of a tile of at most 2048 columns stays within ε; then, column by
column, every kept entry's damage is compensated on the columns to its right:
W_:,k += −(err_j / d_j) U_jk with err_j the distance from the current value to the kept one.

`budget: published` is the authors' ε = mean(1 / d²) · s / 2 · rows / 4096. It is an absolute amount of
update energy, so it depends on width, learning rate and epochs. `budget: relative` makes `strength`
the share of a tile's whole cost that may be kept, between 0 (aligned) and 1.

Deviations: activations are those of the aligned model and are not recomputed after each block;
compensation is exact in every column (the authors' code skips it inside groups of four).
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
    "fidelity": "simplified",
    "equations": (
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
        "activations of the aligned model only, not recomputed after each block",
        "compensation in every column; the authors' code skips it inside groups of four",
        "the default budget is a share of the update's own cost; `budget: published` is the authors' rule",
    ),
    "cost": "one Cholesky inverse per input (n³) and a column loop of m n² per module",
}


class Settings(MethodSettings):
    """How much damage to safety an update may do, and how it is told."""

    strength: float = Field(0.5, ge=0, description="s; a larger one keeps more of the update.")
    budget: Literal["relative", "published"] = Field("relative", description="What `strength` is measured in.")
    damping: float = Field(0.01, gt=0, description="λ, as a share of the mean diagonal of H.")
    never_kept: float = Field(0.15, ge=0, lt=1, description="Share of a tile's entries, the most costly, never kept.")
    tile: int = Field(2048, ge=1, description="Columns that share one budget.")

    def artifacts(self) -> dict[str, Any]:
        """The Gram matrices of all linear modules."""
        return {"roles": [], "gram": True}


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
    if settings.never_kept:
        keep[round(keep.numel() * (1 - settings.never_kept)) :] = False
    out = torch.zeros(m, k, dtype=torch.bool)
    out[:, order] = keep.reshape(k, m).T
    return out


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    return {"grams": context.gram, "factors": {}, "settings": settings, "context": context, "kept": [0, 0]}


def fuse(
    aligned: torch.Tensor, finetuned: torch.Tensor, u: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """(W', kept entries (m, n)): the compensated weight of one module, float64 inside."""
    import torch

    delta = (finetuned - aligned).double()
    d = u.diagonal()
    tiles = range(0, delta.shape[1], settings.tile)
    kept = torch.cat(
        [selection(delta[:, i : i + settings.tile], d[i : i + settings.tile], settings) for i in tiles], dim=1
    )
    kept &= delta != 0
    out, target = aligned.double().clone(), finetuned.double()
    for j in range(delta.shape[1]):
        column = torch.where(kept[:, j], target[:, j], out[:, j])
        error = (out[:, j] - column) / d[j]
        out[:, j] = column
        if bool(kept[:, j].any()):
            out[:, j + 1 :] -= error[:, None] * u[j, None, j + 1 :]
    return out, kept


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    from holdfast.model.layers import of_weight

    found = of_weight(name)
    if not found:
        return weights["finetuned"]
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
