"""How are the rows of an optimizer step dealt to micro-batches, and these to processes?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from accelerate.data_loader import DataLoaderShard
    from transformers import Trainer

    from holdfast.model import chat


def passes(rows: int, batch_size: int, processes: int) -> int:
    """Micro-batches of at most `batch_size` rows of each process, in an optimizer step of so many rows together.

    >>> passes(16, 4, 1), passes(16, 4, 2), passes(16, 4, 8), passes(3, 4, 8)
    (4, 2, 1, 1)
    """
    return math.ceil(math.ceil(rows / processes) / batch_size)


class Shares(torch.utils.data.Sampler[list[int]]):
    """The micro-batches of one of several processes, of at most `batch_size` rows.

    The rows of an optimizer step are cut into as many parts as there are processes, so that a part is whole
    micro-batches where `accumulation` can be divided. All processes have the same number of micro-batches, since they
    compute them together: who has no rows left gets an empty one. With `lengths`, those of all rows, rows of about one
    length share a micro-batch, for less padding; which rows a step has stays as it is.
    """

    def __init__(
        self, sampler: torch.utils.data.Sampler[int], batch_size: int, accumulation: int, processes: int = 1,
        rank: int = 0, lengths: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.sampler, self.rows, self.lengths = sampler, batch_size * accumulation, lengths
        self.batch_size, self.processes, self.rank = batch_size, processes, rank

    def passes(self, rows: int) -> int:
        """Micro-batches of every process in a step of so many rows."""
        return passes(rows, self.batch_size, self.processes)

    def __len__(self) -> int:
        whole, rest = divmod(len(cast("Any", self.sampler)), self.rows)
        return whole * self.passes(self.rows) + self.passes(rest)

    def __iter__(self) -> Iterator[list[int]]:
        for step in torch.utils.data.BatchSampler(self.sampler, self.rows, drop_last=False):
            if self.lengths is not None:
                step = sorted(step, key=self.lengths.__getitem__)
            mine = _part(step, self.rank, self.processes)
            passes = self.passes(len(step))
            yield from (_part(mine, i, passes) for i in range(passes))


def _part(rows: Sequence[int], which: int, parts: int) -> list[int]:
    """One of so many parts of about the same size.

    >>> [_part([1, 2, 3, 4, 5], i, 3) for i in range(3)]
    [[1], [2, 3], [4, 5]]
    """
    return list(rows[which * len(rows) // parts : (which + 1) * len(rows) // parts])


def dealt(trainer: Trainer, accumulation: int, by_length: bool, nothing: chat.Example | None = None) -> DataLoaderShard:
    """The micro-batches of this process, of steps that have the rows which transformers' Trainer gives them.

    `nothing` is the row of a micro-batch that has none.
    """
    from accelerate.data_loader import DataLoaderShard, SeedableRandomSampler

    dataset, collate, own = cast("Any", trainer.train_dataset), cast("Any", trainer.data_collator), trainer.args
    order = SeedableRandomSampler(dataset, data_seed=own.data_seed)
    lengths = [len(dataset[i]["input_ids"]) for i in range(len(dataset))] if by_length else None
    shares = Shares(order, own.per_device_train_batch_size, accumulation, own.world_size, own.process_index, lengths)
    return DataLoaderShard(
        dataset, device=trainer.accelerator.device, batch_sampler=shares,
        collate_fn=lambda rows: collate(rows or [nothing]), pin_memory=own.dataloader_pin_memory,
    )  # fmt: skip
