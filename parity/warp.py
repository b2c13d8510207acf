"""WaRP (WSR-Tune): the authors' modules, `compute_importance`, `generate_masks` and the callback that restores frozen
coefficients, on a tiny Llama; then twelve steps of AdamW on their coefficients and on our weights.

`models/warp_modules.py` imports torch alone and is run whole. The analyzer is stood in for by what its methods read,
transformers' Trainer by AdamW with its weight decay of 0 in the *freeze* variant. Bases are ours on both sides: they
take `torch.linalg.svd` of each module's Gram matrix, and signs and order within equal eigenvalues change nothing.
"""

from __future__ import annotations

import copy
import gc
import logging
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import torch

from holdfast.model import layers
from holdfast.warp import importance, masks
from holdfast.warp.optimizer import RotatedAdamW, Rotation
from parity import code, tiny

REPOSITORY, COMMIT = "min-seong-kim/Safety-WaRP-LLM", "62655ede3a130387ded918ae63d3f9b6053b70aa"
KINDS = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "ffn_up": "up_proj", "ffn_down": "down_proj"}
PHASE, FREEZE, STEPS, RATE = "models/phase2_importance_per_layer.py", 0.1, 12, 1e-2


def compare(theirs: code.Code) -> list[code.Row]:
    modules = theirs.module("models/warp_modules.py")
    model = tiny.llama(1)
    targets = layers.resolve(model, tuple(KINDS.values()))
    batches = [tiny.batch(seed=s) for s in range(6)]
    u = {
        name: torch.linalg.qr(tiny.normal(n, n, seed=n))[0]
        for name, n in ((x.input, x.module.in_features) for x in targets)
    }
    encoded = [{k: batch[k][i].tolist() for k in ("input_ids", "labels")} for batch in batches for i in range(4)]
    scores = importance.score(model, targets, u, encoded, batch_size=4, pad_id=0)

    other, start = copy.deepcopy(model), copy.deepcopy(model)
    key_of = {
        (b, kind): f"model.layers.{b}.{'mlp' if 'ffn' in kind else 'self_attn'}.{name}"
        for b in range(2)
        for kind, name in KINDS.items()
    }
    input_of = {x.name: x.input for x in targets}
    modules.switch_to_warp_module(other, list(KINDS))
    found = {key: other.get_submodule(name) for key, name in key_of.items()}
    analyzer = SimpleNamespace(
        model=other,
        dataloader=batches,
        stats={"total_samples": 0, "total_tokens": 0},
        masks={},
        adapt_importances={},
        logger=logging.getLogger("theirs"),
        layer_types=list(KINDS),
        args=SimpleNamespace(target_layers="all"),
        basis_data={key: {"U": u[input_of[name]]} for key, name in key_of.items()},
        _parse_target_layers=lambda n: range(n),
        _convert_importance_dict=lambda by_module: {
            key: by_module[module].float().numpy() for key, module in found.items()
        },
        _get_target_module=lambda layer, kind: getattr(layer.mlp if "ffn" in kind else layer.self_attn, KINDS[kind]),
    )
    given = {
        "torch": torch,
        "np": np,
        "gc": gc,
        "OrderedDict": OrderedDict,
        "tqdm": lambda x, **_: x,
        "WaRPModule": modules.WaRPModule,
    }
    for step in ("reparameterize_weights", "compute_importance", "generate_masks"):
        theirs.part(PHASE, f"Phase2ImportanceScorerPerLayer.{step}", given)(analyzer)
    wanted = {key_of[k]: torch.from_numpy(v) for k, v in analyzer.importances.items()}
    ours = {x.name: torch.from_numpy(masks.top_entries(wanted[x.name].numpy(), FREEZE)) for x in targets}
    other_entries = max(
        float((torch.from_numpy(analyzer.masks[k]).bool() ^ ours[n]).double().mean()) for k, n in key_of.items()
    )
    rows = [
        code.Row("importance", tiny.far(scores, wanted), 1e-5, "sums in float32 here"),
        code.Row(
            "share of entries in one mask only", other_entries, 2e-3, "their quantile freezes up to one entry more"
        ),
    ]
    for key, module in found.items():
        module.coeff_mask.data = ours[key_of[key]].clone()
        module.mask_mode.fill_(0)
    restore = theirs.part(
        "models/phase3_extra_learning_non_freeze.py",
        "WaRPMaskRestoreCallback",
        {"torch": torch, "TrainerCallback": object, "WaRPModule": modules.WaRPModule},
    )
    callback = restore(other)
    for m in (model, other):
        m.requires_grad_(False)
    published = torch.optim.AdamW([m.basis_coeff.requires_grad_(True) for m in found.values()], lr=RATE, weight_decay=0)
    weights = [x.module.weight.requires_grad_(True) for x in targets]
    rotations = {x.module.weight: Rotation(u[x.input], ours[x.name]) for x in targets}
    rotated = RotatedAdamW(weights, rotations, lr=RATE, weight_decay=0.0, max_grad_norm=None)
    for step in range(STEPS):
        for m, optimizer in ((model, rotated), (other, published)):
            m(**tiny.batch(seed=100 + step), use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        callback.on_step_end(None, None, None)
    modules.restore_weight(other)
    update = {x.name: x.module.weight.detach() - start.get_submodule(x.name).weight for x in targets}
    want = {n: other.get_submodule(n).weight - start.get_submodule(n).weight for n in update}
    rows.append(code.Row(f"update after {STEPS} steps", tiny.far(update, want), 1e-6, "float64; another order of sums"))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
