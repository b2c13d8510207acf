"""Lisa: the authors' LisaTrainer, forty steps on a tiny Llama with the same rows as ours, AdamW on both sides.

transformers' Trainer, from which it is derived, is stood in for by what its `training_step` calls.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from holdfast.methods import lisa
from parity import code, tiny

REPOSITORY, COMMIT = "git-disl/Lisa", "68e36595d3643ae5b18e955ee385bad71851d021"
STEPS, ALIGN, TASK, RHO, RATE = 40, 3, 5, 2.0, 1e-2


class Trainer:
    """What LisaTrainer calls of its base class."""

    accelerator = SimpleNamespace(backward=lambda loss: loss.backward())
    do_grad_scaling = use_apex = False
    compute_loss_context_manager = contextlib.nullcontext

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        return model(**inputs, use_cache=False).loss

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs

    def get_train_dataloader(self) -> range:
        return range(STEPS)


class Guide:
    """Batch i of the safety rows, for both sides."""

    def batch(self, i: int) -> dict[str, torch.Tensor]:
        return tiny.batch(seed=1000 + i)


def compare(theirs: code.Code) -> list[code.Row]:
    given = {"torch": torch, "nn": nn, "Trainer": Trainer, "is_sagemaker_mp_enabled": lambda: False}
    trainer = theirs.part("trainer.py", "LisaTrainer", given)()
    model = tiny.llama(1)
    other = copy.deepcopy(model)
    trainer.model, guide = other, Guide()
    trainer.args = SimpleNamespace(
        alignment_step=ALIGN,
        finetune_step=TASK,
        guide_data_num=0,
        rho=RHO,
        n_gpu=1,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
    )
    trainer.init(None)
    trainer.args.guide_data_num, trainer.status = 1, "alignment"
    trainer.data_iter = (guide.batch(i) for i in range(STEPS))
    settings = lisa.Settings(align_steps=ALIGN, task_steps=TASK, strength=RHO)
    ours = lisa.Spells(settings, guide, accumulation=1)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=RATE) for m in (model, other)]
    turns, start = 0, copy.deepcopy(model)
    for step in range(STEPS):
        rows = tiny.batch(seed=step)
        ours.before_step(model, step, STEPS)
        for batch in ours.batches([rows], step):
            model(**batch, use_cache=False).loss.backward()
        trainer.training_step(other, rows)
        turns += ours.aligning(step) != (trainer.status == "alignment")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    moved = {k: p - q for (k, p), q in zip(model.state_dict().items(), start.state_dict().values(), strict=True)}
    wanted = {k: p - q for (k, p), q in zip(other.state_dict().items(), start.state_dict().values(), strict=True)}
    return [
        code.Row("steps whose turn differs", turns, 0, "none"),
        code.Row(f"update after {STEPS} steps", tiny.far(moved, wanted), 1e-6, "float64; another order of sums"),
    ]


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
