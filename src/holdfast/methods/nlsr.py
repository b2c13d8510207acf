"""NLSR (Yi et al., AAAI 2025, arXiv 2412.12497): of modules whose safety-critical entries have strayed, put these
entries back from an amplified safety reference.

Formula: θ_sup = θ_aligned + α (θ_aligned − θ_weak),  D_x = W_x − W_weak for x in {sup, finetuned},
Z = X D_supᵀ on refusal tokens X, V its leading right singular vectors, a share ρ of min(m, n),
M = the share κ of entries of V Vᵀ D_sup with the largest magnitude,  c = cos(vec(M ⊙ D_finetuned), vec(M ⊙ D_sup)),
modules ranked by c,  p from q − ε to q + ε linear in the rank,  b ~ Bernoulli(p),
W' = M ⊙ W_sup + (1 − M) ⊙ W_finetuned where b = 1, else W_finetuned.

The authors work on the factors A and B of adapters that stand on one SFT model: an SFT and a DPO adapter make the
reference, and the fine-tuned adapter began as a copy of it. Where these factors are not at hand nothing of them can be
compared (B A = (B G)(G⁻¹ A)), so this is the same rule on whole updates: `weak` plays the SFT model, the aligned model
the DPO model. That makes it a variant.

`chance` says which way p goes. The paper restores what strays most: the least similar module has q + ε (`paper`). The
authors' code ranks the other way round, against its own comment, and gives the most similar module q + ε (`code`).
Their code also amplifies both factors by 2 α, which makes the update 4 α² = 3.24 times as large; the equation, followed
here, makes it 1 + α = 1.9 times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "base", "unaligned", "gram")
CARD = {
    "paper": "Yi et al., AAAI 2025, arXiv 2412.12497",
    "fidelity": "variant",
    "equations": (
        (
            "M: the largest entries of V Vᵀ D_sup",
            "critical",
            "merge/test_subspace_merges.py::test_nlsr_finds_what_writes_the_leading_directions_on_refusals",
        ),
        (
            "p from q − ε to q + ε by rank of similarity",
            "chances",
            "merge/test_subspace_merges.py::test_nlsr_restores_likelier_what_strays_or_as_the_code_does_what_does_not",
        ),
        (
            "the whole rule, from rows to weights",
            "merge",
            "merge/test_subspace_merges.py::test_nlsr_is_the_published_rule_on_whole_updates",
        ),
        (
            "θ_sup = θ_ft or q = ε = 0 change nothing, q = 1 restores every M",
            "merge",
            "merge/test_subspace_merges.py::test_nlsr_restores_nothing_or_everything_at_its_limits",
        ),
    ),
    "deviations": (
        "whole updates W − W_weak in place of the factors A and B of adapters with one beginning",
        "the aligned model and the model it was made from in place of a DPO and an SFT adapter",
        "the reference is amplified by the equation; inputs are those of the aligned, not of the amplified model",
        "refusals of the study instead of 2,000 answers to harmful requests; exact instead of randomised SVD",
        "one Bernoulli draw per module, named by seed and module",
    ),
    "parity": "xinykou/NLSR at aaee2b7: the mask of critical entries agrees but for their inexact SVD, and so do the "
    "probabilities with `chance: code`. Their ranking gives the most similar module the largest, against "
    "the paper and their own comment, and their amplified update is 3.24 times that of DPO where the equation "
    "has 1.9: the paper's is the default, and the equation followed. Cosines and exchange work on factors of "
    "adapters there and are not compared",
    "cost": "an eigendecomposition (n³) and an SVD (m n²) per module, twice where it is restored",
}


class Settings(MethodSettings):
    """The reference, which entries are critical, and which modules get them back."""

    weak: Literal["base", "unaligned"] = Field("base", description="What the reference amplifies the difference to.")
    amplify: float = Field(0.9, ge=0, le=10, description="α, how far the reference goes on beyond aligned.")
    rank_share: float = Field(0.8, gt=0, le=1, description="ρ, directions kept, as a share of min(m, n).")
    critical: float = Field(0.2, gt=0, le=1, description="κ, share of a module's entries that are critical.")
    probability: float = Field(0.5, ge=0, le=1, description="q, mean probability that a module is restored.")
    spread: float = Field(0.2, ge=0, le=1, description="ε, how far the probability goes from q by similarity.")
    chance: Literal["paper", "code"] = Field(
        "paper", description="The least similar module is the likeliest (paper), or the most similar (code)."
    )

    def unread(self) -> set[str]:
        """Which way a probability goes that is the same for all."""
        return {"chance"} if self.spread == 0 else set()

    def artifacts(self) -> dict[str, Any]:
        """The model that safety training changed, and Gram matrices over the tokens of refusals."""
        return {"roles": [self.weak], "gram": "response"}


def critical(delta: torch.Tensor, gram: torch.Tensor, settings: Settings) -> torch.Tensor:
    """M (m, n) boolean, of one update of the reference."""
    from holdfast.merge import fusion, subspace

    u, _ = subspace.left(delta, gram)
    v = u[:, : max(1, int(settings.rank_share * min(delta.shape)))]  # right singular vectors of X Dᵀ: left ones of D H
    return fusion.trim(v @ (v.T @ delta.double()), settings.critical) != 0


def chances(cosines: Mapping[str, float], settings: Settings) -> dict[str, float]:
    """Module -> the probability that it is restored, in [0, 1]."""
    ranked = sorted(cosines, key=lambda k: (cosines[k], k), reverse=settings.chance == "paper")
    last = max(1, len(ranked) - 1)
    out = {k: settings.probability + settings.spread * (2 * i / last - 1) for i, k in enumerate(ranked)}
    return {k: min(1.0, max(0.0, p)) for k, p in out.items()}


def _module(name: str, weights: Weights, settings: Settings, gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(M, W_sup) of one module."""
    aligned = weights["aligned"]
    weak = weights.stored(settings.weak)
    reference = aligned.add_(aligned - weak, alpha=settings.amplify)
    return critical(reference - weak, gram, settings), reference


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    """The modules to restore, and where their inputs are found."""
    import torch

    from holdfast.merge import fusion
    from holdfast.model.layers import of_weight

    inputs = {name: found[0] for name in context.names if (found := of_weight(name))}
    cosines, critical_ones = {}, set()  # a share of a small module may be no entry
    for name, entry in inputs.items():
        weights = context.weights(name)
        mask, reference = _module(name, weights, settings, context.gram[entry])
        critical_ones |= {name} if mask.any() else set()
        weak = weights.stored(settings.weak)
        a, b = ((mask * (w - weak)).double().flatten() for w in (weights.stored("finetuned"), reference))
        cosines[name] = float(torch.cosine_similarity(a, b, dim=0))
        context.say(f"{name}: cosine {cosines[name]:.3f}")
    chosen = {
        name for name, p in chances(cosines, settings).items()
        if float(torch.rand((), generator=fusion.generator(context.seed, "nlsr", name))) < p
    }  # fmt: skip
    context.record |= {"modules": len(cosines), "modules_restored": len(chosen & critical_ones)}
    return {"inputs": inputs, "chosen": chosen, "gram": context.gram}


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    import torch

    finetuned = weights["finetuned"]
    if name not in state["chosen"]:
        return finetuned
    mask, reference = _module(name, weights, settings, state["gram"][state["inputs"][name]])
    return torch.where(mask, reference, finetuned)
