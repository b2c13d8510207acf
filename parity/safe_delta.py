"""Safe Delta: the authors' class SafeDeltaRunner on one linear layer.

`torch.cuda.synchronize` is stood in for by nothing, so that it runs without a GPU.
"""

from __future__ import annotations

import math
import sys
import time
from unittest import mock

import torch
import transformers

from holdfast.methods import safe_delta
from parity import code, tiny

REPOSITORY, COMMIT = "ColinLu50/SafeDelta", "3a4ea3571fa7ec1b2597e0b34c70103dcd146ca6"
FILE = "llama2/safedelta/safedelta_runner.py"
ROWS, COLUMNS, TILE = 24, 40, 16


def _theirs(theirs, aligned, tuned, inputs, strength, *, stable: bool) -> torch.Tensor:
    names = {"torch": torch, "nn": torch.nn, "math": math, "time": time, "transformers": transformers}
    runner_of = theirs.part(FILE, "SafeDeltaRunner", names)
    layers = []
    for weight in (aligned, tuned):
        layers.append(torch.nn.Linear(COLUMNS, ROWS, bias=False))
        layers[-1].weight.data = weight.float()
    runner = runner_of(*layers)
    for x in inputs:
        runner.add_batch(x[None].float(), None)
    argsort = torch.argsort
    with (
        mock.patch("torch.cuda.synchronize"),
        mock.patch("torch.argsort", lambda t: argsort(t, stable=True) if stable else argsort(t)),
    ):
        runner.adjust_delta(strength, blocksize=TILE)
    return layers[0].weight.data


def _share(difference: torch.Tensor, step: torch.Tensor) -> float:
    """Of the largest entry of the update."""
    return float(difference.abs().max() / step.abs().max())


def compare(theirs: code.Code) -> list[code.Row]:
    aligned, step = tiny.normal(ROWS, COLUMNS, seed=1), 0.1 * tiny.normal(ROWS, COLUMNS, seed=2)
    inputs = [tiny.normal(30, COLUMNS, seed=s) @ torch.diag(torch.linspace(0.2, 2, COLUMNS).double()) for s in range(5)]
    u = safe_delta.inverse_factor(sum(x.T @ x for x in inputs), 0.01)
    rows = []
    for strength in (0.0, 60.0, 1e9):
        settings = safe_delta.Settings(budget="published", strength=strength, tile=TILE)
        ours, kept = safe_delta.fuse(aligned, aligned + step, u, settings)
        want = _theirs(theirs, aligned, aligned + step, inputs, strength, stable=True)
        rows.append(
            code.Row(
                f"W' at s = {strength:g}, stable sort",
                _share(ours - want, step),
                1e-5,
                f"float64 here, float32 there; {kept.float().mean():.0%} of the update kept",
            )
        )
        if 0 < kept.float().mean() < 0.8:
            want = _theirs(theirs, aligned, aligned + step, inputs, strength, stable=False)
            off = _share(ours - want, step)
            rows.append(
                code.Row(
                    f"W' at s = {strength:g}, as it is", off, 1.0, "torch.argsort leaves rows of a column unordered"
                )
            )
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
