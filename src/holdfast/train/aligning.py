"""The models arms start from or are merged with: `base` (complies with everything), `aligned` (after SSFT)
and its `unaligned` twin."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from holdfast import data
from holdfast.model import chat, folders, machine
from holdfast.record import container, jsonfiles, provenance, tables
from holdfast.stage import several
from holdfast.study import registry
from holdfast.train import loop, spread, taking
from holdfast.world.generator import World
from holdfast.world.model import new_model, train_tokenizer

TASK_WORDINGS = 1000


def base(
    cfg: dict[str, Any],
    *,
    tasks: dict[str, Path],
    folder: Path,
    record_file: Path,
    log_file: Path,
    checkpoints: Path,
    code: str = "",
    say: Callable[[str], None] = lambda _: None,
    terminal: TextIO | None = None,
) -> None:
    """Fetch `cfg["source"]`, or train the tiny Llama: its tokenizer on everything it will meet, its
    weights on the world's documents and, with `task_documents`, on the text of real task rows."""
    started = time.monotonic()
    if cfg["source"] != "tiny":
        taking.take(cfg | {"role": "base"}, folder=folder, record_file=record_file, say=say)
        log_file.write_text("", encoding="utf-8")
        return
    pre = cfg["pretraining"]
    world = World(cfg["world"]["seed"])
    documents = [{**row, "text": ""} for row in world.pretraining(pre["documents"])]
    wordings = [chat.render(r["prompt"], r["response"]) for r in documents]
    # The tokenizer knows the wording of every task of the world, whichever tasks a study has.
    wordings += [chat.render(*data.dataset("agnews").example(r)) for r in world.agnews("train", TASK_WORDINGS)]
    wordings += [chat.render(r["question"], r["answer"]) for r in world.gsm8k("train", TASK_WORDINGS)]
    wordings += [chat.render(r["prompt"], r["response"]) for r in world.safety(600, 0)]
    real: list[dict[str, str]] = []
    for name, path in sorted(tasks.items()):
        dataset = data.dataset(cfg["real_tasks"][name])
        rows = [r for r in tables.read(path, cfg["real_tasks"][name]) if r["split"] == "train"][: pre["task_documents"]]
        wordings += [chat.render(*dataset.example(r)) for r in rows]
        texts = ["\n".join(str(r[c]) for c in dataset.TEXT_COLUMNS) for r in rows]
        real += [{"kind": name, "prompt": "", "response": "", "text": t} for t in texts]
    tokenizer = train_tokenizer(wordings, cfg["vocabulary"])
    model = new_model(
        tokenizer, hidden_size=cfg["hidden_size"], intermediate_size=cfg["intermediate_size"], layers=cfg["blocks"],
        heads=cfg["heads"], kv_heads=cfg["kv_heads"], max_positions=cfg["max_positions"], seed=cfg["seed"],
    )  # fmt: skip
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens in the vocabulary")
    encoded = [
        chat.encode_document(tokenizer, row, min(pre["max_length"], cfg["max_positions"]))
        for row in itertools.chain(documents, real)
    ]
    settings = loop.TrainSettings(
        learning_rate=pre["learning_rate"], epochs=pre["epochs"], batch_size=pre["batch_size"], weight_decay=0.01,
        weight_decay_on="all", betas=(0.9, 0.98), alike=True, log_every_steps=20,
    )  # fmt: skip
    trained = loop.train(
        model, tokenizer, encoded, settings, seed=cfg["seed"], log_file=log_file, checkpoints=checkpoints,
        identity=provenance.digest([cfg, code, encoded]), say=say, terminal=terminal, name="base",
    )  # fmt: skip
    folders.save(model, tokenizer, folder, header={"role": "base", "settings": provenance.digest(cfg)})
    _record(record_file, started, trained | {"rows": len(encoded)}, {}, 0)


def _record(path: Path, started: float, trained: dict[str, Any], together: dict[str, Any], peak: int) -> None:
    """What a role's training cost and what it ran on: in which processes (`together`), with which `peak` of bytes."""
    kept = {k: trained[k] for k in ("rows", "cut_rows", "steps", "supervised_tokens", "final_loss")}
    jsonfiles.write_json(path, kept | together | {
        "cost/train_seconds": round(trained["seconds"], 2),
        "cost/earlier_seconds": round(trained["earlier_seconds"], 2),
        "cost/seconds": round(trained["earlier_seconds"] + time.monotonic() - started, 2),
        "cost/peak_memory_bytes": max(peak, machine.peak_memory()), **machine.made_with(),
    })  # fmt: skip


def tuned(
    cfg: dict[str, Any],
    *,
    start: Path,
    table: Path,
    folder: Path,
    record_file: Path,
    log_file: Path,
    checkpoints: Path,
    code: str = "",
    say: Callable[[str], None] = lambda _: None,
    terminal: TextIO | None = None,
) -> None:
    """Fine-tune `start` for a role, loss on the response tokens only; all parameters, unless cfg has `lora`.

    `aligned` is SSFT: refusals and benign answers of the safety table, from the base. `unaligned` is the
    twin RESTA subtracts: rejected answers of the preference table, from the aligned model. It has lost
    its refusals on purpose, is marked as weakened, and is not exported unless it is named. `judge` is the constitution
    judge: labelled pairs, from the base, with LoRA.
    """
    started = time.monotonic()
    role, phase = cfg["role"], loop.settings_of(cfg["training"])
    model, tokenizer = folders.load(start.parent, dtype=loop.weights_type(phase), on_host=several.world() > 1)
    if role == "unaligned":
        rows = [{**r, "response": r["rejected"]} for r in tables.read(table, "preferences")[: cfg["rows"]]]
    elif role == "judge":
        rows = tables.read(table, "judge_examples")
    else:
        rows = tables.read(table, "safety")
    encoded = chat.encode_rows(tokenizer, rows, cfg["training"]["max_length"])
    start_digest = container.identity(start)
    if "lora" in cfg:
        lora = registry.load("lora")
        settings = lora.Settings(**cfg["lora"])
        torch.manual_seed(cfg["seed"])
        model = lora.attach(model, [], settings)
    outline = spread.outline(model)
    trained = loop.train(
        model, tokenizer, encoded, phase, seed=cfg["seed"], log_file=log_file,
        checkpoints=checkpoints, identity=provenance.digest([cfg, code, start_digest, encoded]), say=say,
        terminal=terminal, name=role,
    )  # fmt: skip
    together, peak = spread.described(), int(spread.largest(machine.peak_memory()))
    model = spread.gathered(model, outline)
    spread.disband()
    if several.rank():
        return
    if "lora" in cfg:
        model = lora.fold(model, settings)
    header = {"role": role, "start": start_digest, "rows": provenance.rows_digest(rows)}
    header |= {"cut_rows": trained["cut_rows"]} if trained["cut_rows"] else {}
    model = model.float()  # type: ignore[no-untyped-call]
    folders.save(model, tokenizer, folder, header=header | ({"weakened": True} if role == "unaligned" else {}))
    _record(record_file, started, trained | {"rows": len(rows)}, together, peak)
