"""Safe LoRA: the authors' class SafeLoRA, on a PEFT model of a tiny Llama.

AutoModelForCausalLM, through which it loads base and aligned model, is stood in for by the two models themselves.
"""

from __future__ import annotations

import copy
import sys
from types import SimpleNamespace

import numpy
import torch
from peft import LoraConfig, get_peft_model

from holdfast.methods import safe_lora
from parity import code, tiny

REPOSITORY, COMMIT = "IBM/SafeLoRA", "d81fda12719844d74b1fad98a5f00d692f6ab607"
TARGETS = ["q_proj", "v_proj"]


def compare(theirs: code.Code) -> list[code.Row]:
    base = tiny.llama(1)
    models = {"base": base, "aligned": tiny.moved(base, 0.05, 2)}
    loading = SimpleNamespace(from_pretrained=lambda path, **_: models[path])
    given = {"copy": copy, "numpy": numpy, "torch": torch, "AutoModelForCausalLM": loading}
    published = theirs.part("model.py", "SafeLoRA", given)
    tuned = get_peft_model(copy.deepcopy(models["aligned"]), LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS))
    for i, (name, p) in enumerate(tuned.named_parameters()):
        if "lora" in name:
            p.data = 0.1 * tiny.normal(*p.shape, seed=i)
    rows = []
    for how, ours in (("threshold", {"threshold": 0.71}), ("number", {"number": 2})):
        config = SimpleNamespace(
            base_model_path="base",
            aligned_model_path="aligned",
            select_layers_type=how,
            threshold=0.71,
            num_proj_layers=2,
            devices="cpu",
        )
        want = published(copy.deepcopy(tuned), config).model
        rows.append(_far(how, models, tuned, want, safe_lora.Settings(modules=tuple(TARGETS), **ours)))
    return rows


def _far(how, models, tuned, want, settings) -> code.Row:
    """Every factor B after both, in units of the largest entry."""
    a, b, wanted = {}, {}, {}
    for (key, p), (_, q) in zip(tuned.named_parameters(), want.named_parameters(), strict=True):
        name = key.removeprefix("base_model.model.").split(".lora_")[0] + ".weight"
        if "lora_A" in key:
            a[name] = p.detach()
        elif "lora_B" in key:
            b[name], wanted[name] = p.detach(), q.detach()
    stored = {role: dict(m.state_dict()) for role, m in models.items()}
    stored["finetuned"] = {k: stored["aligned"][k] + 2 * b[k] @ a[k] for k in b}
    context = tiny.context(stored, list(b))
    chosen = safe_lora.prepare(settings, context)
    got = {k: safe_lora.merge_factor(k, b[k].float(), context.weights(k), settings, chosen) for k in b}
    same = sum(not torch.equal(wanted[k], b[k]) for k in b)
    return code.Row(
        f"B of every module, by {how}",
        tiny.far(got, wanted),
        1e-5,
        f"float32 here; projected {len(chosen)} of {len(b)} modules here, {same} there",
    )


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
