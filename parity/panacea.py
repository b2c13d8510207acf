"""Panacea: the gradient that the authors' `training_step` leaves, and its ε.

As published it cannot run: it differentiates `clip_loss_h`, which nothing assigns. It is read as `loss_h`, which is
assigned two statements before. transformers' Trainer is stood in for by what the step calls.
"""

from __future__ import annotations

import copy
import functools
import sys
from types import SimpleNamespace

import torch
from torch import nn

from holdfast.methods import panacea
from parity import code, tiny
from parity.lisa import Trainer

REPOSITORY, COMMIT = "w-yibo/Panacea", "d17b2dbce608a6cf35116611de77196429347348"


class Rows:
    """The harmful rows of every step; random tokens."""

    def batch(self, i: int) -> dict[str, torch.Tensor]:
        return tiny.batch(seed=7)


def compare(theirs: code.Code) -> list[code.Row]:
    given = {"torch": torch, "nn": nn}
    step = theirs.part("trainer.py", "Panacea.training_step", given, instead={"clip_loss_h": "loss_h"})
    norm = theirs.part("trainer.py", "BoosterAlignmentTrainer._grad_norm", given)
    rows = []
    for radius, name in ((0.05, "below the cap"), (4.0, "above the cap")):
        model = tiny.llama(1)
        with torch.no_grad():
            model.lm_head.weight.mul_(0.1)  # a loss of log(vocabulary), 4.2
        other, start = copy.deepcopy(model), copy.deepcopy(model)
        trainer = Trainer()
        trainer.args = SimpleNamespace(eps_rho=radius, lamb=0.3, gradient_accumulation_steps=1)
        trainer.epsilon = {n: torch.zeros_like(p) for n, p in other.named_parameters()}
        trainer.sample_from_harmful = lambda: tiny.batch(seed=7)
        trainer._grad_norm = functools.partial(norm, trainer)
        trainer.writer, trainer.steps = SimpleNamespace(add_scalar=lambda *_: None), 0
        loss = float(step(trainer, other, tiny.batch(seed=0)))
        settings = panacea.Settings(strength=0.3, radius=radius, cap=5.0)
        ours = panacea.Perturbed(settings, Rows(), bf16=False)
        ours.before_step(model, 0, 1)
        kept = max(float((p - q).abs().max()) for p, q in zip(model.parameters(), start.parameters(), strict=True))
        model(**tiny.batch(seed=0), use_cache=False).loss.backward()
        want = dict(other.named_parameters())
        got = {n: p.grad for n, p in model.named_parameters()}
        rows += [
            code.Row(
                f"gradient of a step, h(w + ε) {name}",
                tiny.far(got, {n: p.grad for n, p in want.items()}),
                1e-5,
                f"float64; h(w + ε), cut, is {loss:.2f}",
            ),
            code.Row(
                f"ε, h(w + ε) {name}",
                max(tiny.far(e, trainer.epsilon[n]) for e, n in zip(ours.last, want, strict=True)),
                1e-5,
                "float64",
            ),
            code.Row(f"weights after ε is taken away, ours, {name}", kept, 0, "a copy is put back"),
            code.Row(
                f"weights after ε is taken away, theirs, {name}",
                max(float((p - q).abs().max()) for p, q in zip(other.parameters(), start.parameters(), strict=True)),
                1e-12,
                "they subtract what they added, rounded",
            ),
        ]
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
