"""A model in one GGUF file: looked over by its header, and opened up once into float32 tensors.

What the file has rounded stays rounded; how, stands in the record. The opened folder lies in a cache, everything else
sees an ordinary folder (`folders.load`).
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.errors import ChatTemplateError, said
from holdfast.model import gguf_header, gguf_words, package
from holdfast.model.gguf_header import field as _field
from holdfast.model.gguf_header import wrong as _wrong
from holdfast.model.once import once
from holdfast.record import jsonfiles, paths, provenance

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FACTS = "quantisation.json"
MAGIC = b"GGUF"
WAY = 4  # of opening a file; another one opens it again
_USER_DEFINED = 4  # a type of token in llama.cpp: matched whole wherever it stands in a text


def named(source: Path | str) -> bool:
    """Whether a source is a GGUF file by its name, and no folder that is called like one."""
    return str(source).lower().endswith(".gguf") and not paths.home(source).is_dir()


def folder(source: Path | str) -> Path:
    """Where the opened model lies: another file, or the same one after a change, has another folder."""
    path = paths.home(source).resolve()
    state = path.stat()
    key = provenance.digest([WAY, str(path), state.st_size, state.st_mtime_ns])[:16]
    return paths.cache() / "gguf" / f"{path.stem}-{key}"


def check(source: Path | str) -> None:
    """Refuse a file that could not be opened up, by its header; once a run.

    Raises:
        ArtifactError: no GGUF file, damaged, of a kind of model that transformers does not open, or no tokenizer in it.
        ChatTemplateError: no chat template in it.
    """
    path = paths.home(source)
    once(str(folder(path)), lambda: _look(path, _reader(path)))


def _reader(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise _wrong(
            path, "is a GGUF file, and the package that reads them is not there", found="no package gguf",
            expected="pip install 'holdfast[gguf]'", do="install it, or name a folder in Hugging Face layout",
        ) from None  # fmt: skip
    with path.open("rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic == MAGIC and version[:2] == b"\0\0" != version[2:]:  # a small number, the other way round
        raise _wrong(
            path, "is written for machines with the other order of bytes", found="a big-endian file",
            expected="a little-endian one", do="turn it: gguf-convert-endian FILE little; or download the usual file",
        ) from None  # fmt: skip
    try:
        return GGUFReader(path)
    except Exception as error:  # noqa: BLE001 - a file that is none raises whatever its first bytes lead to
        cut = magic == MAGIC and "version" not in str(error)  # of what is left the reader says what numpy says of it
        raise _wrong(
            path, "is cut short or damaged" if cut else "cannot be read as GGUF",
            found=f"{path.stat().st_size:,} bytes that do not fit its header: {said(error)}" if cut else said(error),
            expected="a whole GGUF file, version 2 or 3", do="download it again",
        ) from None  # fmt: skip


def _kinds() -> set[str]:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    return set(GGUF_CONFIG_MAPPING) - {"general", "tokenizer", "t5", "umt5"}


def _look(path: Path, reader: Any) -> None:
    end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    if not end or end > path.stat().st_size:
        raise _wrong(
            path, "is cut short" if end else "holds no tensor", found=f"{path.stat().st_size:,} bytes",
            expected=f"{end:,}" if end else "the tensors of a model", do="download it again",
        )  # fmt: skip
    if (parts := _field(reader, "split.count") or 1) > 1:
        raise _wrong(
            path, "is one part of a model", found=f"{parts} parts", expected="the whole model in one file",
            do="join them: llama-gguf-split --merge FIRST WHOLE.gguf; or name the original model's folder or hub id",
        )  # fmt: skip
    kind = _field(reader, "general.architecture")
    if kind not in _kinds():
        raise _wrong(
            path, "holds a kind of model that transformers does not open", found=str(kind),
            expected=", ".join(sorted(_kinds())), do="name the original model's folder or hub id",
        )  # fmt: skip
    if unsaid := [k for size in ("embedding_length", "block_count") if not _field(reader, k := f"{kind}.{size}")]:
        raise _wrong(
            path, "does not say the shape of its model", found=f"no {', no '.join(unsaid)}", expected="its sizes",
            do="name another file of the model",
        )  # fmt: skip
    gguf_header.refuse_scaling(path, reader)
    if reader.get_field("tokenizer.ggml.tokens") is None:
        raise _wrong(
            path, "has no tokenizer", found="no tokenizer.ggml.tokens", expected="the tokenizer of the model",
            do="name another file of the model",
        )  # fmt: skip
    tokens = len(_field(reader, "tokenizer.ggml.tokens"))
    rows = next((int(t.shape[-1]) for t in reader.tensors if t.name == "token_embd.weight"), tokens)
    if rows < tokens:
        raise _wrong(
            path, "has more tokens than its model has rows for", found=f"{tokens:,} tokens, {rows:,} rows",
            expected="a row of token_embd for every token", do="name another file of the model",
        )  # fmt: skip
    way = _field(reader, "tokenizer.ggml.pre")
    if _field(reader, "tokenizer.ggml.model") == "gpt2" and way is not None and way not in gguf_words.known():
        raise _wrong(
            path, "splits texts in a way that is not rebuilt here, so that its tokens would be others",
            found=f"tokenizer.ggml.pre {way}", expected=", ".join(sorted(gguf_words.known())),
            do="name the original model's folder or hub id",
        )  # fmt: skip
    template, end_token = (_field(reader, f"tokenizer.{k}") for k in ("chat_template", "ggml.eos_token_id"))
    if not template or end_token is None:
        raise ChatTemplateError(
            f"{path} cannot render a conversation.",
            found="no tokenizer.chat_template" if not template else "no tokenizer.ggml.eos_token_id",
            expected="a chat template and an end-of-text token",
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
        "head_dim": _field(reader, f"{kind}.attention.key_length"),
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens") or ()),
        "tie_word_embeddings": all(t.name != "output.weight" for t in reader.tensors),
    }  # fmt: skip


def words(source: Path | str) -> Path:
    """A folder with the tokenizer of a file and the positions of its model, made once: what planning counts tokens with
    before the model is opened.

    Raises:
        ArtifactError: as `check`; or transformers cannot read the tokenizer.
    """
    path = paths.home(source)
    place = folder(path).with_name(f"{folder(path).name}-words")
    if not (place / "config.json").is_file():
        reader = _reader(path)
        with _opening(path):
            tokenizer = _words(path, reader)
        tokenizer.save_pretrained(paths.cached(place))
        positions = _field(reader, f"{_field(reader, 'general.architecture')}.context_length")
        jsonfiles.write_json(place / "config.json", {"max_position_embeddings": positions})
    return place


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """While this lasts transformers says nothing, and whatever it raises is one block."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a file of another shape than its header raises
        raise _wrong(
            path, "could not be opened up by transformers", found=said(error),
            expected="the tensors and the tokenizer of its architecture", do="name the original model's folder or id",
        ) from None  # fmt: skip
    finally:
        logging.set_verbosity(level)


