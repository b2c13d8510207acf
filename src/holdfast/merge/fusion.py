"""Arithmetic on task vectors: DARE, TIES and weighted sums, tensor by tensor, in float32.

A task vector is δ = θ_finetuned − θ_start. Random parts are drawn from a private generator named by
seed and tensor, so the result does not depend on the order in which tensors are visited.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch


def generator(seed: int, *purpose: object) -> torch.Generator:
    """A private random stream for one seed and purpose (a tensor's name, a task)."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, (seed, *purpose))).encode()))


def dare(delta: torch.Tensor, drop: float, stream: torch.Generator) -> torch.Tensor:
    """Drop And REscale (Yu et al., arXiv 2311.03099): each entry survives with probability 1 − drop and
    is divided by it, so that the expectation over masks is `delta`."""
    if drop == 0:
        return delta
    keep = torch.rand(delta.shape, generator=stream) >= drop
    return (delta * keep.to(delta.device)).div_(1 - drop)


def trim(delta: torch.Tensor, density: float) -> torch.Tensor:
    """The share `density` of entries with the largest magnitude, the rest zero (TIES, step 1)."""
    k = round(density * delta.numel())
    if k >= delta.numel():
        return delta
    if k == 0:
        return torch.zeros_like(delta)
    threshold = delta.abs().flatten().kthvalue(delta.numel() - k + 1).values
    return torch.where(delta.abs() >= threshold, delta, 0)


def ties(deltas: Sequence[torch.Tensor], density: float) -> torch.Tensor:
    """TIES-merging (Yadav et al., arXiv 2306.01708): trim, elect the sign with the larger total
    magnitude per entry, and average the entries that agree with it."""
    stack = torch.stack([trim(d, density) for d in deltas])
    sign = torch.sign(stack.sum(dim=0))
    agrees = (torch.sign(stack) == sign) & (stack != 0)
    return (stack * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)


def combine(
    deltas: Sequence[torch.Tensor], how: str, *, drop: float = 0.0, density: float = 1.0, seed: int = 0, name: str = ""
) -> torch.Tensor:
    """One task vector from several: `sum` (task arithmetic), `mean`, `dare` (sum of dropped vectors) or `ties`."""
    if how == "ties":
        return ties(deltas, density)
    if how == "dare":
        deltas = [dare(d, drop, generator(seed, name, i)) for i, d in enumerate(deltas)]
    total = torch.stack(list(deltas)).sum(dim=0)
    return total / len(deltas) if how == "mean" else total
