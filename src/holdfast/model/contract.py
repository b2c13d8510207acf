"""A model folder looked over before anything runs: from its JSON files and the headers of its weights.

Torch-free and fast; the Snakefile asks for it at every start of a study whose base is a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError, ChatTemplateError, HoldfastError
from holdfast.record import container

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")
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
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    shapes = _weights(folder)
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
