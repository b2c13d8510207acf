"""What may a method do in every optimizer step, beside the loss of the task's rows? Torch is imported inside functions
only: method files, which planning imports, make their own of these classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.model import chat

if TYPE_CHECKING:
    import torch

    Batch = dict[str, torch.Tensor]


class Beside:
    """Does nothing: a method's own overrides what it needs.

    `step` counts optimizer steps from 0, so that a killed run that goes on asks for what one that was never killed asks
    for. What must be remembered from step to step is the `state`, which every checkpoint holds.
    """

    def batches(self, batches: list[Batch], step: int) -> list[Batch]:
        """The micro-batches of a step: those of the task, unless a method trains on others."""
        return batches

    def before_step(self, model: torch.nn.Module, step: int, steps: int) -> None:
        """Before the first micro-batch of one of `steps` steps. A gradient left in `.grad` is added to that of the
        step's loss, once however many micro-batches there are, and clipped with it."""

    def token_losses(
        self, logits: torch.Tensor, targets: torch.Tensor, values: dict[str, torch.Tensor]
    ) -> torch.Tensor:  # fmt: skip
        """Losses (N,) of the supervised tokens of a micro-batch, in nats, from logits (N, V), targets (N,) and the
        `values` (N,) that a method gave them (`chat.Example`). Their mean over a step is what is trained on."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits, targets, reduction="none")

    def finish(self, model: torch.nn.Module) -> None:
        """After the last step."""

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint has to hold."""
        return {}

    def restore(self, state: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
        """Go on from a checkpoint's `state`."""


class Stream:
    """Batches of other rows than the task's, without end: pass after pass, each in an order of its own.

    Batch i is the same whenever it is asked for, so that nothing of it has to be in a checkpoint.
    """

    def __init__(self, encoded: Sequence[chat.Example], size: int, pad_id: int, seed: int) -> None:
        self.encoded, self.size, self.pad_id, self.seed = encoded, size, pad_id, seed
        self._orders: dict[int, list[int]] = {}

    def _row(self, place: int) -> chat.Example:
        turn, within = divmod(place, len(self.encoded))
        if turn not in self._orders:
            order = list(range(len(self.encoded)))
            random.Random(f"holdfast-stream-{self.seed}-{turn}").shuffle(order)
            self._orders = {turn: order} | {k: v for k, v in self._orders.items() if k == turn - 1}
        return self.encoded[self._orders[turn][within]]

    def batch(self, i: int) -> Batch:
        """Batch `i`, from 0: input_ids, attention_mask and labels (size, S)."""
        return chat.collate([self._row(place) for place in range(i * self.size, (i + 1) * self.size)], self.pad_id)


def predicted(
    model: torch.nn.Module, batch: Batch, *, bf16: bool = False
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:  # fmt: skip
    """(logits (N, V) in float32, targets (N,), values (N,)) where a token is supervised; nowhere else are logits
    computed. `bf16`: products in bfloat16, as the loop makes them with `precision: bf16`."""
    import torch

    from holdfast.model import folders

    device = next(model.parameters()).device
    there = {k: v.to(device) for k, v in batch.items()}
    following = chat.following(there.pop("labels"))
    asked = following != chat.IGNORE
    read = {k: there.pop(k) for k in ("input_ids", "attention_mask")}
    values = {k: chat.following(v, fill=0.0)[asked] for k, v in there.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = folders.logits_at(model, read, asked)
    return logits, following[asked], values
