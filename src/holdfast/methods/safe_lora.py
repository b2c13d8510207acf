"""Safe LoRA (Hsu et al. 2024, arXiv 2405.16833): pull updates that stray back onto the alignment direction.

Formula: V = W_aligned − W_base,  Δ = W_finetuned − W_aligned,  c = cos(vec(C Δ), vec(Δ));
where c ≤ τ:  W' = W_aligned + C Δ,  otherwise W' = W_finetuned.

`projection: published` uses C = V Vᵀ / ‖V‖_F as the authors' code does; it is symmetric but no
projector: it rescales with ‖V‖ and applying it twice differs. `projection: projector` is the true
C = V (VᵀV)⁺ Vᵀ. For LoRA cells Δ = s B A and C Δ = s (C B) A, the published update of B. For a dense V
with no more rows than columns the true projector is the identity, and then nothing changes.

`number` selects the modules with the smallest cosines instead of a threshold. It is the authors' default, with 10; here
the threshold is, at the 0.5 of their other mode, because 10 means another share of every model (a demo has 21 modules,
Llama 2 7B with their q and v has 64). Only the named modules are touched; everything else stays as fine-tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.checked import Modules
from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "base")
CARD = {
    "paper": "Hsu et al. 2024, arXiv 2405.16833",
    "fidelity": "faithful",
    "equations": (
        (
            "the modules with cos(C Δ, Δ) ≤ τ, or the `number` smallest",
            "prepare",
            "merge/test_published_merges.py::test_safe_lora_projects_the_modules_that_stray_most",
        ),
        ("W' = W_aligned + C Δ where cos ≤ τ", "merge", "merge/test_merging.py::test_safe_lora_projects_what_strays"),
        ("C (B A) = (C B) A", "project", "merge/test_merging.py::test_safe_lora_published_form_equals_the_update_of_b"),
        (
            "C = V (VᵀV)⁺ Vᵀ is idempotent",
            "project",
            "merge/test_merging.py::test_the_true_projector_is_idempotent_and_published_is_not",
        ),
    ),
    "deviations": (
        "cosines are not rounded; C is never formed; dense updates are projected like low-rank ones",
        "a threshold of 0.5 is the default; the authors' code defaults to the 10 modules with the smallest cosines",
    ),
    "parity": "IBM/SafeLoRA at d81fda1: the projected factors are equal, chosen by threshold or by number",
    "cost": "two passes over the target modules, about 4 m n² operations each (an SVD with the true projector)",
}


class Settings(MethodSettings):
    """Which updates are projected, and by what."""

    threshold: float = Field(0.5, ge=-2, le=2, description="τ: updates with a cosine up to this are projected.")
    number: int | None = Field(None, ge=0, description="Project this many modules instead, the smallest cosines first.")
    projection: Literal["published", "projector"] = Field(
        "published", description="The authors' C, or a true projector."
    )
    modules: Modules = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), description="Modules looked at."
    )

    def unread(self) -> set[str]:
        """A threshold where a number of modules is given."""
        return {"threshold"} if self.number is not None else set()

    def artifacts(self) -> dict[str, Any]:
        """The base model, from which the alignment direction is measured."""
        return {"roles": ["base"]}


def project(v: torch.Tensor, delta: torch.Tensor, projection: str) -> torch.Tensor:
    """C Δ without ever building C (m, m). v, delta: (m, n)."""
    import torch

    if projection == "published":
        norm = torch.linalg.matrix_norm(v)
        return v @ (v.T @ delta) / norm if norm else torch.zeros_like(delta)
    u, s, _ = torch.linalg.svd(v.double(), full_matrices=False)
    u = u[:, s > s[:1] * max(v.shape) * torch.finfo(v.dtype).eps]
    pulled: torch.Tensor = (u @ (u.T @ delta.double())).to(delta.dtype)
    return pulled


def _projected(name: str, weights: Weights, settings: Settings) -> tuple[torch.Tensor, float, torch.Tensor]:
    """(C Δ, cosine with Δ, W_aligned) of one module; the cosine of a zero update counts as 1."""
    import torch

    aligned, delta = weights["aligned"], weights.update()
    v = aligned - weights.stored("base")
    pulled = project(v, delta, settings.projection)
    norms = torch.linalg.vector_norm(pulled) * torch.linalg.vector_norm(delta)
    cosine = float((pulled * delta).sum() / norms) if norms else (1.0 if not delta.any() else 0.0)
    return pulled, cosine, aligned


def prepare(settings: Settings, context: Context) -> set[str]:
    """The modules to project, by name."""
    from holdfast.model.layers import of_weight

    cosines = {}
    for name in context.names:
        found = of_weight(name)
        if found and found[1] in settings.modules:
            cosines[name] = _projected(name, context.weights(name), settings)[1]
            context.say(f"{name}: cosine {cosines[name]:.3f}")
    if settings.number is None:
        chosen = {k for k, c in cosines.items() if c <= settings.threshold}
    else:
        chosen = set(sorted(cosines, key=lambda k: (cosines[k], k))[: settings.number])
    context.record |= {"modules": len(cosines), "modules_projected": len(chosen)}
    return chosen


def merge(name: str, weights: Weights, settings: Settings, state: set[str]) -> torch.Tensor:
    if name not in state:
        return weights["finetuned"]
    pulled, _, aligned = _projected(name, weights, settings)
    return aligned.add_(pulled)


def merge_factor(
    name: str, b: torch.Tensor, weights: Weights, settings: Settings, state: set[str]
) -> torch.Tensor:  # fmt: skip
    """The factor C B (m, r): the same projection of an adapter, C (s B A) = s (C B) A."""
    if name not in state:
        return b
    return project(weights["aligned"] - weights.stored("base"), b, settings.projection)
