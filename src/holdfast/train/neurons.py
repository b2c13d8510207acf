"""Safety neurons (SN-Tune, RSN-Tune): which rows and columns of a block matter for refusals.

A neuron is one unit inside a block: a channel of the MLP (a row of gate and up, a column of down), or
an output channel of q, k or v. Its importance for one sample is how much the block's computation
changes without it:

    mlp   Σ_t h[t, j]² ‖W_down[:, j]‖²                    (exactly ‖MLP(x) − MLP without j‖²)
    v     Σ_t v[t, j]² ‖W_o[:, j]‖²                       (summed over the heads that read it)
    q, k  ‖softmax(S) − softmax(S − Δ_j)‖², Δ_j the share of the scores that goes through channel j,
          rotary embedding included

`detection: code` scores as the public detector does instead (the code that Safety-Neuron modifies Llama with):

    mlp   Σ_t |W_up x|[t, j], without gate and W_down
    v     Σ_t |attention output[t, j]|, before W_o
    q, k  one score for both, ‖softmax(S) − softmax(S − q_j k_jᵀ)‖² after the rotary embedding, without 1 / √d in what
          is taken away; where several heads read one channel of k or v, their scores are summed

A neuron counts for a sample when it is among the share `fraction` of its group with the largest
importance; safety neurons count for (nearly) every refusal. Only Llama-like blocks are supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast import names
from holdfast.errors import LayerMismatch
from holdfast.model import folders
from holdfast.record import artifact, container, provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from holdfast.model import chat

# module kind -> (group of neurons, axis of its weight they live on)
WHERE = {
    "q_proj": ("q", 0), "k_proj": ("k", 0), "v_proj": ("v", 0), "gate_proj": ("mlp", 0), "up_proj": ("mlp", 0),
    "down_proj": ("mlp", 1),
}  # fmt: skip


def mlp_importance(hidden: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """(d_ff,) squared change of the MLP's output without each channel. hidden (T, d_ff), down (m, d_ff)."""
    return hidden.pow(2).sum(dim=0) * down.pow(2).sum(dim=0)


