"""Greedy answers to prompts, in batches, identical for the same checkpoint and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from holdfast import data, names
from holdfast.model import chat, folders
from holdfast.record import provenance, tables

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """One generated answer. `finish` is `stop` (end of turn) or `length`; `first` are the probabilities of the words
    that were asked for at its first token."""

    text: str
    tokens: int
    finish: str
    first: dict[str, float] = field(default_factory=dict)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    encoded: Sequence[list[int]],
    config: GenerationConfig,
    *,
    batch_size: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[list[int]]:
    """New token ids for every prompt's ids, in order, up to and without the end token.

    Prompts are batched by length and padded on the left, so a prompt's neighbours are fixed by the
    prompt list; in float32 the batching does not change the answer.
    """
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    out: list[list[int]] = [[] for _ in encoded]
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        batch = chat.collate([{"input_ids": encoded[i]} for i in chunk], config.pad_token_id, side="left")
        batch = {k: v.to(model.device) for k, v in batch.items()}
        generated = model.generate(  # type: ignore[operator]  # what has a language head has it
            **batch, generation_config=config
        )[:, batch["input_ids"].shape[1] :].tolist()
        for i, ids in zip(chunk, generated, strict=True):
            out[i] = ids[: ids.index(config.eos_token_id)] if config.eos_token_id in ids else ids
        say(f"answered {min(start + batch_size, len(order))}/{len(order)}")
    return out


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers in the order of `prompts`."""
    encoded = [chat.encode_prompt(tokenizer, p) for p in prompts]
    return complete(model, tokenizer, encoded, max_new_tokens=max_new_tokens, batch_size=batch_size, say=say)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    words: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Greedy answers to prompts as token ids, in their order.

    `words`: also the probability of the first token of each of these at the answer's first token.
    """
    from transformers import GenerationConfig

    model.eval()  # type: ignore[no-untyped-call]
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    generated = generate(model, encoded, config, batch_size=batch_size, say=say)
    first = first_token(model, tokenizer, encoded, words, batch_size=batch_size) if words else [{} for _ in encoded]
    return [
        Answer(
            cast("str", tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            len(ids),
            "stop" if len(ids) < max_new_tokens else "length",
            probabilities,
        )
        for ids, probabilities in zip(generated, first, strict=True)
    ]


@torch.inference_mode()
def first_token(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    words: Sequence[str],
    *,
    batch_size: int,
) -> list[dict[str, float]]:
    """Per prompt, the probability that the next token is the first token of each word."""
    ids = [tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in words]
    out: list[dict[str, float]] = []
    for start in range(0, len(encoded), batch_size):
        rows = [{"input_ids": e} for e in encoded[start : start + batch_size]]
        batch = {k: v.to(model.device) for k, v in chat.collate(rows, tokenizer.pad_token_id).items()}
        last = batch["attention_mask"].sum(1) - 1
        logits = model(**batch).logits[torch.arange(len(rows), device=last.device), last].float()
        chosen = logits.softmax(-1)[:, ids].tolist()
        out += [dict(zip(words, row, strict=True)) for row in chosen]
    return out


def respond(
    checkpoint: Path,
    *,
    prompts: Path,
    tasks: dict[str, Path],
    cfg: dict[str, Any],
    out: Path,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer the safety prompts and the task rows of one split once; write responses.parquet.

    Task rows appear in the set `task:<name>` under the id of their row; `generation` is the digest of the settings an
    answer was generated with. Nothing is judged here.
    """
    model, tokenizer = folders.load(checkpoint.parent)
    work: list[tuple[list[dict[str, Any]], int]] = []
    chosen = [r for r in tables.read(prompts, "prompts") if r["split"] == cfg["split"]]
    work.append((chosen, cfg["max_new_tokens"]))
    for name, path in tasks.items():
        task = cfg["tasks"][name]
        dataset = data.dataset(task["dataset"])
        rows = [r for r in tables.read(path, task["dataset"]) if r["split"] == cfg["split"]]
        asked = [
            {
                "id": r["id"], "set": f"{names.TASK}:{name}", "base_id": r["id"], "category": "task", "wrapper": "",
                "prompt": dataset.example(r, task["instruction"])[0],
            }
            for r in rows
        ]  # fmt: skip
        work.append((asked, task["max_new_tokens"]))
    out_rows = []
    for rows, limit in work:
        answers = answer(
            model, tokenizer, [r["prompt"] for r in rows], max_new_tokens=limit, batch_size=cfg["batch_size"], say=say
        )
        settings = provenance.digest({"max_new_tokens": limit, "do_sample": False, "batch_size": cfg["batch_size"]})
        out_rows += [
            {**r, "text": a.text, "tokens": a.tokens, "finish": a.finish, "generation": settings}
            for r, a in zip(rows, answers, strict=True)
        ]
    tables.write(out_rows, out, "responses", check=False)  # judging, the next stage, checks
