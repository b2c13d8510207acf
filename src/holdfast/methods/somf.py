"""SOMF (Yi et al. 2024, arXiv 2405.09055): learn which coordinates of a task vector can be added back
to the safe model without losing safety.

Formula: τ = θ_finetuned − θ_aligned,  m = σ((ℓ + log u − log(1 − u)) / T) with u ~ U(0, 1),
θ(ℓ) = θ_aligned + w Merge_t(τ_t ⊙ m / mean(m)),  ℓ = argmin DPO(θ(ℓ); ref = θ_aligned, β) on
preference pairs (refusal over harmful answer).

One logit per entry, shared by the tasks, mean(m) per tensor. `mask: shuffled` permutes the learned mask within each
tensor: the control with exactly its density. `across_tasks` fuses the fine-tuned models of all tasks of the study
(same arm, same seed) by task arithmetic, averaging, DARE or TIES.

Where the authors' code decides otherwise, their choice is a setting and ours, with its reason, the default:

* `export`. Their code saves a model with one more random mask, relaxed (`draw_sample`) or cut at 0.5
  (`binary_mask`), so two exports of the same logits differ. `soft` is m = σ(ℓ), always the same. `threshold` keeps
  ℓ > 0: a few steps leave most logits small, their signs alone are an adversarial choice, and the merged model breaks
  (docs/decisions.md has the numbers).
* `fusion`. Their `ties_merging` trims the flat vector of all tensors and sums the entries that agree (dis-sum);
  `ties` trims each tensor, so that the merge can stream, and takes the disjoint mean of the TIES paper. Their DARE
  draws what it drops anew at every forward pass, and drops for one task too (`dare_redrawn`); `dare` draws once, so
  that what is learned is what is merged, and leaves a single task alone, which nothing interferes with.
* `reference`. Their DPO compares with a second mask model whose logits stay 0 and whose mask is drawn anew for every
  batch (`mask`); `aligned` is the safe model itself, and the loss depends on ℓ and the batch alone.
* `schedule`, `warmup_steps`, `learning_rate_logits`. Theirs is a cosine from 1e-3 to 1e-2 over hundreds of steps; the
  default here has 50 steps, and AdamW moves a logit by about its rate in each, so it is larger and does not fall.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
            "θ(ℓ) and ℓ by DPO, step by step",
            "prepare",
            "merge/test_published_merges.py::test_somf_learns_as_the_published_form_does",
        ),
        (
            "τ ⊙ m / mean(m)",
            "masked",
            "merge/test_merging.py::test_somf_full_mask_is_the_task_vector_and_scaling_the_mask_cancels",
        ),
        (
            "m = σ((ℓ + log u − log(1 − u)) / T)",
            "relaxed",
            "merge/test_published_merges.py::test_somf_draws_a_relaxed_bernoulli_mask",
        ),
        ("−log σ(β Δ)", "dpo_loss", "merge/test_published_merges.py::test_somf_prefers_the_chosen_answer_by_beta"),
        ("m = σ(ℓ)", "export", "merge/test_merging.py::test_somf_exports_what_it_trained_and_shuffles_exactly_that"),
        (
            "the authors' TIES and DARE",
            "masked",
            "merge/test_published_merges.py::test_somf_fuses_tasks_as_the_authors_do_where_asked",
        ),
    ),
    "deviations": (
        "one dense mask per tensor, also for LoRA cells; the authors' code masks the factors A and B apart, which is "
        "no subspace of their product",
        "export of the mean mask, a fixed reference model, DARE drawn once, TIES per tensor and a constant rate by "
        "default; the authors' choices are settings",
        "the weight w applies to one task too; in the authors' code only DARE weighs a single task",
        "the safe model is the aligned model of the study (SSFT), without a DPO stage of its own",
    ),
    "parity": "xinykou/safety_realignment at 5a80593: the relaxed mask, τ ⊙ m / mean(m) and `fusion: ties_merging` "
    "are equal; `ties` is that of the TIES paper, per tensor and with a mean. Their DPO trainer is not "
    "compared",
    "cost": "two forward and one backward pass per preference pair and epoch, 12 bytes per weight while learning",
}


class Settings(MethodSettings):
    """How task vectors are fused and masked, and how the mask is learned."""

    weight: float = Field(1.0, ge=0, le=10, description="w, on the merged task vector.")
    fusion: Literal["sum", "mean", "dare", "ties", "dare_redrawn", "ties_merging"] = Field(
        "sum", description="How task vectors become one; the last two are the authors' DARE and TIES."
    )
    drop: float = Field(0.2, ge=0, lt=1, description="DARE: probability that an entry is dropped.")
    density: float = Field(0.2, gt=0, le=1, description="TIES: share of entries kept by magnitude.")
    across_tasks: bool = Field(False, description="Fuse the fine-tuned models of all tasks, not of one.")
    mask: Literal["learned", "shuffled", "none"] = Field("learned", description="The learned mask, or a control.")
    export: Literal["soft", "threshold", "draw_sample", "binary_mask"] = Field(
        "soft",
        description="The mask is σ(ℓ), or ℓ > 0, or as the authors save it: a relaxed sample, or one cut at 0.5.",
    )
    temperature: float = Field(0.5, gt=0, description="T of the relaxed Bernoulli.")
    beta: float = Field(0.1, gt=0, description="β of DPO.")
    reference: Literal["aligned", "mask"] = Field(
        "aligned", description="DPO's reference: the aligned model, or the authors' mask model with logits 0."
    )
    learning_rate_logits: float = Field(0.05, gt=0, description="AdamW on the logits.")
    schedule: Literal["constant", "cosine"] = Field("constant", description="How that rate goes on after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps over which that rate rises linearly.")
    epochs: float = Field(2, gt=0, description="Passes over the preference pairs.")
    batch_size: int = Field(16, ge=1, description="Pairs per step.")
    pairs_at_once: int | None = Field(
        None, ge=1, description="Of those, how many pass through the model together; fewer take less memory."
    )

    def unread(self) -> set[str]:
        """What belongs to another way to fuse task vectors, or to a mask that is not learned."""
        found = set() if self.fusion in ("dare", "dare_redrawn") else {"drop"}
        found |= set() if self.fusion in ("ties", "ties_merging") else {"density"}
        learning = {"export", "temperature", "beta", "reference", "learning_rate_logits", "schedule", "warmup_steps"}
        return found | ({*learning, "epochs", "batch_size", "pairs_at_once"} if self.mask == "none" else set())

    def artifacts(self) -> dict[str, Any]:
        """The preference pairs, unless there is no mask to learn, and perhaps the models of all tasks."""
        return {"roles": [], "preferences": self.mask != "none", "across_tasks": self.across_tasks}


def deltas(weights: Weights) -> list[torch.Tensor]:
    """Task vectors of one tensor, one per task."""
    start = weights.stored("aligned")
    return [weights[role].sub_(start) for role in weights if role.split(":")[0] == "finetuned"]


def relaxed(logit: torch.Tensor, temperature: float, stream: torch.Generator) -> torch.Tensor:
    """One relaxed Bernoulli mask, differentiable in the logits."""
    import torch

    u = torch.rand(logit.shape, generator=stream).clamp_(1e-6, 1 - 1e-6).to(logit.device)
    noised = logit + torch.log(u)
    return torch.sigmoid(noised.sub_(u.neg_().log1p_()).div_(temperature))  # in place: an embedding is large


def masked(
    values: list[torch.Tensor], mask: torch.Tensor | None, settings: Settings, seed: int, name: str,
    least: Sequence[float] = (), draw: tuple[int, ...] = (),
) -> torch.Tensor:  # fmt: skip
    """`w Merge(τ ⊙ m / mean(m))` of one tensor.

    Args:
        least: `ties_merging` keeps entries from this magnitude on, per task.
        draw: `dare_redrawn` drops other entries for every draw.
    """
    from holdfast.merge import fusion

    how, redrawn = settings.fusion.removesuffix("_redrawn"), settings.fusion == "dare_redrawn"
    return settings.weight * fusion.combine(
        fusion.rescaled(values, mask), "sum" if len(values) == 1 and not redrawn else how,
        drop=settings.drop, density=settings.density, least=least,
        stream=lambda i: fusion.generator(seed, name, i, *(draw if redrawn else ())),
    )  # fmt: skip


def magnitudes(each: Iterable[list[torch.Tensor]], settings: Settings) -> list[float]:
    """Per task the magnitude that `ties_merging` trims at, over the rescaled task vectors of all tensors."""
    from holdfast.merge import fusion

    if settings.fusion != "ties_merging":
        return []
    by_task = zip(*each, strict=True)
    return [fusion.threshold(task, settings.density) for task in by_task]


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
    from holdfast.merge import fusion

    logits = {} if settings.mask == "none" else learn(settings, context)
    masks = {k: export(v.detach().cpu(), settings, context.seed, k) for k, v in logits.items()}
    if masks:
        kept = sum(float(m.double().sum()) for m in masks.values())
        context.record["mask_density"] = kept / sum(m.numel() for m in masks.values())
    every = (fusion.rescaled(deltas(context.weights(k)), masks.get(k)) for k in context.names)
    return {"seed": context.seed, "mask": masks, "least": magnitudes(every, settings)}


def learn(settings: Settings, context: Context) -> dict[str, torch.Tensor]:
    """The logits of every tensor, by DPO on the preference pairs.

    In memory are weights with gradients and logits with moments; all else is read or made again tensor by tensor.
    """
    import torch

    from holdfast.merge import fusion
    from holdfast.model import machine, preferences

    model, tokenizer = context.model("aligned")
    machine.return_blocks(model)
    model.requires_grad_(False)
    known = dict(model.named_parameters())
    placed = {k: known[k] for k in context.names if k in known}
    logits = {k: torch.zeros_like(p, requires_grad=True) for k, p in placed.items()}
    pairs = preferences.encode(tokenizer, context.preferences)
    together = settings.pairs_at_once or settings.batch_size

    def compared(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return preferences.log_probabilities(model, [pairs[i] for i in rows], tokenizer.pad_token_id, together)

    def mask(k: str, stream: torch.Generator, learned: bool) -> torch.Tensor:
        """A new mask of one tensor, by the learned logits or by logits of 0."""
        return relaxed(logits[k] if learned else torch.zeros_like(logits[k]), settings.temperature, stream)

    def place(stream: torch.Generator, step: int, learned: bool) -> Callable[[str], torch.Tensor]:
        """Give the model its weights under new masks; returns what makes the change of one tensor again."""
        states: dict[str, torch.Tensor] = {}
        least: list[float] = []

        def moved(k: str, stream: torch.Generator) -> torch.Tensor:
            drawn = mask(k, stream, learned)
            vectors = [v.to(drawn.device) for v in deltas(context.weights(k))]
            return masked(vectors, drawn, settings, context.seed, k, least, (step,) if learned else (step, 1))

        def set_to(k: str, change: torch.Tensor) -> None:
            placed[k].copy_(context.weights(k).stored("aligned").to(change.device) + change)

        def drawing() -> Iterator[str]:
            for k in logits:
                states[k] = stream.get_state()
                yield k

        with torch.no_grad():
            if settings.fusion == "ties_merging":  # its threshold is that of all tensors together
                drawn = ((deltas(context.weights(k)), mask(k, stream, learned).cpu()) for k in drawing())
                least = magnitudes(itertools.starmap(fusion.rescaled, drawn), settings)
                for k in placed:
                    set_to(k, moved(k, _at(states[k])))
            else:
                for k in drawing():
                    set_to(k, moved(k, stream))
        return lambda k: moved(k, _at(states[k]))

    steps = max(1, round(settings.epochs * len(pairs) / settings.batch_size))
    # One each, so that the gradients of one tensor's logits are used and gone before those of the next are made.
    adam = {k: torch.optim.AdamW([v], lr=settings.learning_rate_logits, weight_decay=0.0) for k, v in logits.items()}
    stream, other = fusion.generator(context.seed, "somf"), fusion.generator(context.seed, "somf", "reference")
    queue: list[int] = torch.randperm(len(pairs), generator=stream).tolist()
    used = queue[: steps * settings.batch_size]  # all of them from one pass on
    reference = torch.empty(2, len(pairs), device=model.device)
    if settings.reference == "aligned":
        with torch.no_grad():
            reference[:, used] = torch.stack(compared(used))
    for step in range(steps):
        while len(queue) < min(settings.batch_size, len(pairs)):
            queue += torch.randperm(len(pairs), generator=stream).tolist()
        rows, queue = queue[: settings.batch_size], queue[settings.batch_size :]
        expected = (reference[0][rows], reference[1][rows])
        if settings.reference == "mask":
            with torch.no_grad():
                place(other, step, learned=False)
                expected = compared(rows)
        again, loss = place(stream, step, learned=True), 0.0
        for p in placed.values():
            p.requires_grad_(True)
        for at in range(0, len(rows), together):
            part = slice(at, at + together)
            share = len(rows[part]) / len(rows)
            of_part = share * dpo_loss(*compared(rows[part]), expected[0][part], expected[1][part], settings.beta)
            of_part.backward()  # type: ignore[no-untyped-call]
            loss += float(of_part.detach())
        model.requires_grad_(False)
        machine.return_freed()
        # The largest last, when the gradients of the others are gone.
        for k, p in sorted(placed.items(), key=lambda named: named[1].numel()):
            if p.grad is not None:
                again(k).backward(p.grad)  # type: ignore[no-untyped-call]
                p.grad = None
                adam[k].param_groups[0]["lr"] = settings.learning_rate_logits * rate(step, steps, settings)
                adam[k].step()
                adam[k].zero_grad()
        if step % 10 == 0 or step == steps - 1:
            context.say(f"mask: step {step + 1}/{steps}  loss {loss:.4f}")
    context.record |= {"mask_loss": loss, "mask_steps": steps}
    return logits


def _at(state: torch.Tensor) -> torch.Generator:
    """A random stream that goes on from a state of another."""
    import torch

    stream = torch.Generator()
    stream.set_state(state)
    return stream


def rate(step: int, steps: int, settings: Settings) -> float:
    """The share of the logits' rate at one step: a linear warm-up, then all of it or a cosine down to 0."""
    if step < settings.warmup_steps:
        return step / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def export(logit: torch.Tensor, settings: Settings, seed: int, name: str) -> torch.Tensor:
    """The mask of one tensor in [0, 1] by its logits, or a permutation of its entries."""
    import torch

    from holdfast.merge import fusion

    if settings.export in ("draw_sample", "binary_mask"):
        mask = relaxed(logit, settings.temperature, fusion.generator(seed, "export", name))
        mask = mask > 0.5 if settings.export == "binary_mask" else mask
    else:
        mask = logit > 0 if settings.export == "threshold" else torch.sigmoid(logit)
    if settings.mask == "shuffled":
        order = torch.randperm(mask.numel(), generator=fusion.generator(seed, "shuffled", name))
        mask = mask.flatten()[order].reshape(mask.shape)
    return mask


def merge(name: str, weights: Weights, settings: Settings, state: dict[str, Any]) -> torch.Tensor:
    mask = state["mask"].get(name)
    if mask is not None and not mask.any():
        return weights["aligned"]
    everything = mask is None or bool((mask == 1).all())
    if everything and settings.weight == 1 and not settings.across_tasks and settings.fusion != "dare_redrawn":
        return weights["finetuned"]  # the identity, bit for bit
    return weights["aligned"].add_(masked(deltas(weights), mask, settings, state["seed"], name, state.get("least", ())))
