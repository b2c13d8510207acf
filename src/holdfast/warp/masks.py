"""Masks: which rotated coefficients are frozen. Torch-free; stored as bits.

WSR-Tune: inside each module the share `freeze_fraction` of coefficients with the largest importance
is frozen. A mask file holds one packed uint8 array per layer, 1 = frozen.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def top_entries(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Boolean (m, n): exactly round(fraction * m * n) entries, the largest scores, ties by position."""
    flat = scores.ravel()
    k = round(fraction * flat.size)
    mask = np.zeros(flat.size, dtype=bool)
    if k:
        threshold = np.partition(flat, flat.size - k)[flat.size - k]
        above = flat > threshold
        mask[above] = True
        ties = np.flatnonzero(flat == threshold)[: k - int(above.sum())]
        mask[ties] = True
    return mask.reshape(scores.shape)


def top_columns(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Boolean (m, n): whole columns (directions), the round(fraction * n) with the largest l2 score."""
    strength = np.sqrt((scores.astype(np.float64) ** 2).sum(axis=0))
    columns = top_entries(strength[None, :], fraction)[0]
    return np.broadcast_to(columns, scores.shape).copy()


def top_rows(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Boolean (m, n): whole rows, the round(fraction * m) with the largest l2 score (ActSVD's unit)."""
    return top_columns(scores.T, fraction).T.copy()


def top_overall(scores: Mapping[str, np.ndarray], fraction: float) -> dict[str, np.ndarray]:
    """Masks of all layers under one threshold for the whole model: the share `fraction` of all entries,
    ties by layer and position."""
    flat = np.concatenate([s.ravel() for s in scores.values()])
    mask, out, start = top_entries(flat[None, :], fraction)[0], {}, 0
    for name, s in scores.items():
        out[name] = mask[start : start + s.size].reshape(s.shape)
        start += s.size
    return out


def leading(n: int, fraction: float) -> int:
    """How many leading directions of n the share `fraction` is, at least one."""
    return max(1, round(fraction * n))


def widen(mask: np.ndarray, n: int) -> np.ndarray:
    """A mask of leading directions as one of all n: nothing is frozen in the rest."""
    return np.pad(mask, ((0, 0), (0, n - mask.shape[1])))


def random_scores(shape: tuple[int, ...], name: str, seed: int) -> np.ndarray:
    """Scores without information, different per layer: the control for what freezing alone does."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())]).random(shape, dtype=np.float32)


def build(scores: np.ndarray, unit: str, fraction: float) -> np.ndarray:
    """The mask of one layer by `unit` (entry | column | row)."""
    return {"entry": top_entries, "column": top_columns, "row": top_rows}[unit](scores, fraction)


def profile(mask: np.ndarray, bins: int = 50) -> list[tuple[float, float]]:
    """[(share of the directions, leading first, share of their entries that is frozen)] of a mask (m, n) in up to
    `bins` equal steps; the last of a step gives its place."""
    by_direction = mask.mean(axis=0)
    parts = np.array_split(by_direction, min(bins, len(by_direction)))
    ends = np.cumsum([len(p) for p in parts]) / len(by_direction)
    return [(float(end), float(part.mean())) for end, part in zip(ends, parts, strict=True)]


def pack(mask: np.ndarray) -> np.ndarray:
    """Bits of a boolean (m, n) as uint8 (ceil(m n / 8),): 1/32 of a float32 mask."""
    return np.packbits(mask.ravel())


def unpack(bits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The boolean (m, n) behind `pack`."""
    return np.unpackbits(bits, count=shape[0] * shape[1]).astype(bool).reshape(shape)
