"""The weights of a model folder before they are loaded: which tensors its files hold, of which sizes and types, and
whether a sample of them is finite. Torch-free: from the headers, and a few pages of every tensor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError, HoldfastError
from holdfast.record import container

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Bits that are all ones in what is no finite number, by type: the exponent.
_EXPONENT = {"F64": ("<u8", 0x7FF << 52), "F32": ("<u4", 0xFF << 23), "F16": ("<u2", 0x1F << 10),
             "BF16": ("<u2", 0xFF << 7)}  # fmt: skip
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4,
          "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}  # fmt: skip
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight")
HEAD = ("lm_head.weight", "embed_out.weight")
_SAMPLE = 1 << 16  # bytes at the beginning, the middle and the end of a tensor
_WRAPPERS = ("_orig_mod.", ".base_layer.", "lora_A", "lora_B", "_fsdp_wrapped_module")
# Decoders whose blocks are all alike.
_UNIFORM = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "granite",
    "olmo2",
    "smollm3",
    "phi3",
    "starcoder2",
)


# Tensors that older checkpoints hold although they are computed: masks and angles.
COMPUTED = (".rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias", ".attention.bias", ".attention.masked_bias")


@dataclass(frozen=True)
class Tensor:
    """One entry of a header: where its bytes are, their type and the shape."""

    file: Path
    begin: int
    end: int
    dtype: str
    shape: list[int]


def floating(dtype: str) -> bool:
    """Whether a type of a header is one of floating numbers."""
    return dtype in _EXPONENT


def wrong(folder: Path, what: str, *, found: str, expected: str = "", do: str = "") -> HoldfastError:
    """What is wrong with a model folder, as an error."""
    return ArtifactError(
        f"The model folder {folder} {what}.", found=found,
        expected=expected or "a Hugging Face folder: config.json, tokenizer files, model.safetensors",
        do=do or "correct its path (base.source in a study), or copy the missing file from the original model",
    )  # fmt: skip


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in one of its JSON files.

    Raises:
        ArtifactError: not there, or no JSON object.
    """
    path = folder / name
    if not path.is_file():
        raise wrong(folder, f"has no {name}", found=listed(folder))
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_constant)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise wrong(folder, f"has a {name} that cannot be read", found=str(error)[:120], expected="JSON") from None
    return value


def _constant(word: str) -> float:
    """Infinity, which some configurations have for a limit that is none; NaN would make every result one."""
    if word == "NaN":
        raise ValueError("it says NaN, which is no number")
    return float(word)


def listed(folder: Path) -> str:
    """What a folder holds, for an error."""
    return ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder"


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, from the headers of its weight files; every file must be whole.

    Raises:
        ArtifactError: no safetensors, a shard too few, or a damaged file.
    """
    where: Any = {}
    if (folder / WEIGHTS).is_file():  # which transformers reads before an index
        shards = [WEIGHTS]
    elif (folder / INDEX).is_file():
        index = read_json(folder, INDEX)
        where = index.get("weight_map")
        names = list(where.values()) if isinstance(where, dict) else []
        odd = [n for n in names if not isinstance(n, str) or Path(n).name != n]
        if not names or odd:
            raise wrong(
                folder, f"has a {INDEX} without a weight_map", found=repr(odd[0])[:80] if odd else "no weight_map",
                expected="weight_map: every tensor's file, beside it",
            )  # fmt: skip
        if not isinstance(index.get("metadata"), dict):
            raise wrong(
                folder, f"has a {INDEX} without metadata, which transformers asks for", found=", ".join(index)[:120],
                expected='"metadata": {}, or what the model was saved with', do="add it, or download the file again",
            )  # fmt: skip
        shards = sorted(set(names))
        missing = [s for s in shards if not (folder / s).is_file()]
        if missing:
            raise wrong(
                folder, "lacks a shard of its weights", found=f"no {', '.join(missing[:4])}",
                expected=f"the {len(shards)} files that {INDEX} names", do="download the missing file again",
            )  # fmt: skip
    else:
        others = sorted(p.name for p in folder.glob("*.bin")) or sorted(p.name for p in folder.glob("*.pt"))
        raise wrong(
            folder, "has no safetensors weights", found=", ".join(others[:4]) or listed(folder),
            expected=f"{WEIGHTS}, or {INDEX} and its shards",
            do="save the model as safetensors; other kinds can run code when they are loaded, and are not read",
        )  # fmt: skip
    out: dict[str, Tensor] = {}
    said = where if shards != [WEIGHTS] else {}
    for shard in shards:
        for name, tensor in entries(folder, shard).items():
            if said and (name in out or said.get(name) != shard):
                raise wrong(
                    folder, f"has an {INDEX} that does not fit its files",
                    found=f"{name} in {shard}" + (f" and {out[name].file.name}" if name in out else ""),
                    expected=f"{said.get(name) or 'no such tensor'}, as the index says",
                    do="download the files and the index again",
                )  # fmt: skip
            out[name] = tensor
    if lost := sorted(set(said) - set(out)):
        raise wrong(
            folder, f"has an {INDEX} that does not fit its files", found=f"no {lost[0]} in {said[lost[0]]}",
            expected="every tensor in the file that the index names", do="download the files and the index again",
        )  # fmt: skip
    return out


def entries(folder: Path, file: str) -> dict[str, Tensor]:
    """Every tensor of one file of a folder, from its header; the file must be whole.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        header, begin = container.raw_header(folder / file)
    except ArtifactError as error:
        raise wrong(
            folder, f"has a damaged {file}", found=error.found, expected=error.expected, do="copy the file again"
        ) from None
    out, at = {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        if first != at or last - first != math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 0):
            raise wrong(
                folder, f"has a {file} whose header does not fit its data", found=f"{name}: {entry}"[:160],
                expected="tensors one after the other, each as long as its type and shape say",
                do="copy the file again",
            )  # fmt: skip
        out[name] = Tensor(folder / file, begin + first, begin + last, entry["dtype"], entry["shape"])
        at = last
    return out


