"""AsFT: the penalty as the authors' training loop adds it, and SafeLoRA.get_aligned_matrix of theirs for Ĉ.

The object around that method is stood in for by the models and settings that it reads, the loss of the task by 0.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import torch
from peft import LoraConfig, get_peft_model

from holdfast.methods import asft
from parity import code, tiny

REPOSITORY, COMMIT = "PKU-YuanGroup/AsFT", "1361f5cef0f079dd6b1c8bcb20b0281be4df9c20"
TARGETS = ["q_proj", "v_proj"]


def compare(theirs: code.Code) -> list[code.Row]:
    base = tiny.llama(1)
    models = {"base": base, "aligned": tiny.moved(base, 0.05, 2)}
    tuned = get_peft_model(copy.deepcopy(models["aligned"]), LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    with torch.no_grad():
        for i, (name, p) in enumerate(tuned.named_parameters()):
            p.copy_(0.1 * tiny.normal(*p.shape, seed=i) if "lora" in name else p)
    matrix = theirs.part("AsFT_finetuning.py", "SafeLoRA.get_aligned_matrix", {"torch": torch})
    wrapper = SimpleNamespace(
        base_model=models["base"],
        aligned_model=models["aligned"],
        config=SimpleNamespace(devices="cpu"),
        peft_config=tuned.peft_config["default"],
    )
    names = {
        "torch": torch,
        "model": tuned,
        "loss": 0.0,
        "train_config": SimpleNamespace(lambda_reg=0.7),
        "project_matrix": matrix(wrapper),
    }
    place = "if project_matrix is not None:"
    theirs.statements("utils/AsFT_train_utils.py", place, place, names)
    factors = [p for n, p in tuned.named_parameters() if "lora" in n]
    want = torch.autograd.grad(names["loss"], factors)

    from holdfast.model import lora

    pairs = []
    for name, a, b in lora.pairs(tuned):
        weights = [dict(models[role].named_parameters())[name].detach() for role in ("aligned", "base")]
        pairs.append((weights[0] - weights[1], a, b))
    asft.Narrowed(pairs, 0.7).before_step(tuned, 0, 1)
    ours = 0.7 * sum(float(asft.outside(v, a, b).detach()) for v, a, b in pairs)
    return [
        code.Row("λ R", tiny.far(ours, names["loss"].detach()), 1e-12, "float64; (Xᵀ X)(A Aᵀ) in place of B A"),
        code.Row(
            "its gradient at one micro-batch a step",
            max(tiny.far(p.grad, g) for p, g in zip(factors, want, strict=True)),
            1e-12,
            "float64",
        ),
        code.Row(
            "its gradient at four micro-batches a step",
            max(tiny.far(p.grad, 4 * g) for p, g in zip(factors, want, strict=True)),
            0.75 + 1e-9,
            "theirs is added to each micro-batch after the loss was divided: four times ours, which counts once a step",
        ),
    ]


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
