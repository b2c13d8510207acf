"""Arithmetic on task vectors: DARE, TIES and weighted sums, tensor by tensor, in float32.

A task vector is δ = θ_finetuned − θ_start. Random parts are drawn from a private generator named by
seed and tensor, so the result does not depend on the order in which tensors are visited.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

_LEAST_MEAN = 1e-6  # of a mask that is divided by its mean


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A private random stream for one seed and purpose (a tensor's name, a task)."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, (seed, *purpose))).encode()))


class _Rescaled(torch.autograd.Function):
    """One of `rescaled`. Its gradient in closed form: autograd keeps a third tensor of that size and makes two more."""

    @staticmethod
    def forward(ctx: Any, delta: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(delta, mask)
        ctx.mean = mask.float().mean()
        out: torch.Tensor = delta * mask / ctx.mean.clamp(min=_LEAST_MEAN)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[None, torch.Tensor]:
        delta, mask = ctx.saved_tensors
        scale, along = ctx.mean.clamp(min=_LEAST_MEAN), grad * delta
        through_mean = (along * mask).sum() / (scale * scale * mask.numel()) * (ctx.mean >= _LEAST_MEAN)
        return None, along.div_(scale).sub_(through_mean)


def rescaled(deltas: Sequence[torch.Tensor], mask: torch.Tensor | None) -> list[torch.Tensor]:
    """`δ ⊙ m / mean(m)` of each, differentiable in m; mask (shape of a δ) in [0, 1], or None for the δ themselves."""
    return list(deltas) if mask is None else [_Rescaled.apply(d, mask) for d in deltas]  # type: ignore[no-untyped-call]


def dare(delta: torch.Tensor, drop: float, stream: torch.Generator) -> torch.Tensor:
    """Drop And REscale (Yu et al., arXiv 2311.03099): each entry survives with probability 1 − drop and
    is divided by it, so that the expectation over masks is `delta`."""
    if drop == 0:
        return delta
    keep = torch.rand(delta.shape, generator=stream) >= drop
    return (delta * keep.to(delta.device)).div_(1 - drop)


def threshold(deltas: Sequence[torch.Tensor], density: float) -> float:
    """The magnitude from which an entry belongs to the share `density` of all entries of several tensors, taken
    together; as the code of SOMF counts it, the entry just below int(density n) others belongs to them too."""
    flat = torch.cat([d.abs().flatten() for d in deltas])
    k = flat.numel() - int(density * flat.numel())
    return float(flat.kthvalue(k).values) if k else 0.0


def trim(delta: torch.Tensor, density: float) -> torch.Tensor:
    """The share `density` of entries with the largest magnitude, the rest zero (TIES, step 1); of equal ones, which
    are many where weights are bfloat16, the first."""
    k = round(density * delta.numel())
    if k >= delta.numel():
        return delta
    if k == 0:
        return torch.zeros_like(delta)
    size = delta.abs().flatten()
    least = size.kthvalue(size.numel() - k + 1).values
    kept = size > least
    kept[(size == least).nonzero().flatten()[: k - int(kept.sum())]] = True
    return torch.where(kept.view_as(delta), delta, 0)


def elect(deltas: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum, number) of the entries that agree with the sign elected by total magnitude (TIES, steps 2 and 3)."""
    stack = torch.stack(list(deltas))
    sign = torch.sign(stack.sum(dim=0))
    agrees = (torch.sign(stack) == sign) & (stack != 0)
    return (stack * agrees).sum(dim=0), agrees.sum(dim=0)


def ties(deltas: Sequence[torch.Tensor], density: float) -> torch.Tensor:
    """TIES-merging (Yadav et al., arXiv 2306.01708): trim each tensor, elect the sign with the larger total
    magnitude per entry, and average the entries that agree with it (disjoint mean)."""
    total, agree = elect([trim(d, density) for d in deltas])
    return total / agree.clamp(min=1)


def combine(
    deltas: Sequence[torch.Tensor],
    how: str,
    *,
    drop: float = 0.0,
    density: float = 1.0,
    least: Sequence[float] = (),
    stream: Callable[[int], torch.Generator] | None = None,
) -> torch.Tensor:
    """One task vector from several: `sum` (task arithmetic), `mean`, `dare` (sum of dropped vectors), `ties`, or
    `ties_merging`, which takes the entries of at least the magnitude `least` of each task and sums those that agree.

    `stream` gives the random numbers that DARE drops by, one generator per task.
    """
    if how == "ties":
        return ties(deltas, density)
    if how == "ties_merging":
        return elect([torch.where(d.abs() >= t, d, 0) for d, t in zip(deltas, least, strict=True)])[0]
    if how == "dare":
        assert stream is not None
        deltas = [dare(d, drop, stream(i)) for i, d in enumerate(deltas)]
    total = deltas[0] if len(deltas) == 1 else torch.stack(list(deltas)).sum(dim=0)
    return total / len(deltas) if how == "mean" else total