def read(source: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """(model in float32, tokenizer, facts) of a GGUF file; facts are its name, digest, and how many tensors have which
    type.

    Raises:
        ArtifactError, ChatTemplateError: as `check`; or transformers cannot open it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    path = paths.home(source)
    reader = _reader(path)
    _look(path, reader)
    with _opening(path):
        words = _words(path, reader)
        with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
            loaded = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True,
                trust_remote_code=False, ignore_mismatched_sizes=True,  # which are told below, by name
                **gguf_header.heads(reader),
            )  # fmt: skip
        model, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    _refuse_other_tensors(path, reader, model, found)
    gguf_header.tell(path, reader, model.config)
    # The numbers are floats now, which transformers would not save as long as the model says otherwise.
    del model.config.quantization_config
    vars(model).pop("hf_quantizer", None)
    types = Counter(t.tensor_type.name for t in reader.tensors)
    facts = {
        "file": path.name, "sha256": provenance.file_digest(path), "tensors": dict(types.most_common()),
        "name": _field(reader, "general.name"), "licence": _field(reader, "general.license"),
    }  # fmt: skip
    return model, words, {k: v for k, v in facts.items() if v is not None}


def _refuse_other_tensors(path: Path, reader: Any, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Refuse a file without a tensor of the model, which would stay random, or with one that nobody reads.

    Args:
        found: what transformers says of its loading.
    """
    from transformers.integrations.gguf.utils import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    kind = _field(reader, "general.architecture")
    unread = sorted(map(str, found.get("unexpected_keys") or ()))
    if not is_gguf_arch_supported(kind):  # of these transformers leaves out silently what it has no name for
        processor: Any = TENSOR_PROCESSORS.get(kind, TensorProcessor)
        names = get_gguf_hf_weights_map(model, processor(config=model.config.to_dict()))
        unread = [t.name for t in reader.tensors if t.name not in names and t.name != gguf_header.STRETCHED]
    wrong = {
        "missing": sorted(map(str, found.get("missing_keys") or ())), "unknown": unread,
        "of another size": sorted(str(k[0] if isinstance(k, tuple) else k) for k in found.get("mismatched_keys") or ()),
    }  # fmt: skip
    if any(wrong.values()):
        said = "; ".join(f"{what}: {', '.join(names[:3])}{' ...' * (len(names) > 3)} ({len(names)})"
                         for what, names in wrong.items() if names)  # fmt: skip
        raise _wrong(
            path, "is not the whole of a model that transformers opens", found=said,
            expected=f"every tensor of {type(model).__name__} as its header describes it, and no other",
            do="download it again, or name the original model's folder or hub id",
        )  # fmt: skip


def _words(path: Path, reader: Any) -> PreTrainedTokenizerBase:
    """The tokenizer in a file, which makes of a text the tokens that llama.cpp makes of it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    if _field(reader, "tokenizer.ggml.model") == "gpt2":
        gguf_words.split_as(tokenizer, _field(reader, "tokenizer.ggml.pre"))
    elif _field(reader, "tokenizer.ggml.model") == "llama":
        gguf_words.spaced(tokenizer, _field(reader, "tokenizer.ggml.add_space_prefix") is not False)
    return _own_tokens(tokenizer, reader)


def _own_tokens(tokenizer: PreTrainedTokenizerBase, reader: Any) -> PreTrainedTokenizerBase:
    """The tokenizer without tokens that transformers adds by its own defaults and that the model has no row for, and
    with those of the file's maker that stand for themselves and are spelled in no alphabet of bytes, as runs of spaces.
    """
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = (_field(reader, f"tokenizer.ggml.{k}") or () for k in ("tokens", "token_type"))
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    bytewise = _field(reader, "tokenizer.ggml.model") == "gpt2"
    own = {i: t for i, (t, of) in enumerate(zip(tokens, types, strict=False))
           if bytewise and of == _USER_DEFINED and not set(t) <= alphabet}  # fmt: skip
    if len(tokenizer) <= len(tokens) and not own:
        return tokenizer
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [t for t in backend["added_tokens"] if t["id"] < len(tokens) and t["id"] not in own]
    added = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": False} for i, t in own.items()
    ]  # fmt: skip
    backend["added_tokens"] = sorted(kept + added, key=lambda t: t["id"])
    words, merges = backend["model"]["vocab"], backend["model"].get("merges", [])
    gone = {t for t, i in words.items() if i in own}
    backend["model"] |= {
        "vocab": {own.get(i, t): i for t, i in words.items()},
        "merges": [m for m in merges if gone.isdisjoint((*m, "".join(m)))],
    }
    special = {
        k: t for k, t in tokenizer.special_tokens_map.items()
        if tokenizer.get_vocab().get(str(t), len(tokens)) < len(tokens)
    }  # fmt: skip
    made: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)), chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False, **special,
    )  # fmt: skip
    return made


def facts(source: str, revision: str | None) -> dict[str, Any]:
    """What the record of an opened file says; nothing of a source that is none."""
    path = package.place(source, revision)
    place = folder(path) / FACTS if path and named(path) and paths.there(path) else None
    found: dict[str, Any] = jsonfiles.read_json(place) if place and place.exists() else {}
    return found
