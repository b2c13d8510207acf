"""How many weights move at all: pure bfloat16 against float32 masters, `python -m benchmarks.stall`.

Weights N(0, 0.02²), random gradients, AdamW at a constant rate. A bfloat16 weight of 0.02 has neighbours 1.2e-4
away; an AdamW step is about the learning rate, and what is below half that distance is lost in rounding. The
authors' logs of WSR-Tune show the same curve for their trainable coefficients, at every freeze fraction.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from holdfast.warp.basis import random_orthogonal
from holdfast.warp.optimizer import RotatedAdamW, Rotation

RATES = (1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 5e-5, 7e-5)
# Share of unmasked coefficients that changed, per cent, in the reference's logs (lowest and highest run).
REFERENCE = ("0", "1.3-1.4", "4.8-5.2", "8.6-16.9", "24-43", "39-55", "61-67")


def moved(dtype: torch.dtype, lr: float, *, steps: int, n: int = 96, rotated: bool = False) -> float:
    """Share of the weights (or, `rotated`, of the coefficients that are not frozen) that changed."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter((torch.randn(n, n, generator=generator) * 0.02).to(dtype))
    before = w.detach().clone()
    rotation = {w: Rotation(random_orthogonal(n, 0).to(dtype), torch.rand(n, n, generator=generator) < 0.1)}
    optimizer = RotatedAdamW([w], rotation, lr=lr) if rotated else torch.optim.AdamW([w], lr=lr, weight_decay=0.0)
    for _ in range(steps):
        w.grad = torch.randn(n, n, generator=generator).to(dtype)
        optimizer.step()
    return optimizer.moved_fraction({w: before}) if rotated else float((w != before).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print("| learning rate | AdamW, bfloat16 | WaRP, bfloat16 | WaRP, float32 masters | reference's logs, bfloat16 |")
    print("|---|---|---|---|---|")
    for lr, logged in zip(RATES, REFERENCE, strict=True):
        shares = (
            moved(torch.bfloat16, lr, steps=steps),
            moved(torch.bfloat16, lr, steps=steps, rotated=True),
            moved(torch.float32, lr, steps=steps, rotated=True),
        )
        print(f"| {lr:g} | " + " | ".join(f"{share:.1%}" for share in shares) + f" | {logged} % |", flush=True)


if __name__ == "__main__":
    main()
