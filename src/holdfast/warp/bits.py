"""Masks in memory: the bits of a boolean matrix, on any device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from holdfast.warp import masks

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class BitMask:
    """A boolean (m, n) kept as its bits, 1/32 of a float32 weight; `bools` is made when it is needed."""

    bits: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: Tensor) -> BitMask:
        """Pack a boolean (m, n); the bits stay on its device."""
        return cls.packed(mask.cpu().numpy()).to(mask.device)

    @classmethod
    def packed(cls, mask: np.ndarray) -> BitMask:
        """Pack a boolean array (m, n)."""
        m, n = mask.shape
        return cls(torch.from_numpy(masks.pack(mask)), (m, n))

    @property
    def bools(self) -> Tensor:
        """The boolean (m, n), unpacked anew each time, on the device of the bits."""
        if self.bits.device.type == "cpu":
            return torch.from_numpy(masks.unpack(self.bits.numpy(), self.shape))
        order = torch.arange(7, -1, -1, device=self.bits.device, dtype=torch.uint8)
        flat = (self.bits[:, None] >> order).bitwise_and_(1).bool().flatten()
        return flat[: self.shape[0] * self.shape[1]].view(self.shape)

    def to(self, device: torch.device | str) -> BitMask:
        """The same mask with its bits on `device`."""
        return BitMask(self.bits.to(device), self.shape)

    @property
    def size(self) -> int:
        """How many entries it has, m n."""
        return self.shape[0] * self.shape[1]

    @property
    def count(self) -> int:
        """How many entries are frozen."""
        return int(self.bools.sum())
