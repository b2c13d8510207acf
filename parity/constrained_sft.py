"""Token-wise constrained SFT: `get_beta_list`, `get_batch_logps` and `soft_sft_loss` of the authors' trainer.

The trainer around them is stood in for by the settings that they read.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch

from holdfast.methods import constrained_sft
from parity import code, tiny

REPOSITORY, COMMIT = "Unispac/shallow-vs-deep-alignment", "fb1749e3a9af3b90103574060b71c7daab1a4205"
FILE = "finetuning_buckets/trainer/trainer.py"


def compare(theirs: code.Code) -> list[code.Row]:
    given = {"torch": torch, "F": torch.nn.functional}
    trainer = SimpleNamespace(beta=0.1, bias_factor=20, first_token_bias_factor=5, bias_length=5, max_seq_length=32)
    methods = {
        n: theirs.part(FILE, f"ConstrainedSFTTrainer.{n}", given)
        for n in ("get_beta_list", "get_batch_logps", "soft_sft_loss")
    }
    trainer.get_beta_list = lambda length: methods["get_beta_list"](trainer, length)
    settings = constrained_sft.Settings()
    rows = [
        code.Row(
            "β of answers of 1 to 20 tokens",
            max(tiny.far(constrained_sft.betas(n, settings), trainer.get_beta_list(n)) for n in range(1, 21)),
            1e-6,
            "float32 there",
        )
    ]
    batch = tiny.batch(rows=3)
    start = 3 * tiny.normal(3, 12, tiny.VOCABULARY, seed=1)
    logits = (start + 2 * tiny.normal(3, 12, tiny.VOCABULARY, seed=2)).requires_grad_(True)
    full = [methods["get_batch_logps"](trainer, x, batch["labels"])[2] for x in (logits, start)]
    loss = methods["soft_sft_loss"](trainer, logits, None, *full).mean()
    want = torch.autograd.grad(loss, logits)[0]

    asked = batch["labels"][:, 1:] != -100
    targets = batch["labels"][:, 1:][asked]
    predicted = logits[:, :-1][asked]
    reference = torch.log_softmax(start[:, :-1][asked], -1).gather(1, targets[:, None])[:, 0]
    values = {"reference": reference, "beta": torch.tensor(constrained_sft.betas(8, settings) * 3).double()}
    ours = constrained_sft.Constrained(settings.floor).token_losses(predicted, targets, values).mean()
    got = torch.autograd.grad(ours, logits)[0]
    rows.append(code.Row("loss of a batch", tiny.far(ours.detach(), loss.detach()), 1e-6, "β in float32 there"))
    rows.append(code.Row("its gradient", tiny.far(got, want), 1e-6, "β in float32 there"))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
