"""A model folder looked over before anything runs: from its JSON files and the headers of its weights.

Torch-free and fast; the Snakefile asks for it at every start of a study whose base is a folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError, ChatTemplateError, HoldfastError
from holdfast.model import template
from holdfast.record import container, provenance

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")
_CHECKED = "HOLDFAST_TEMPLATES"
_HEAD = ("lm_head.weight", "embed_out.weight")


def check(folder: Path | str, *, chats: bool = True) -> None:
    """Refuse a folder that could not be loaded, trained or asked; one that `chats` needs a template.

    Raises:
        ArtifactError: no configuration, no tokenizer, weights missing, damaged or of another vocabulary.
        ChatTemplateError: the tokenizer cannot render a conversation or end one.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise _wrong(folder, "is not a folder", found="a file" if folder.exists() else "nothing there")
    config = _json(folder, "config.json")
    _plain(folder, config)
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    shapes = _weights(folder)
    _as_configured(folder, config, shapes)
    embeddings = next((shapes[k] for k in _EMBEDDINGS if k in shapes), None)
    if embeddings is not None and isinstance(size, int) and embeddings[0] != size:
        raise _wrong(
            folder, "has embeddings of another vocabulary than its config.json",
            found=f"{embeddings[0]} rows", expected=f"vocab_size {size}", do="use the config.json it was saved with",
        )  # fmt: skip
    if embeddings is not None and not config.get("tie_word_embeddings", True) and not any(k in shapes for k in _HEAD):
        raise _wrong(
            folder, "says that its output layer is its own, but has none",
            found="no lm_head.weight", expected="lm_head.weight, or tie_word_embeddings: true",
            do="correct tie_word_embeddings in config.json",
        )  # fmt: skip
    _tokenizer(folder, size, chats)
    if chats:
        _template(folder)


def _template(folder: Path) -> None:
    """Hold the chat template to its contract, once a run: the jobs of a run find a mark of its first process."""
    known = [
        (p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.iterdir()) if p.suffix != ".safetensors"
    ]
    mark = provenance.digest([str(folder.resolve()), known])
    marks = os.environ.get(_CHECKED, "").split()
    if mark not in marks:
        template.of_folder(folder)
        os.environ[_CHECKED] = " ".join([*marks, mark])