def value_importance(v: torch.Tensor, output: torch.Tensor, heads: int) -> torch.Tensor:
    """(kv channels,) Σ_t v² times the squared norm of the columns of W_o that read each channel."""
    kv = v.shape[1] // (output.shape[1] // heads)
    read = output.pow(2).sum(dim=0).view(kv, heads // kv, -1).sum(dim=1).flatten()
    return v.pow(2).sum(dim=0) * read


def _spread(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary embedding of each channel alone: what channel j of x (T, d) puts on itself and on its partner."""
    half = x.shape[1] // 2
    sign = torch.cat([torch.ones(half), -torch.ones(half)]).to(x)
    return x * cos, x * sin * sign


def _change(scores: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """(d,) squared change of the causal attention weights of scores (T, T) without each share of them (d, T, T)."""
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    weights = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    without = torch.softmax((scores - share).masked_fill(future, -torch.inf), dim=-1)
    return (weights - without).pow(2).sum(dim=(1, 2))


def score_importance(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: int, detection: str = "paper"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared change of the attention weights without each channel of q (heads · d,) and of k (kv · d,).

    Args:
        q: (T, heads · d), k: (T, kv · d), before the rotary embedding; cos, sin: (T, d).
    """
    d = cos.shape[1]
    groups = heads // (k.shape[1] // d)
    partner = torch.arange(d).roll(d // 2)
    by_q, by_k = torch.zeros_like(q[0]), torch.zeros_like(k[0])
    for head in range(heads):
        kv = head // groups
        of_q, of_k = slice(head * d, (head + 1) * d), slice(kv * d, (kv + 1) * d)
        q_own, q_other = _spread(q[:, of_q], cos, sin)
        k_own, k_other = _spread(k[:, of_k], cos, sin)
        q_full, k_full = q_own + q_other[:, partner], k_own + k_other[:, partner]
        scores = q_full @ k_full.T / d**0.5
        if detection == "code":
            both = _change(scores, torch.einsum("tj,sj->jts", q_full, k_full))
            by_q[of_q] += both
            by_k[of_k] += both
            continue
        # (d, T, T): the part of the scores that channel j of q (then of k) carries
        through_q = torch.einsum("tj,sj->jts", q_own, k_full) + torch.einsum("tj,sj->jts", q_other, k_full[:, partner])
        through_k = torch.einsum("tj,sj->jts", q_full, k_own) + torch.einsum("tj,sj->jts", q_full[:, partner], k_other)
        by_q[of_q] += _change(scores, through_q / d**0.5)
        by_k[of_k] += _change(scores, through_k / d**0.5)
    return by_q, by_k


@torch.no_grad()
def importance(model: PreTrainedModel, encoded: chat.Example, detection: str = "paper") -> dict[str, torch.Tensor]:
    """Importance of every neuron for one sample: `blocks.<b>.<group>` -> (neurons,)."""
    seen: dict[tuple[int, str], Any] = {}
    handles = []
    blocks = getattr(model.model, "layers", None)
    if blocks is None or not hasattr(blocks[0].mlp, "gate_proj"):
        raise LayerMismatch(
            "Safety neurons are defined for blocks with gate, up, down, q, k, v and o projections.",
            found=type(model).__name__, expected="a Llama-like decoder", do="use another method for this model",
        )  # fmt: skip
    for i, block in enumerate(blocks):
        attention = block.self_attn
        for kind in ("q_proj", "k_proj", "v_proj", "up_proj"):
            module = block.mlp.up_proj if kind == "up_proj" else getattr(attention, kind)
            handles.append(
                module.register_forward_hook(lambda _, __, out, key=(i, kind): seen.__setitem__(key, out[0].float()))
            )
        for module, kind in ((block.mlp.down_proj, "h"), (attention.o_proj, "read")):
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, key=(i, kind): seen.__setitem__(key, args[0][0].float())
                )
            )
        handles.append(
            attention.register_forward_pre_hook(
                lambda _, args, kwargs, key=(i, "rotary"): seen.__setitem__(key, kwargs["position_embeddings"]),
                with_kwargs=True,
            )
        )
    try:
        ids = torch.tensor([encoded["input_ids"]], device=model.device)
        model(input_ids=ids, use_cache=False, **folders.few_logits(model))
    finally:
        for handle in handles:
            handle.remove()
    heads, out = model.config.num_attention_heads, {}
    for i, block in enumerate(blocks):
        cos, sin = (x[0].float() for x in seen[i, "rotary"])
        q, k, v = (seen[i, kind] for kind in ("q_proj", "k_proj", "v_proj"))
        out[f"blocks.{i}.q"], out[f"blocks.{i}.k"] = score_importance(q, k, cos, sin, heads, detection)
        if detection == "code":
            out[f"blocks.{i}.mlp"] = seen[i, "up_proj"].abs().sum(dim=0)
            d, of_heads = cos.shape[1], seen[i, "read"].abs().sum(dim=0)
            out[f"blocks.{i}.v"] = of_heads.view(v.shape[1] // d, -1, d).sum(dim=1).flatten()
        else:
            out[f"blocks.{i}.mlp"] = mlp_importance(seen[i, "h"], block.mlp.down_proj.weight.float())
            out[f"blocks.{i}.v"] = value_importance(v, block.self_attn.o_proj.weight.float(), heads)
    return out


def detect(
    model: PreTrainedModel,
    encoded: Sequence[chat.Example],
    fraction: float,
    say: Callable[[str], None] = lambda _: None,
    detection: str = "paper",
) -> dict[str, torch.Tensor]:
    """How many samples each neuron counts for: `blocks.<b>.<group>` -> (neurons,) int32."""
    counts: dict[str, torch.Tensor] = {}
    model.eval()  # type: ignore[no-untyped-call]
    for i, sample in enumerate(encoded):
        for name, values in importance(model, sample, detection).items():
            top = torch.topk(values, max(1, round(fraction * values.numel()))).indices
            counts.setdefault(name, torch.zeros(values.numel(), dtype=torch.int32))[top.cpu()] += 1
        if (i + 1) % 50 == 0 or i + 1 == len(encoded):
            say(f"detected neurons in {i + 1}/{len(encoded)} samples")
    return counts


def chosen(counts: Mapping[str, Any], samples: int, frequency: float) -> dict[str, np.ndarray]:
    """Neurons that count for at least the share `frequency` of the samples; 1 is the intersection."""
    return {name: np.asarray(c) >= frequency * samples - 1e-9 for name, c in counts.items()}


def build_counts(aligned: Path, safety_table: Path, cfg: dict[str, Any], out: Path, say: Callable[[str], None]) -> None:
    """Counts over refusals (`cfg["rows"] = "safety"`) or over answered benign rows (`foundation`)."""
    from holdfast.model import chat, folders
    from holdfast.record import tables

    model, tokenizer = folders.load(aligned.parent, role="aligned")
    wanted = cfg["on"] == "safety"
    rows = [r for r in tables.read(safety_table, "safety") if (r["kind"] == "hazard") == wanted][: cfg["samples"]]
    encoded = chat.encode_rows(tokenizer, rows)
    counts = detect(model, encoded, cfg["fraction"], say, cfg.get("detection", "paper"))
    shapes = {
        f"{name}": list(module.weight.shape)
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in names.MODULE_KINDS
    }
    header = {
        "aligned": container.identity(aligned), "samples": len(encoded), "fraction": cfg["fraction"],
        "on": cfg["on"], "layers": list(shapes), "shapes": shapes, "rows": provenance.rows_digest(rows),
    }  # fmt: skip
    artifact.write(out, counts, family="neurons", header=header)


def build_mask(safety_file: Path, foundation_file: Path | None, spec: dict[str, Any], out: Path) -> None:
    """Rows and columns of the chosen neurons as a mask over all linear modules, in the original space."""
    from holdfast.warp import masks

    counts, header = artifact.read(safety_file, family="neurons", torch=False)
    selected = chosen(counts, header["samples"], spec["frequency"])
    found = sum(int(s.sum()) for s in selected.values())
    if foundation_file is not None:
        others, other = artifact.read(
            foundation_file, family="neurons", torch=False, expect={"aligned": header["aligned"]}
        )
        general = chosen(others, other["samples"], spec["frequency"])
        selected = {name: s & ~general[name] for name, s in selected.items()}
    bits, frozen, total = {}, 0, 0
    for name in header["layers"]:
        m, n = header["shapes"][name]
        kind, block = name.rsplit(".", 1)[-1], name.split(".layers.")[-1].split(".")[0]
        mask = np.zeros((m, n), dtype=bool)
        if kind in WHERE:
            group, axis = WHERE[kind]
            mask[(slice(None),) * axis + (selected[f"blocks.{block}.{group}"],)] = True
        bits[name], frozen, total = masks.pack(mask), frozen + int(mask.sum()), total + mask.size
    artifact.write(
        out, bits, family="mask",
        header={
            "layers": header["layers"], "shapes": header["shapes"], "aligned": header["aligned"], "spec": spec,
            "frozen_fraction": frozen / total, "safety_neurons": found,
            "neurons": sum(int(s.sum()) for s in selected.values()),
        },
    )  # fmt: skip
