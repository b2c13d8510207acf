"""From the study's module kinds to the exact, ordered list of linear modules of one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast import names
from holdfast.errors import LayerMismatch

if TYPE_CHECKING:
    import torch

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Layer:
    """One target module. `input` names the activation it reads; modules with the same `input` share
    a Gram matrix and a basis."""

    name: str
    kind: str
    block: int
    input: str
    module: torch.nn.Linear

    @property
    def weight(self) -> str:
        """The name of its weight in a checkpoint."""
        return f"{self.name}.weight"


def resolve(model: torch.nn.Module, modules: Sequence[str]) -> list[Layer]:
    """The target modules in model order.

    Raises:
        LayerMismatch: a module kind is absent from the model, or absent from some of its blocks.
    """
    import torch

    found: list[Layer] = []
    for name, module in model.named_modules():
        kind, block = name.rsplit(".", 1)[-1], _BLOCK.search(name)
        if kind in modules and block and isinstance(module, torch.nn.Linear):
            number = int(block.group(1))
            found.append(Layer(name, kind, number, f"blocks.{number}.{names.MODULE_INPUT[kind]}", module))
    blocks = {layer.block for layer in found}
    counts = {kind: sum(layer.kind == kind for layer in found) for kind in modules}
    total = getattr(model.config, "num_hidden_layers", len(blocks))
    if not found or set(counts.values()) != {total}:
        linear = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        usable = [kind for kind in names.MODULE_KINDS if kind in linear]
        raise LayerMismatch(
            "The model does not have the modules that are asked for in every block.",
            found=", ".join(f"{k} x {n}" for k, n in counts.items()) or "none",
            expected=f"{', '.join(modules)} in each of {total} blocks",
            do=f"correct basis.modules of the study, or `modules` of the call; it has {', '.join(usable)}"
            if usable
            else f"take a model whose blocks have {', '.join(names.MODULE_KINDS)}; others are not supported",
        )
    return found


def inputs(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Distinct inputs in model order -> the layers that read each."""
    out: dict[str, list[Layer]] = {}
    for layer in layers:
        out.setdefault(layer.input, []).append(layer)
    return out


def of_weight(name: str) -> tuple[str, str] | None:
    """(input name, module kind) of a checkpoint's tensor when it is the weight of a linear module of a
    decoder block, else None."""
    parts, block = name.split("."), _BLOCK.search(name)
    if parts[-1] != "weight" or block is None or len(parts) < 2 or parts[-2] not in names.MODULE_INPUT:
        return None
    return f"blocks.{int(block.group(1))}.{names.MODULE_INPUT[parts[-2]]}", parts[-2]