def _plain(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse weights that are stored in fewer bits: nothing here trains or merges them."""
    found = config.get("quantization_config")
    if found:
        kind = found.get("quant_method", "unknown") if isinstance(found, dict) else str(found)[:40]
        raise _wrong(
            folder, "holds quantised weights", found=f"quant_method: {kind}",
            expected="weights in float32, float16 or bfloat16",
            do="name the model it was made from; `lora` with `base: nf4` quantises by itself",
        )  # fmt: skip


def _as_configured(folder: Path, config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> None:
    """Refuse weights under other names than a decoder of this configuration has, or of other sizes.

    Knows the layout that Llama, Mistral, Qwen, Gemma, SmolLM and their like share; any other is looked at when it is
    loaded, where every tensor is.
    """
    prefixes = sorted({k[: k.index("model.layers.")] for k in shapes if "model.layers." in k} - {""})
    if prefixes:
        raise _wrong(
            folder, "has its weights under a prefix", found=f"{prefixes[0]}model.layers. ...",
            expected="model.layers. ...",
            do="save the model itself, not a wrapper around it (of torch.compile, DDP or FSDP)",
        )  # fmt: skip
    blocks, hidden = config.get("num_hidden_layers"), config.get("hidden_size")
    if "model.layers.0.self_attn.q_proj.weight" not in shapes or not isinstance(blocks, int):
        return
    numbers = {int(k.split(".")[2]) for k in shapes if k.startswith("model.layers.") and k.split(".")[2].isdigit()}
    if numbers != set(range(blocks)):
        raise _wrong(
            folder, "has another number of blocks than its config.json",
            found=f"blocks {min(numbers)} to {max(numbers)}",
            expected=f"num_hidden_layers {blocks}", do="use the config.json it was saved with",
        )  # fmt: skip
    sizes = {"self_attn.q_proj": (1, hidden), "self_attn.o_proj": (0, hidden), "mlp.down_proj": (0, hidden),
             "mlp.up_proj": (0, config.get("intermediate_size"))}  # fmt: skip
    for block in range(blocks):
        for kind, (axis, size) in sizes.items():
            name = f"model.layers.{block}.{kind}.weight"
            if isinstance(size, int) and name in shapes and shapes[name][axis] != size:
                raise _wrong(
                    folder, "has weights of other sizes than its config.json", found=f"{name} {shapes[name]}",
                    expected=f"{size} where config.json says so", do="use the config.json it was saved with",
                )  # fmt: skip


def _wrong(folder: Path, what: str, *, found: str, expected: str = "", do: str = "") -> HoldfastError:
    return ArtifactError(
        f"The model folder {folder} {what}.", found=found,
        expected=expected or "a Hugging Face folder: config.json, tokenizer files, model.safetensors",
        do=do or "correct base.source, or copy the missing file from the original model",
    )  # fmt: skip


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise _wrong(folder, f"has no {name}", found=_names(folder))
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise _wrong(folder, f"has a {name} that cannot be read", found=str(error)[:120], expected="JSON") from None
    return value


def _names(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder"


def _weights(folder: Path) -> Mapping[str, list[int]]:
    """Shapes of all tensors, from the headers of the weight files; every file must be whole."""
    if (folder / INDEX).is_file():
        where = _json(folder, INDEX).get("weight_map")
        if not isinstance(where, dict):
            raise _wrong(folder, f"has an {INDEX} without a weight_map", found="no weight_map", expected="weight_map")
        shards = sorted(set(where.values()))
        missing = [s for s in shards if not (folder / str(s)).is_file()]
        if missing:
            raise _wrong(
                folder, "lacks a shard of its weights", found=f"no {', '.join(map(str, missing[:4]))}",
                expected=f"the {len(shards)} files that {INDEX} names", do="download the missing file again",
            )  # fmt: skip
    elif (folder / WEIGHTS).is_file():
        shards = [WEIGHTS]
    else:
        others = sorted(p.name for p in folder.glob("*.bin")) or sorted(p.name for p in folder.glob("*.pt"))
        raise _wrong(
            folder, "has no safetensors weights", found=", ".join(others[:4]) or _names(folder),
            expected=f"{WEIGHTS}, or {INDEX} and its shards",
            do="save the model as safetensors; other kinds can run code when they are loaded, and are not read",
        )  # fmt: skip
    shapes: dict[str, list[int]] = {}
    for shard in shards:
        try:
            header, _ = container.raw_header(folder / shard)
        except ArtifactError as error:
            raise _wrong(
                folder, f"has a damaged {shard}", found=error.found, expected=error.expected, do="copy the file again"
            ) from None
        shapes |= {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
    return shapes


def _tokenizer(folder: Path, size: int | None, chats: bool) -> None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise _wrong(folder, "has no tokenizer", found=_names(folder), expected="tokenizer.json or tokenizer.model")
    config = _json(folder, "tokenizer_config.json")
    template = (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file()
    template = template or bool(config.get("chat_template"))
    end = config.get("eos_token")
    if not end and (folder / "special_tokens_map.json").is_file():
        end = _json(folder, "special_tokens_map.json").get("eos_token")
    if (chats and not template) or not end:
        raise ChatTemplateError(
            f"The tokenizer of {folder} cannot render a conversation.",
            found=f"chat template: {'yes' if template else 'no'}, end token: {'yes' if end else 'no'}",
            expected="a chat template and an end-of-text token",
            do="copy chat_template.jinja and tokenizer_config.json of the original model into the folder",
        )
    if (folder / "tokenizer.json").is_file() and isinstance(size, int):
        content = _json(folder, "tokenizer.json")
        vocabulary = (content.get("model") or {}).get("vocab") or {}
        ids = [t.get("id", 0) for t in content.get("added_tokens") or []]
        ids += vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        if ids and max(ids) >= size:
            raise _wrong(
                folder, "has a tokenizer that knows more tokens than the model",
                found=f"token id {max(ids)}", expected=f"ids below vocab_size {size}",
                do="use the tokenizer the model was saved with",
            )  # fmt: skip
