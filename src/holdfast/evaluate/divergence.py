"""How far a model has moved from the aligned one where nothing was to change: the KL divergence of its next tokens from
the aligned model's, along the answers that the aligned model itself gives to benign prompts (as Qi et al. 2024, "Safety
alignment should be made more than just a few tokens deep", measure what fine-tuning moves)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from holdfast import names
from holdfast.errors import DataError
from holdfast.model import chat, folders, template
from holdfast.record import jsonfiles, tables

Say = Callable[[str], None]


@torch.inference_mode()
def per_answer(
    model: PreTrainedModel, aligned: PreTrainedModel, encoded: Sequence[chat.Example], *, pad_id: int, batch_size: int,
    say: Say = lambda _: None,
) -> list[float]:  # fmt: skip
    """Mean KL(aligned || model) in nats over the positions of every answer, the one where it ends included."""
    out = []
    for start in range(0, len(encoded), batch_size):
        batch = chat.collate(encoded[start : start + batch_size], pad_id)
        batch = {k: v.to(model.device) for k, v in batch.items()}
        answered = chat.following(batch.pop("labels")) != chat.IGNORE
        p, q = (folders.logits_at(m, batch, answered).log_softmax(-1) for m in (aligned, model))
        each = torch.split((p.exp() * (p - q)).sum(-1), answered.sum(1).tolist())
        out += [float(kl.mean()) for kl in each]
        say(f"compared {len(out)}/{len(encoded)} answers")
    return out


def measure(
    model_file: Path, aligned_file: Path, responses: Path, *, cfg: dict[str, Any], out: Path, say: Say
) -> None:  # fmt: skip
    """Write {drift/kl, drift/kl_n} of a model as JSON: the mean over answers, and how many.

    Args:
        cfg: batch_size, and system_prompt where the answers were given after one.

    Raises:
        DataError: the aligned model answered no benign prompt with a word.
    """
    asked = [r for r in tables.read(responses, "responses") if r["set"] in names.BENIGN]
    rows = [{"id": r["id"], "prompt": r["prompt"], "response": r["text"]} for r in asked if r["text"].strip()]
    if not rows:
        raise DataError(
            "The aligned model answers no benign prompt, along which models could be compared.",
            found=f"{len(asked)} benign prompts, no answer with a word", expected="an answer to one of them",
            do="add benign prompts, or set evaluation.divergence to false",
        )  # fmt: skip
    aligned, _ = folders.load(aligned_file.parent, role="aligned")
    model, tokenizer = folders.load(model_file.parent)
    template.introduce(tokenizer, cfg.get("system_prompt"))
    encoded = sorted(chat.encode_rows(tokenizer, rows), key=lambda e: len(e["input_ids"]))  # for less padding
    pad_id = int(tokenizer.pad_token_id or 0)
    kl = per_answer(model, aligned, encoded, pad_id=pad_id, batch_size=cfg["batch_size"], say=say)
    jsonfiles.write_json(out, {names.KL: sum(kl) / len(kl), f"{names.KL}_n": len(kl)})