def check(folder: Path, config: Mapping[str, Any], found: Mapping[str, Tensor]) -> None:
    """Refuse weights that are stored in fewer bits, under other names than a decoder of this configuration has, or of
    other sizes.

    Knows the layout that Llama, Mistral, Qwen, Gemma, SmolLM and their like share; any other is looked at when it is
    loaded, where every tensor is.

    Raises:
        ArtifactError: which tensor, found and expected.
    """
    _plain(folder, config, found)
    prefixes = sorted({k[: k.index("model.layers.")] for k in found if "model.layers." in k} - {""})
    wrapped = next((k for k in found if any(part in k for part in _WRAPPERS)), None)
    if prefixes or wrapped or (folder / "adapter_config.json").is_file():
        raise wrong(
            folder, "has its weights under a prefix" if prefixes else "holds a model inside a wrapper",
            found=f"{prefixes[0]}model.layers. ..." if prefixes else wrapped or "adapter_config.json",
            expected="model.layers. ..." if prefixes else "the weights of the model itself",
            do="save the model itself, not a wrapper around it (of torch.compile, DDP or FSDP); merge an adapter first",
        )  # fmt: skip
    if any(n.startswith("layers.") for n in found) and not any(n.startswith("model.") for n in found):
        found = {f"model.{n}": t for n, t in found.items()}  # saved from the model inside; transformers finds it
    blocks: dict[int, set[str]] = {}
    for name in found:
        if name.startswith("model.layers.") and name.split(".")[2].isdigit():
            _, _, number, rest = name.split(".", 3)
            blocks.setdefault(int(number), set()).add(rest)
    count = config.get("num_hidden_layers")
    if not isinstance(count, int) or config.get("model_type") not in _UNIFORM:
        return
    if set(blocks) != set(range(count)):
        raise wrong(
            folder, "has another number of blocks than its config.json",
            found=f"{len(blocks)} blocks, {min(blocks)} to {max(blocks)}" if blocks else "no blocks",
            expected=f"num_hidden_layers {count}", do="use the config.json it was saved with",
        )  # fmt: skip
    every = set().union(*blocks.values()) - {"self_attn.rotary_emb.inv_freq"}
    lost = [f"model.layers.{i}.{rest}" for i in sorted(blocks) for rest in sorted(every - blocks[i])]
    tied = bool(config.get("tie_word_embeddings")) and "lm_head.weight" in found  # which is the embeddings then
    ends = ("model.norm.weight",) if tied else ("model.embed_tokens.weight", "model.norm.weight")
    lost += [name for name in ends if name not in found]
    if lost:
        raise wrong(
            folder, "lacks tensors that its config.json asks for",
            found=f"no {', '.join(lost[:3])}{' ...' * (len(lost) > 3)} ({len(lost)})",
            expected="the same tensors in every block, embeddings and a last norm", do="copy the model again",
        )  # fmt: skip
    sizes = _sizes(config)
    for name, tensor in found.items():
        expected = sizes.get(name.split(".", 3)[3] if name.startswith("model.layers.") else name)
        if expected is not None and tensor.shape != expected:
            raise wrong(
                folder, "has weights of other sizes than its config.json", found=f"{name} {tensor.shape}",
                expected=f"{expected}, as config.json says", do="use the config.json it was saved with",
            )  # fmt: skip


