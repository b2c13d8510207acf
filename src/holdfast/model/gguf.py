"""A model in one GGUF file: looked over by its header, and opened up once into float32 tensors.

What the file has rounded stays rounded; how, stands in the record. The opened folder lies in a cache, everything else
sees an ordinary folder (`folders.load`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArtifactError, ChatTemplateError, said
from holdfast.model import package
from holdfast.model.once import once
from holdfast.record import jsonfiles, paths, provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FACTS = "quantisation.json"


def named(source: Path | str) -> bool:
    """Whether a source is a GGUF file by its name."""
    return str(source).lower().endswith(".gguf")


def folder(source: Path | str) -> Path:
    """Where the opened model lies: another file, or the same one after a change, has another folder."""
    path = paths.home(source).resolve()
    state = path.stat()
    key = provenance.digest([str(path), state.st_size, state.st_mtime_ns])[:16]
    return paths.cache() / "gguf" / f"{path.stem}-{key}"


def check(source: Path | str) -> None:
    """Refuse a file that could not be opened up, by its header; once a run.

    Raises:
        ArtifactError: no GGUF file, damaged, of a kind of model that transformers does not open, or no tokenizer in it.
        ChatTemplateError: no chat template in it.
    """
    path = paths.home(source)
    once(str(folder(path)), lambda: _look(path, _reader(path)))


def _wrong(path: Path, what: str, *, found: str, expected: str, do: str) -> ArtifactError:
    return ArtifactError(f"{path} {what}.", found=found, expected=expected, do=do)


def _reader(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise _wrong(
            path, "is a GGUF file, and the package that reads them is not there", found="no package gguf",
            expected="pip install 'holdfast[gguf]'", do="install it, or name a folder in Hugging Face layout",
        ) from None  # fmt: skip
    try:
        return GGUFReader(path)
    except Exception as error:  # noqa: BLE001 - a file that is none raises whatever its first bytes lead to
        raise _wrong(
            path, "cannot be read as GGUF", found=said(error), expected="a whole GGUF file, version 2 or 3",
            do="download it again",
        ) from None  # fmt: skip


def _field(reader: Any, name: str) -> Any:
    found = reader.get_field(name)
    return None if found is None else found.contents()


def _look(path: Path, reader: Any) -> None:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if not end or end > path.stat().st_size:
        raise _wrong(
            path, "is cut short", found=f"{path.stat().st_size:,} bytes", expected=f"{end:,}", do="download it again"
        )
    kind = _field(reader, "general.architecture")
    if kind not in GGUF_CONFIG_MAPPING:
        raise _wrong(
            path, "holds a kind of model that transformers does not open", found=str(kind),
            expected=", ".join(sorted(k for k in GGUF_CONFIG_MAPPING if k != "general")),
            do="name the original model's folder or hub id",
        )  # fmt: skip
    if reader.get_field("tokenizer.ggml.tokens") is None:
        raise _wrong(
            path, "has no tokenizer", found="no tokenizer.ggml.tokens", expected="the tokenizer of the model",
            do="name another file of the model",
        )  # fmt: skip
    if not _field(reader, "tokenizer.chat_template"):
        raise ChatTemplateError(
            f"{path} cannot render a conversation.",
            found="no tokenizer.chat_template",
            expected="a chat template",
            do="name an instruction-tuned model's file",
        )


def config(source: Path | str) -> dict[str, Any]:
    """The shape of the model in a file under the names of a config.json, from its header.

    Raises:
        ArtifactError: as `check`. KeyError: the header does not say it.
    """
    reader = _reader(paths.home(source))
    kind = _field(reader, "general.architecture")

    def of(name: str) -> Any:
        found = _field(reader, f"{kind}.{name}")
        if found is None:
            raise KeyError(f"{kind}.{name}")
        return found

    return {
        "model_type": kind, "hidden_size": of("embedding_length"), "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"), "num_attention_heads": of("attention.head_count"),
        "num_key_value_heads": _field(reader, f"{kind}.attention.head_count_kv"),
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens") or ()),
        "tie_word_embeddings": all(t.name != "output.weight" for t in reader.tensors),
    }  # fmt: skip


def read(source: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """(model in float32, tokenizer, facts) of a GGUF file; facts are its name, digest, and how many tensors have which
    type.

    Raises:
        ArtifactError, ChatTemplateError: as `check`; or transformers cannot open it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    path = paths.home(source)
    reader = _reader(path)
    _look(path, reader)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001 - whatever a file of another shape than its header raises
        raise _wrong(
            path, "could not be opened up by transformers", found=said(error),
            expected="the tensors and the tokenizer of its architecture", do="name the original model's folder or id",
        ) from None  # fmt: skip
    words = _own_tokens(tokenizer, len(_field(reader, "tokenizer.ggml.tokens")))
    # The numbers are floats now, which transformers would not save as long as the model says otherwise.
    del model.config.quantization_config
    vars(model).pop("hf_quantizer", None)
    types = Counter(t.tensor_type.name for t in reader.tensors)
    facts = {
        "file": path.name, "sha256": provenance.file_digest(path), "tensors": dict(types.most_common()),
        "name": _field(reader, "general.name"), "licence": _field(reader, "general.license"),
    }  # fmt: skip
    return model, words, {k: v for k, v in facts.items() if v is not None}


def _own_tokens(tokenizer: PreTrainedTokenizerBase, count: int) -> PreTrainedTokenizerBase:
    """The tokenizer without tokens that transformers adds by its own defaults and that the model has no row for."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if len(tokenizer) <= count:
        return tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [t for t in backend["added_tokens"] if t["id"] < count]
    own: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False, **tokenizer.special_tokens_map,
    )  # fmt: skip
    return own


def facts(source: str, revision: str | None) -> dict[str, Any]:
    """What the record of an opened file says; nothing of a source that is none."""
    path = package.place(source, revision)
    place = folder(path) / FACTS if path and named(path) and paths.there(path) else None
    found: dict[str, Any] = jsonfiles.read_json(place) if place and place.exists() else {}
    return found
