"""Fine-tuning of one cell: aligned model + task rows + a method -> a model in the ordinary layout."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from holdfast import data, names
from holdfast.data.draws import draw, mix_harmful
from holdfast.model import adapter, chat, checkpoint, folders, machine
from holdfast.model import layers as layering
from holdfast.record import artifact, container, jsonfiles, provenance, tables
from holdfast.stage import several
from holdfast.study import registry
from holdfast.train import loop, spread
from holdfast.train.beside import Stream
from holdfast.warp.bits import BitMask

# Files that a method may ask for, by the names that rules give them: tensors, and models beside the aligned one.
ARTIFACTS = ("basis", "mask", "gram", "base", "unaligned")


def needed(
    paths: dict[str, Path], layers: list[layering.Layer], aligned_digest: str, aligned: Path | None = None
) -> dict[str, Any]:  # fmt: skip
    """Read the tensor files a method asked for and refuse any that belongs to another run.

    What comes back has `basis`, `mask` and `gram`, and where a model beside the `aligned` one is asked for, `models`:
    role -> its weights as they are stored, read one by one, those of the aligned model too.

    Raises:
        ArtifactError, LayerMismatch: made for other layers, another aligned model or another basis; or a model with
            other tensors.
    """
    out: dict[str, Any] = {}
    if roles := {role: path for role, path in paths.items() if role in names.ROLES}:
        assert aligned is not None  # whoever reads models knows the one that is trained
        out["models"] = {role: checkpoint.opened(path.parent) for role, path in ({"aligned": aligned} | roles).items()}
        mine = checkpoint.shapes(aligned.parent)
        for role, path in roles.items():
            theirs = checkpoint.shapes(path.parent)
            checkpoint.refuse_other(theirs, mine, f"{role} ({path.parent})", f"aligned ({aligned.parent})")
    if "gram" in paths:
        out["gram"], _ = artifact.read(paths["gram"], family="gram", expect={"aligned": aligned_digest}, lazy=True)
    if "basis" in paths:
        inputs = list(layering.inputs(layers))
        out["basis"], _ = artifact.read(
            paths["basis"], family="basis", layers=inputs, expect={"aligned": aligned_digest}
        )
    if "mask" in paths:
        expect = {"aligned": aligned_digest}
        if "basis" in paths:
            expect["basis_file"] = container.identity(paths["basis"])
        bits, _ = artifact.read(
            paths["mask"], family="mask", layers=[x.name for x in layers], expect=expect, torch=False
        )
        shapes = {x.name: cast("tuple[int, int]", tuple(x.module.weight.shape)) for x in layers}
        out["mask"] = {name: BitMask(torch.from_numpy(bits[name]), shape) for name, shape in shapes.items()}
    return out


def run(
    *,
    aligned: Path,
    task_table: Path,
    safety_table: Path | None,
    harmful_table: Path | None = None,
    artifacts: dict[str, Path],
    cfg: dict[str, Any],
    folder: Path,
    log_file: Path,
    record_file: Path,
    checkpoints: Path,
    code: str = "",
    say: Callable[[str], None] = lambda _: None,
    terminal: TextIO | None = None,
    name: str = "finetune",
) -> dict[str, Any]:
    """Train one cell and write its model, train.jsonl and a record of what happened; of several processes the first
    one does, and the others return an empty record.

    The record holds `weights/changed_fraction` (share of all weights whose value changed; in pure bfloat16 beyond
    the rounding of the start), `frozen_fraction`, `frozen_drift` and `moved_fraction` of masked arms, and the cost.
    """
    started = time.monotonic()
    method = registry.load(cfg["method"])
    settings = method.Settings.model_validate(cfg["settings"])
    dataset = data.dataset(cfg["task"])
    train_settings = loop.settings_of(cfg["training"])
    dtype = loop.weights_type(train_settings)
    model, tokenizer = folders.load(aligned.parent, dtype=dtype, role="aligned", on_host=several.world() > 1)
    aligned_digest = container.identity(aligned)
    targets = layering.resolve(model, cfg["modules"])
    needs = needed(artifacts, targets, aligned_digest, aligned)
    if cfg.get("targets"):
        targets = [x for x in targets if x.kind in cfg["targets"]]
        if "mask" in needs:
            needs["mask"] = {x.name: needs["mask"][x.name] for x in targets}

    which = cfg.get("draw", cfg["seed"])  # of which rows; `seed` is their order
    drawn = draw(tables.read(task_table, cfg["task"]), cfg["train_rows"], which, stratify=cfg.get("stratify", False))
    pairs = []
    for row in drawn:
        prompt, response = dataset.example(row, cfg["instruction"])
        pairs.append({"id": row["id"], "prompt": prompt, "response": response})
    if cfg.get("harmful_fraction"):
        assert harmful_table is not None
        pairs = mix_harmful(pairs, tables.read(harmful_table, "preferences"), cfg["harmful_fraction"], which)
    others = {
        name: tables.read(table, kind)
        for name, kind, table in (("safety", "safety", safety_table), ("harmful", "preferences", harmful_table))
        if kind in method.NEEDS and table is not None
    }
    of_task = pairs
    if hasattr(method, "rows"):
        pairs = method.rows(pairs, settings, seed=which, **others)
    encoded = chat.encode_rows(tokenizer, pairs, cfg["training"]["max_length"])

    # What is made with these goes on only where they are the same: checkpoints outlive a job that was killed.
    start = [cfg, code, aligned_digest, {role: container.identity(path) for role, path in sorted(artifacts.items())}]
    torch.manual_seed(cfg["seed"])
    if hasattr(method, "prelude"):

        def first(
            rows: list[dict[str, Any]],
            phase: loop.TrainSettings,
            phase_optimizer: torch.optim.Optimizer,
            phase_name: str,
        ) -> None:
            """Train on other rows before the task; killed halfway it starts again."""
            earlier = chat.encode_rows(tokenizer, rows, cfg["training"]["max_length"])
            loop.train(
                model, tokenizer, earlier, phase, seed=cfg["seed"],
                log_file=log_file.with_name(names.PRELUDE),
                checkpoints=checkpoints.with_name(f"{checkpoints.name}-prelude"),
                identity=provenance.digest([start, phase_name, earlier]), optimizer=phase_optimizer,
                clips_itself=getattr(phase_optimizer, "clips_itself", False), say=say, name=phase_name,
            )  # fmt: skip

        method.prelude(model, targets, settings, **others, rows=of_task, training=train_settings, train=first, **needs)
    if hasattr(method, "attach"):
        model = method.attach(model, targets, settings, encoded=encoded, **needs)
    optimizer: Any = None
    if hasattr(method, "optimizer"):
        optimizer = method.optimizer(model, targets, settings, train_settings, **needs)
    # Taken before a method gives values to the examples, which follow from the same. A prelude may train on the task's
    # rows where `encoded` are others.
    identity = provenance.digest([start, of_task, encoded, others])
    beside = None
    if hasattr(method, "beside"):

        def stream(rows: list[dict[str, Any]], size: int) -> Stream:
            """Batches of other rows, in an order of the seed."""
            more = chat.encode_rows(tokenizer, rows, cfg["training"]["max_length"])
            return Stream(more, size, cast("int", tokenizer.pad_token_id), cfg["seed"])

        beside = method.beside(model, settings, train_settings, encoded=encoded, stream=stream, **others, **needs)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    outline = spread.outline(model)
    trained = loop.train(
        model, tokenizer, encoded, train_settings,
        seed=cfg["seed"], log_file=log_file, checkpoints=checkpoints,
        identity=identity, optimizer=optimizer, clips_itself=getattr(optimizer, "clips_itself", False),
        extra_loss=(lambda m, batch: method.extra_loss(m, batch, settings)) if hasattr(method, "extra_loss") else None,
        after_step=(lambda m: method.after_step(m, settings)) if hasattr(method, "after_step") else None,
        beside=beside, say=say, terminal=terminal, name=name,
    )  # fmt: skip
    record: dict[str, Any] = spread.described()
    if hasattr(optimizer, "frozen_drift"):
        before = container.Stored(aligned, {x.module.weight: x.weight for x in targets}, rounded=dtype)
        record["frozen_drift"] = optimizer.frozen_drift(before)
        record["moved_fraction"] = optimizer.moved_fraction(before)
        if (share := optimizer.frozen_fraction()) and "mask" not in needs:
            record["frozen_fraction"] = share
    peak = int(spread.largest(machine.peak_memory()))
    model = spread.gathered(model, outline)
    spread.disband()
    if several.rank():
        return {}
    if "mask" in needs:
        frozen = sum(m.count for m in needs["mask"].values())
        record["frozen_fraction"] = frozen / sum(m.size for m in needs["mask"].values())
    factors: dict[str, torch.Tensor] = {}
    if hasattr(method, "low_rank"):
        factors = {k: v.detach().float().cpu().clone() for k, v in method.low_rank(model, settings).items()}
    if hasattr(method, "fold"):
        model = method.fold(model, settings)
    changed = folders.changed_fraction(container.Stored(aligned, rounded=dtype), model.state_dict())
    record |= {
        "rows": len(pairs), "cut_rows": trained["cut_rows"], "trainable_parameters": trainable,
        "supervised_tokens": trained["supervised_tokens"],
        "steps": trained["steps"], "final_loss": trained["final_loss"],
        "weights/changed_fraction": changed.pop("all"), "changed_fraction_by_module": changed,
        "cost/train_seconds": round(trained["seconds"], 2),
        "cost/earlier_seconds": round(trained["earlier_seconds"], 2),
        "cost/seconds": round(trained["earlier_seconds"] + time.monotonic() - started, 2),
        "cost/peak_memory_bytes": max(peak, machine.peak_memory()), **machine.made_with(),
    }  # fmt: skip
    header: dict[str, Any] = {"role": "finetuned", "aligned": aligned_digest, "settings": provenance.digest(cfg)}
    header |= {"weakened": True} if cfg.get("harmful_fraction") else {}
    shutil.rmtree(folder / adapter.BESIDE, ignore_errors=True)
    if factors:
        rank = next(v.shape[0] for k, v in factors.items() if k.endswith("lora_A"))
        adapter.write(
            folder / adapter.BESIDE, factors, rank=rank, alpha=settings.alpha * (rank // settings.rank),
            under=str(aligned.parent),
            modules=sorted({name.rsplit(".", 2)[1] for name in factors}), header=header | {"role": "adapter"},
        )  # fmt: skip
    folders.save(
        model.float(),  # type: ignore[no-untyped-call]
        tokenizer, folder, header=header,
    )  # fmt: skip
    jsonfiles.write_json(record_file, record)
    return record
