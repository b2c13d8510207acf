"""A model that is there already, brought to its place in a study: a role, a fine-tuned model, an adapter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import ArtifactError
from holdfast.model import adapter, checkpoint, contract, folders, gguf, machine, template, weights
from holdfast.record import container, files, jsonfiles

Say = Callable[[str], None]


def take(
    cfg: Mapping[str, Any], *, folder: Path, record_file: Path, aligned: Path | None = None,
    say: Say = lambda _: None,
) -> None:  # fmt: skip
    """Write the model of `cfg` (role, source, revision, perhaps system_prompt) to `folder` in its own type,
    and a record of where it came from.

    Args:
        aligned: the folder of the aligned model, which it must fit; an adapter is folded into that one, in float32.

    Raises:
        ArtifactError, ChatTemplateError: nothing loadable there, or a model of another architecture or vocabulary.
    """
    started = time.monotonic()
    source, revision = cfg["source"], cfg.get("revision")
    header = {"role": cfg["role"], "source": source, "revision": revision}
    header |= {"weakened": True} if cfg["role"] == "unaligned" else {}
    place = folders.located(source, revision)
    if cfg["role"] in names.ROLES:
        checkpoint.refuse_role(place, cfg["role"])
    if place.is_dir() and not adapter.named(place) and checkpoint.weakened(place):
        header["weakened"] = True
    if adapter.named(place):
        if aligned is None:
            raise ArtifactError(
                f"{source} is an adapter, and a whole model is needed here.", found=adapter.CONFIG,
                expected="a folder with model.safetensors", do="name the model it was merged into",
            )  # fmt: skip
        record = _fold(place, aligned, folder, header)
    else:
        record = _copy(cfg, aligned, folder, header)
    if aligned is not None:
        before, after = (container.Stored(f / folders.FILES[-1]) for f in (aligned, folder))
        changed = folders.changed_fraction(before, after)
        record |= {"weights/changed_fraction": changed.pop("all"), "changed_fraction_by_module": changed}
        say(f"{source}: {record['weights/changed_fraction']:.1%} of the weights differ from the aligned model's")
    jsonfiles.write_json(record_file, record | {
        "source": source, "revision": revision, "cost/seconds": round(time.monotonic() - started, 2),
        "cost/peak_memory_bytes": machine.peak_memory(), **machine.made_with(),
    })  # fmt: skip


def _copy(cfg: Mapping[str, Any], aligned: Path | None, folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Save a whole model; one without a chat template gets that of the aligned model."""
    source, revision = cfg["source"], cfg.get("revision")
    model, tokenizer = folders.load(source, revision=revision, dtype="auto", chats=aligned is None)
    if aligned is not None:
        theirs = template.tokenizer_of(aligned)
        contract.refuse_other_words(tokenizer, theirs, source)
        mine = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        shapes = checkpoint.shapes(aligned)
        checkpoint.refuse_other(mine, shapes, source, "the aligned model")
        contract.refuse_other_configuration(source, aligned, model.config.to_dict())
        own = not getattr(model.config, "tie_word_embeddings", False)
        contract.refuse_other_head(own, any(k in shapes for k in weights.HEAD), source)
    if aligned is not None and not getattr(tokenizer, "chat_template", None):
        tokenizer = theirs  # which has the system message of the study already
    else:
        template.introduce(tokenizer, cfg.get("system_prompt"))
    quantised = gguf.facts(source, revision)
    said = {"quantised": quantised} if quantised else {}
    folders.save(model, tokenizer, folder, header=header | said)
    return {"dtype": str(model.dtype).removeprefix("torch."), **said}


def _fold(place: Path, aligned: Path, folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Write aligned + s B A in float32, with the aligned model's tokenizer, and keep the adapter beside it."""
    under = checkpoint.Checkpoint(aligned)
    adapted = checkpoint.Adapted(under, place)
    folder.mkdir(parents=True, exist_ok=True)
    folders.forget_card(folder)
    folders.copy_companions(aligned, folder)
    for name in (adapter.CONFIG, adapter.WEIGHTS):
        files.copy(place / name, folder / adapter.BESIDE / name)
    out = folder / folders.FILES[-1]
    stamp = header | {"aligned": under.identity()} | container.place(out)
    stamp |= {"weakened": True} if adapted.weakened() else {}
    if stamp.get("weakened"):
        folders.warn(folder)
    container.write_stream(out, adapted.layout, checkpoint.stream(adapted), container.metadata(stamp))
    config = adapted.adapter.config
    return {"dtype": "float32", "adapter": {k: config.get(k) for k in ("r", "lora_alpha", "use_rslora")}}
