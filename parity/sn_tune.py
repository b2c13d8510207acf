"""SN-Tune: the scores of the public detector, whose Llama computes them as it goes: `LlamaAttention.shared_forward` and
`LlamaMLP.forward` of its changed transformers, on every block of a tiny Llama.

The modules around them are ours; rotary embedding and the repeating of heads are those of transformers as installed.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, repeat_kv

from holdfast.train import neurons
from parity import code, tiny

REPOSITORY, COMMIT = "min-seong-kim/Safety-Neuron", "33f5374c931e27920d5ab34a1bf2e52d4c1bdea7"
FILE = "neuron_detection/transformers/models/llama/modeling_llama.py"
LENGTH = 12


def _theirs(theirs: code.Code, model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    given = {
        "torch": torch,
        "nn": nn,
        "F": nn.functional,
        "math": math,
        "repeat_kv": repeat_kv,
        "apply_rotary_pos_emb": apply_rotary_pos_emb,
    }
    attend = theirs.part(FILE, "LlamaAttention.shared_forward", given)
    think = theirs.part(FILE, "LlamaMLP.forward", given)
    seen, handles = {}, []
    for i, block in enumerate(model.model.layers):
        for module, kind in ((block.self_attn.q_proj, "attention"), (block.mlp.up_proj, "mlp")):
            handles.append(
                module.register_forward_pre_hook(lambda _, args, key=(i, kind): seen.__setitem__(key, args[0]))
            )
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    config, out = model.config, {}
    future = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]
    for i, block in enumerate(model.model.layers):
        names = {k: getattr(block.self_attn, k) for k in ("q_proj", "k_proj", "v_proj", "o_proj")}
        attention = SimpleNamespace(
            **names,
            config=SimpleNamespace(pretraining_tp=1),
            num_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            num_key_value_groups=1,
            attention_dropout=0.0,
            training=False,
            head_dim=block.self_attn.head_dim,
            layer_idx=i,
            hidden_size=config.hidden_size,
            rotary_emb=model.model.rotary_emb,
        )
        mlp = SimpleNamespace(
            config=SimpleNamespace(pretraining_tp=1),
            act_fn=block.mlp.act_fn,
            gate_proj=block.mlp.gate_proj,
            up_proj=block.mlp.up_proj,
            down_proj=block.mlp.down_proj,
        )
        with torch.no_grad():
            positions = torch.arange(LENGTH)[None]
            found = attend(attention, seen[i, "attention"], future, positions)
            out[f"blocks.{i}.q"] = out[f"blocks.{i}.k"] = torch.tensor(found[3])
            out[f"blocks.{i}.v"] = torch.tensor(found[6])
            out[f"blocks.{i}.mlp"] = torch.tensor(think(mlp, seen[i, "mlp"], True)[1])
    return out


def compare(theirs: code.Code) -> list[code.Row]:
    model = tiny.llama(1, torch.float32)
    ids = tiny.batch(rows=1, length=LENGTH)["input_ids"]
    example = {"input_ids": ids[0].tolist(), "labels": ids[0].tolist()}
    want = _theirs(theirs, model, ids)
    rows = []
    for group, paper in (
        ("mlp", "the change of the output, with gate and W_down"),
        ("v", "energy through W_o"),
        ("q", "the share of one channel alone, with 1/√d"),
        ("k", "the share of one channel alone, with 1/√d"),
    ):
        by = {}
        for how in ("code", "paper"):
            ours = {k: v for k, v in neurons.importance(model, example, how).items() if k.endswith(f".{group}")}
            wanted = {k: want[k] for k in ours}
            by[how] = tiny.far(ours, wanted), _others(ours, wanted)
        rows.append(code.Row(f"scores of {group}, `detection: code`", by["code"][0], 1e-4, "float32"))
        rows.append(code.Row(f"of the top fifth of {group}, others, `detection: paper`", by["paper"][1], 1.0, paper))
    return rows


def _others(ours: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    """Of the fifth of neurons with the largest scores the share that the other side has not."""
    shares = []
    for name, scores in ours.items():
        k = len(scores) // 5
        shares.append(1 - len(set(scores.topk(k).indices.tolist()) & set(want[name].topk(k).indices.tolist())) / k)
    return sum(shares) / len(shares)


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