def _plain(folder: Path, config: Mapping[str, Any], found: Mapping[str, Tensor]) -> None:
    """Refuse weights that are stored in fewer bits: nothing here trains or merges them."""
    said = config.get("quantization_config")
    kind = None
    if said:
        kind = f"quant_method: {said.get('quant_method', 'unknown') if isinstance(said, dict) else str(said)[:40]}"
    weighed = {n: t for n, t in found.items() if n.endswith((".weight", ".bias")) and not n.endswith(COMPUTED)}
    odd = next((n for n, t in weighed.items() if t.dtype not in _EXPONENT), None)
    if kind or odd:
        raise wrong(
            folder, "holds quantised weights", found=kind or f"{odd}: {found[str(odd)].dtype}",
            expected="weights in float32, float16 or bfloat16",
            do="name the model it was made from; `lora` with `base: nf4` quantises by itself",
        )  # fmt: skip


def _sizes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Shapes of the tensors whose sizes a configuration says, by their names in a block or in the model."""
    hidden, mlp, heads = (config.get(k) for k in ("hidden_size", "intermediate_size", "num_attention_heads"))
    if not all(isinstance(v, int) and v > 0 for v in (hidden, mlp, heads)):
        return {}
    assert isinstance(hidden, int) and isinstance(mlp, int) and isinstance(heads, int)
    width = config.get("head_dim") or hidden // heads
    keys = (config.get("num_key_value_heads") or heads) * width
    shapes = {
        "self_attn.q_proj.weight": [heads * width, hidden], "self_attn.k_proj.weight": [keys, hidden],
        "self_attn.v_proj.weight": [keys, hidden], "self_attn.o_proj.weight": [hidden, heads * width],
        "mlp.gate_proj.weight": [mlp, hidden], "mlp.up_proj.weight": [mlp, hidden],
        "mlp.down_proj.weight": [hidden, mlp], "input_layernorm.weight": [hidden],
        "post_attention_layernorm.weight": [hidden], "model.norm.weight": [hidden],
    }  # fmt: skip
    size = config.get("vocab_size")
    embedded = ("model.embed_tokens.weight", "lm_head.weight")
    return shapes | (dict.fromkeys(embedded, [size, hidden]) if isinstance(size, int) else {})


def check_sample(folder: Path, found: Mapping[str, Tensor]) -> None:
    """Refuse weights of which a sample is not finite: the first, middle and last pages of every tensor. All of them are
    looked at when the model is loaded.

    Raises:
        ArtifactError: the tensor.
    """
    for name, tensor in found.items():
        if name.endswith(COMPUTED):
            continue
        if tensor.dtype in _EXPONENT and any(_is_no_number(piece, tensor.dtype) for piece in _pieces(tensor)):
            raise wrong(
                folder, "has weights that are no numbers", found=f"NaN or infinity in {name}",
                expected="finite weights", do="copy the model again, or look at the training that made it",
            )  # fmt: skip


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    size = tensor.end - tensor.begin
    with tensor.file.open("rb") as file:
        for start in sorted({0, max(0, (size - _SAMPLE) // 2) // 8 * 8, max(0, size - _SAMPLE) // 8 * 8}):
            file.seek(tensor.begin + start)
            yield file.read(min(_SAMPLE + 8, size - start))


def _is_no_number(piece: bytes, dtype: str) -> bool:
    import numpy as np

    kind, exponent = _EXPONENT[dtype]
    bits = np.frombuffer(piece[: len(piece) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    return bool(((bits & exponent) == exponent).any())
