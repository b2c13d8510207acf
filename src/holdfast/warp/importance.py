"""Importance of rotated coefficients: I = sum over batches of |dL/dC|, C = W U.

WSR-Tune, phase 2. For one batch dL/dC = (dL/dW) U = δᵀ (h U) with δ the gradient at the layer's
output and h its input: the activations are rotated, once per distinct input, and neither a rotated
module nor a weight gradient is ever built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from holdfast.model import chat, folders
from holdfast.model.layers import Layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score(
    model: PreTrainedModel,
    layers: Sequence[Layer],
    bases: Mapping[str, torch.Tensor] | None,
    encoded: Sequence[chat.Example],
    *,
    batch_size: int,
    pad_id: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, torch.Tensor]:
    """{layer name: (m, n) float32 importance}.

    Args:
        bases: input name -> U (n, n), and layer name -> V (m, m) where the output side is rotated too
            (C = Vᵀ W U); what is missing is the identity, None is the original coordinates.
        batch_size: rows whose mean-loss gradient is taken before |.|; the result depends on it.

    The loss is the mean over response tokens of a batch; sums run in float32.
    """
    # Once, not in every batch: a basis that was read from a file is not where the model is.
    bases = {name: u.to(model.device, model.dtype) for name, u in (bases or {}).items()}
    scores = {layer.name: torch.zeros_like(layer.module.weight, dtype=torch.float32) for layer in layers}
    rotated: dict[str, torch.Tensor] = {}
    handles = []

    def before(layer: Layer) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        def rotate(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            if layer.input not in rotated:
                h = args[0].detach().flatten(0, -2)
                u = bases.get(layer.input)
                rotated[layer.input] = h if u is None else h @ u

        return rotate

    def after(layer: Layer) -> Callable[[torch.nn.Module, tuple[Any, ...], torch.Tensor], None]:
        def watch(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            def add(grad: torch.Tensor) -> None:
                grad, v = grad.flatten(0, -2), bases.get(layer.name)
                grad = grad if v is None else grad @ v
                scores[layer.name].add_((grad.T @ rotated[layer.input]).abs_())

            output.register_hook(add)  # type: ignore[no-untyped-call]

        return watch

    wanted = [p.requires_grad for p in model.parameters()]
    for layer in layers:
        handles.append(layer.module.register_forward_pre_hook(before(layer)))
        handles.append(layer.module.register_forward_hook(after(layer)))
    try:
        # No weight gradient is needed: the embedded tokens start the graph.
        for p in model.parameters():
            p.requires_grad_(False)
        handles.append(model.get_input_embeddings().register_forward_hook(lambda m, a, out: out.requires_grad_()))
        model.eval()  # type: ignore[no-untyped-call]
        for start in range(0, len(encoded), batch_size):
            rotated.clear()
            batch = chat.collate(encoded[start : start + batch_size], pad_id)
            batch = {k: v.to(model.device) for k, v in batch.items()}
            model(**folders.supervised(model, batch), use_cache=False).loss.backward()
            if start // batch_size % 20 == 0:
                say(f"scored {min(start + batch_size, len(encoded))}/{len(encoded)} rows")
    finally:
        for handle in handles:
            handle.remove()
        for p, flag in zip(model.parameters(), wanted, strict=True):
            p.requires_grad_(flag)
    return scores
