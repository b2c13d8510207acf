"""SOMF (Yi et al. 2024, arXiv 2405.09055): learn which coordinates of a task vector can be added back
to the safe model without losing safety.

Formula: τ = θ_finetuned − θ_aligned,  m = σ((ℓ + log u − log(1 − u)) / T) with u ~ U(0, 1),
θ(ℓ) = θ_aligned + w Merge_t(τ_t ⊙ m / mean(m)),  ℓ = argmin DPO(θ(ℓ); ref = θ_aligned, β) on
preference pairs (refusal over harmful answer).

One logit per entry, shared by the tasks, mean(m) per tensor. The exported mask is m = σ(ℓ), the mask of the
authors' code outside training, so the same logits always give the same model; what that code saves is one random
sample of it. `export: threshold` keeps the entries with ℓ > 0 instead: a few steps leave most logits small, their
signs alone are an adversarial choice, and the merged model breaks (docs/decisions.md has the numbers). `mask: shuffled`
permutes the learned mask within each tensor: the control with exactly its density. `across_tasks` fuses the
fine-tuned models of all tasks of the study (same arm, same seed) by task arithmetic, DARE or TIES.

Deviations: dense task vectors also for LoRA cells (the reference masks A and B apart, which is no
subspace of Δ); learning holds the task vectors and logits in memory, the merge itself streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Context, Weights

KIND = "merge"
NEEDS = ("aligned", "preferences")
CARD = {
    "paper": "Yi et al. 2024, arXiv 2405.09055",
    "fidelity": "variant",
    "equations": (
        (
            "τ ⊙ m / mean(m)",
            "masked",
            "merge/test_merging.py::test_somf_full_mask_is_the_task_vector_and_scaling_the_mask_cancels",
        ),
        ("ℓ by DPO", "prepare", "merge/test_merging.py::test_somf_learns_from_preferences_and_touches_only_the_logits"),
        (
            "−log σ(β Δ)",
            "dpo_loss",
            "merge/test_merging.py::test_dpo_loss_is_log_two_at_the_reference_and_falls_with_the_margin",
        ),
        ("m = σ(ℓ)", "export", "merge/test_merging.py::test_somf_exports_what_it_trained_and_shuffles_exactly_that"),
    ),
    "deviations": (
        "one dense mask per tensor, not one each for the factors A and B",
        "export of the mean mask σ(ℓ) instead of one random sample",
        "the safe model is the aligned model of the study (SSFT), without a DPO stage of its own",
    ),
    "cost": "two forward and one backward pass per preference pair and epoch, 12 bytes per weight while learning",
}


class Settings(MethodSettings):
    """How task vectors are fused and masked, and how the mask is learned."""

    weight: float = Field(1.0, ge=0, le=10, description="w, on the merged task vector.")
    fusion: Literal["sum", "mean", "dare", "ties"] = Field("sum", description="How task vectors become one.")
    drop: float = Field(0.2, ge=0, lt=1, description="DARE: probability that an entry is dropped.")
    density: float = Field(0.2, gt=0, le=1, description="TIES: share of entries kept by magnitude.")
    across_tasks: bool = Field(False, description="Fuse the fine-tuned models of all tasks, not of one.")
    mask: Literal["learned", "shuffled", "none"] = Field("learned", description="The learned mask, or a control.")
    export: Literal["soft", "threshold"] = Field("soft", description="The mask is σ(ℓ), or ℓ > 0.")
    temperature: float = Field(0.5, gt=0, description="T of the relaxed Bernoulli.")
    beta: float = Field(0.1, gt=0, description="β of DPO.")
    learning_rate_logits: float = Field(0.05, gt=0, description="AdamW on the logits.")
    epochs: float = Field(2, gt=0, description="Passes over the preference pairs.")
    batch_size: int = Field(16, ge=1, description="Pairs per step.")

    def artifacts(self) -> dict[str, Any]:
        """The preference pairs, unless there is no mask to learn, and perhaps the models of all tasks."""
        return {"roles": [], "preferences": self.mask != "none", "across_tasks": self.across_tasks}


def deltas(weights: Weights) -> list[torch.Tensor]:
    """Task vectors of one tensor, one per task."""
    start = weights.stored("aligned")
    return [weights[role].sub_(start) for role in weights if role.split(":")[0] == "finetuned"]


def masked(
    values: list[torch.Tensor], mask: torch.Tensor | None, settings: Settings, seed: int, name: str
) -> torch.Tensor:
    """`w Merge(τ ⊙ m / mean(m))` of one tensor; mask (shape of τ) in [0, 1] or None."""
    from holdfast.merge import fusion

    if mask is not None:
        scale = mask.float().mean().clamp(min=1e-6)
        values = [v * mask / scale for v in values]
    how = "sum" if len(values) == 1 else settings.fusion
    return settings.weight * fusion.combine(
        values, how, drop=settings.drop, density=settings.density, seed=seed, name=name
    )


def dpo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """−log σ(β [(log π − log π_ref)(chosen) − (log π − log π_ref)(rejected)]), mean over pairs."""
    import torch

    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -torch.nn.functional.logsigmoid(beta * margin).mean()


def prepare(settings: Settings, context: Context) -> dict[str, Any]:
    """Learn the logits; returns the exported mask per tensor, and what `merge` needs."""
    import torch
    from torch.func import functional_call

    from holdfast.merge import fusion
    from holdfast.model import preferences

    state: dict[str, Any] = {"seed": context.seed, "mask": None}
    if settings.mask == "none":
        return state
    model, tokenizer = context.model("aligned")
    known = dict(model.named_parameters())
    model.requires_grad_(False)
    start = {k: p.detach() for k, p in known.items()}
    vectors = {k: [d.to(start[k].device) for d in deltas(context.weights(k))] for k in context.names if k in start}
    logits = {k: torch.zeros_like(start[k], requires_grad=True) for k in vectors}
    optimizer = torch.optim.AdamW(logits.values(), lr=settings.learning_rate_logits, weight_decay=0.0)
    pairs = preferences.encode(tokenizer, context.preferences)
    with torch.no_grad():
        reference = preferences.log_probabilities(model, pairs, tokenizer.pad_token_id, settings.batch_size)
    stream = fusion.generator(context.seed, "somf")
    steps = max(1, round(settings.epochs * len(pairs) / settings.batch_size))
    queue: list[int] = []
    for step in range(steps):
        while len(queue) < min(settings.batch_size, len(pairs)):
            queue += torch.randperm(len(pairs), generator=stream).tolist()
        chosen, queue = queue[: settings.batch_size], queue[settings.batch_size :]
        parameters = {}
        for name, logit in logits.items():
            u = torch.rand(logit.shape, generator=stream).clamp_(1e-6, 1 - 1e-6).to(logit.device)
            relaxed = torch.sigmoid((logit + torch.log(u) - torch.log1p(-u)) / settings.temperature)
            parameters[name] = start[name] + masked(vectors[name], relaxed, settings, context.seed, name)
        policy = preferences.log_probabilities(
            lambda parameters=parameters, **batch: functional_call(model, parameters, kwargs=batch),
            [pairs[i] for i in chosen], tokenizer.pad_token_id, settings.batch_size, device=model.device,
        )  # fmt: skip
        start_chosen, start_rejected = (r[chosen] for r in reference)
        loss = dpo_loss(*policy, start_chosen, start_rejected, settings.beta)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 0 or step == steps - 1:
            context.say(f"mask: step {step + 1}/{steps}  loss {float(loss.detach()):.4f}")
    state["mask"] = {k: export(v.detach().cpu(), settings, context.seed, k) for k, v in logits.items()}
    kept = sum(float(m.double().sum()) for m in state["mask"].values())
    context.record |= {
        "mask_density": kept / sum(m.numel() for m in state["mask"].values()),
        "mask_loss": float(loss.detach()), "mask_steps": steps,
    }  # fmt: skip
    return state


def export(logit: torch.Tensor, settings: Settings, seed: int, name: str) -> torch.Tensor:
    """The mask of one tensor in [0, 1] by its logits, or a permutation of its entries."""
    import torch

    from holdfast.merge import fusion

    mask = logit > 0 if settings.export == "threshold" else torch.sigmoid(logit)
    if settings.mask == "shuffled":
        order = torch.randperm(mask.numel(), generator=fusion.generator(seed, "shuffled", name))
        mask = mask.flatten()[order].reshape(mask.shape)
    return mask


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    mask = state["mask"].get(name) if state["mask"] else None
    if mask is not None and not mask.any():
        return weights["aligned"]
    everything = mask is None or bool((mask == 1).all())
    if everything and settings.weight == 1 and not settings.across_tasks:
        return weights["finetuned"]  # the identity, bit for bit
    return weights["aligned"].add_(masked(deltas(weights), mask, settings, state["seed"], name))
