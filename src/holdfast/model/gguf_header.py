"""The header of a GGUF file: its fields, and what they say of a model that transformers leaves at its own defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError

STRETCHED = "rope_freqs.weight"
_SCALINGS = {None, "none", "linear", "yarn"}
_TAKEN_FOR_GRANTED = {"qwen3", "nemotron"}
# Of stretched positions: what is read, and what changes nothing where it is 1.
_READ = {"type", "factor", "original_context_length", "finetuned", "yarn_beta_fast", "yarn_beta_slow"}
_NEUTRAL = {"attn_factor", "yarn_attn_factor", "yarn_ext_factor"}
# How Llama 3.1 and its like stretch positions, beside the factor: what a file has is the result, one number for each
# frequency, and is held against what these give.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def wrong(path: Path, what: str, *, found: str, expected: str, do: str) -> ArtifactError:
    """The error of a file that `what` is wrong with."""
    return ArtifactError(f"{path} {what}.", found=found, expected=expected, do=do)


def field(reader: Any, name: str) -> Any:
    """What a header says under a name; None where it does not.

    Raises:
        ArtifactError: text that is none.
    """
    found = reader.get_field(name)
    try:
        return None if found is None else found.contents()
    except UnicodeDecodeError as error:
        raise wrong(
            Path(reader.data.filename), "has a header that cannot be read", found=f"{name}: {error.reason}",
            expected="text in UTF-8", do="download it again, or name another file of the model",
        ) from None  # fmt: skip


def heads(reader: Any) -> dict[str, int]:
    """The width of a head under the name of a configuration, of the kinds of model whose own transformers takes for
    granted."""
    kind = field(reader, "general.architecture")
    width = field(reader, f"{kind}.attention.key_length")
    return {"head_dim": width} if kind in _TAKEN_FOR_GRANTED and width else {}


def _unread(path: Path, found: str, expected: str) -> ArtifactError:
    return wrong(
        path, "stretches positions in a way that is not read from such a file", found=found, expected=expected,
        do="name the original model's folder or hub id",
    )  # fmt: skip


def refuse_scaling(path: Path, reader: Any) -> None:
    """Refuse a file that stretches positions in a way of which a configuration would be told a part only.

    Raises:
        ArtifactError: the first such key, and what it says.
    """
    below = f"{field(reader, 'general.architecture')}.rope.scaling."
    if (how := field(reader, f"{below}type")) not in _SCALINGS:
        raise _unread(path, f"rope.scaling.type {how}", "none, linear or yarn")
    for name in sorted(n for n in reader.fields if n.startswith(below)):
        key, value = name.removeprefix(below), field(reader, name)
        if key not in _READ and not (key in _NEUTRAL and value == 1):
            raise _unread(path, f"rope.scaling.{key} {value:g}" if isinstance(value, float) else f"{name} {value}",
                          f"no other keys than {', '.join(sorted(_READ))}")  # fmt: skip


def tell(path: Path, reader: Any, config: Any) -> None:
    """Give a configuration what the file says of positions and of soft caps, and transformers leaves at its defaults.

    Raises:
        ArtifactError: the numbers a file has for its frequencies are none that a configuration could name.
    """
    kind = field(reader, "general.architecture")

    def of(name: str) -> Any:
        return field(reader, f"{kind}.{name}")

    for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
        if (value := of(cap)) is not None and hasattr(config, cap):
            setattr(config, cap, value or None)
    every = getattr(config, "rope_parameters", None)
    if not isinstance(every, dict):
        return
    rope, near = every.get("full_attention", every), every.get("sliding_attention")
    if (theta := of("rope.freq_base")) is not None:
        rope["rope_theta"] = theta
    if near is not None and (theta := of("rope.freq_base_swa")) is not None:
        near["rope_theta"] = theta
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = of("rope.dimension_count")
    if turned is not None and turned != int(width * rope.get("partial_rotary_factor", 1.0)):
        rope["partial_rotary_factor"] = turned / width
    if (window := of("attention.sliding_window")) is not None and hasattr(config, "sliding_window"):
        config.sliding_window = window
    # `scale_linear` is what files of 2023 call the factor.
    how, factor = of("rope.scaling.type"), of("rope.scaling.factor") or of("rope.scale_linear")
    if factor not in (None, 0, 1) and how != "none":
        rope |= {"rope_type": how or "linear", "factor": factor}
        if original := of("rope.scaling.original_context_length"):
            rope["original_max_position_embeddings"] = original
        betas = {key: of(f"rope.scaling.yarn_{key}") for key in ("beta_fast", "beta_slow")}
        rope |= {key: value for key, value in betas.items() if value is not None and how == "yarn"}
    stretched = next((t for t in reader.tensors if t.name == STRETCHED), None)
    if stretched is not None:
        rope |= _llama3(path, [float(x) for x in stretched.data.ravel()], rope["rope_theta"])


def _llama3(path: Path, divisors: Sequence[float], theta: float) -> dict[str, Any]:
    """The parameters of a configuration that divide the frequencies of its positions by these numbers."""
    factor = max(divisors)
    if factor == min(divisors) == 1:
        return {}
    low, high, original = _LLAMA3.values()
    for i, divisor in enumerate(divisors):
        turns = original * theta ** (-i / len(divisors)) / (2 * math.pi)  # within the positions it was trained on
        part = min(max((turns - low) / (high - low), 0.0), 1.0)
        if not math.isclose(divisor, 1 / ((1 - part) / factor + part), rel_tol=1e-4):
            raise _unread(path, f"{STRETCHED}[{i}] = {divisor:g}", "what Llama 3.1 and its like have")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
