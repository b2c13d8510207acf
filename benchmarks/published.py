"""WSR-Tune as published, written plainly: the opponent in the benchmarks and the reference in the tests.

Written from the paper's description and from how its reference code is organised, not copied from it:
modules are swapped for ones whose parameter is C, every forward pass builds the weight W = C Uᵀ, every
module has its own Gram matrix and its own `svd`, importance is the gradient of C. Float32 where the
reference keeps bfloat16, so that only the algorithm differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from holdfast.model.layers import Layer


class RotatedLinear(nn.Module):
    """A linear module with the parameter C (m, n), W = C Uᵀ; `frozen` entries of C get no gradient."""

    def __init__(self, linear: nn.Linear, u: Tensor, frozen: Tensor | None = None) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(linear.weight.detach() @ u)
        self.bias = linear.bias
        self.register_buffer("u", u)
        self.register_buffer("frozen", frozen)

    @property
    def weight(self) -> Tensor:
        c = self.coefficients
        if self.frozen is not None:
            c = torch.where(self.frozen, c.detach(), c)
        return c @ self.u.T

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def swap(
    model: nn.Module, layers: Sequence[Layer], bases: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
) -> dict[str, RotatedLinear]:
    """Replace the target modules in place; layer name -> new module.

    Args:
        bases: input name -> U (n, n). masks: layer name -> boolean (m, n), True = frozen.
    """
    swapped = {}
    for layer in layers:
        parent, _, child = layer.name.rpartition(".")
        module = RotatedLinear(layer.module, bases[layer.input], None if masks is None else masks[layer.name])
        setattr(model.get_submodule(parent), child, module)
        swapped[layer.name] = module
    return swapped


def restore(model: nn.Module, layers: Sequence[Layer], swapped: Mapping[str, RotatedLinear]) -> None:
    """Write W = C Uᵀ back into the original modules and put those in place again."""
    for layer in layers:
        parent, _, child = layer.name.rpartition(".")
        layer.module.weight.data = swapped[layer.name].weight.detach()
        setattr(model.get_submodule(parent), child, layer.module)


@torch.no_grad()
def bases(model: nn.Module, layers: Sequence[Layer], batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Layer name -> U (n, n): one Gram matrix per module over the tokens that are not padding, then `svd`."""
    grams = {x.name: torch.zeros(x.module.in_features, x.module.in_features) for x in layers}
    keep: Tensor

    def watch(name: str):
        def add(module, args):
            h = args[0][keep].float().cpu()
            grams[name] += h.T @ h

        return add

    handles = [x.module.register_forward_pre_hook(watch(x.name)) for x in layers]
    for batch in batches:
        keep = batch["attention_mask"].bool()
        model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: torch.linalg.svd(gram)[0] for name, gram in grams.items()}


def importance(
    model: nn.Module, layers: Sequence[Layer], u: Mapping[str, Tensor], batches: Sequence[Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Layer name -> Σ over batches of |∂L/∂C| (m, n), by autograd through swapped modules.

    Args:
        u: input name -> U (n, n).
    """
    swapped = swap(model, layers, u)
    scores = {name: torch.zeros_like(module.coefficients) for name, module in swapped.items()}
    for batch in batches:
        model.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        for name, module in swapped.items():
            scores[name] += module.coefficients.grad.abs()
    model.zero_grad()
    restore(model, layers, swapped)
    return scores
