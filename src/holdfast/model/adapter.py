"""A low-rank adapter in PEFT's folder: what it adds to which weight, from its two files and without loading a model.

W' = W + s B A, with A (r, n), B (m, r) and s = α / r, or α / √r where it is rank-stabilised (Hu et al. 2021,
arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArtifactError
from holdfast.model import weights
from holdfast.record import container, jsonfiles

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BESIDE = "adapter"  # where a folder holds the low-rank update of its own weights too
_PREFIX = "base_model.model."
_NAME_IT = "name the merged folder"
# Settings under which the update is another formula than the one above.
_OTHER = {"use_dora": False, "fan_in_fan_out": False, "lora_bias": False, "bias": "none", "layer_replication": None,
          "megatron_config": None, "trainable_token_indices": None, "alora_invocation_tokens": None,
          "use_qalora": False, "target_parameters": None, "use_bdlora": None, "arrow_config": None,
          "kasa_config": None, "monteclora_config": None}  # fmt: skip
# Beginnings that take B A out of the weights first: such an adapter is of what was left of them, not of the model.
_TAKEN_OUT = ("pissa", "olora", "corda", "loftq", "lora_ga")
_HALF = re.compile(r"(.*)\.lora_[AB]\.weight")


def named(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


@dataclass(frozen=True)
class Adapter:
    """Its file, and by weight of the model: the keys of A and B with their scale, or of a tensor that replaces it."""

    folder: Path
    config: Mapping[str, Any]
    pairs: Mapping[str, tuple[str, str, float]]
    replaced: Mapping[str, str]

    @property
    def file(self) -> Path:
        """Where its tensors are."""
        return self.folder / WEIGHTS

    def update(self, tensors: Any, name: str) -> torch.Tensor:
        """What it adds to a weight, s B A (m, n) in float32; `tensors` is the opened file."""
        a, b, scale = self.pairs[name]
        product: torch.Tensor = (tensors.get_tensor(b).float() @ tensors.get_tensor(a).float()).mul_(scale)
        return product


def _wrong(folder: Path, what: str, *, found: str, expected: str, do: str) -> ArtifactError:
    return ArtifactError(f"The adapter {folder} {what}.", found=found, expected=expected, do=do)


def read(folder: Path, model: Mapping[str, list[int]]) -> Adapter:
    """The adapter of a folder, looked over: it must fit the weights of the model it stands on, and be of the formula
    above.

    Args:
        model: name -> shape, of every tensor of that model.

    Raises:
        ArtifactError: not there, damaged, another kind of adapter, or of another model.
    """
    config = weights.read_json(folder, CONFIG)
    if config.get("peft_type") != "LORA":
        raise _wrong(
            folder, "is of a kind that is not read here", found=f"peft_type: {config.get('peft_type')}",
            expected="peft_type: LORA", do=f"merge it into its model first, and {_NAME_IT}",
        )  # fmt: skip
    odd = {k: config[k] for k, plain in _OTHER.items() if config.get(k, plain) not in (plain, None)}
    if odd:
        raise _wrong(
            folder, "updates by another formula than W + s B A", found=", ".join(f"{k}: {v}" for k, v in odd.items()),
            expected=", ".join(f"{k}: {_OTHER[k]}" for k in odd),
            do=f"merge it into its model first (merge_and_unload), and {_NAME_IT}",
        )  # fmt: skip
    beginning = str(config.get("init_lora_weights")).lower()
    if beginning.startswith(_TAKEN_OUT):
        raise _wrong(
            folder, "stands on weights that its beginning was taken out of, not on those of the model",
            found=f"init_lora_weights: {beginning}", expected="an adapter of the model as it is",
            do="save it with path_initial_model_for_weight_conversion, or merge it into the model it was trained in "
            f"(merge_and_unload), and {_NAME_IT}",
        )  # fmt: skip
    if not (folder / WEIGHTS).is_file():
        raise _wrong(
            folder, f"has no {WEIGHTS}", found=weights.listed(folder), expected="safetensors; other kinds are not read",
            do="save it again with save_pretrained",
        )  # fmt: skip
    found = weights.entries(folder, WEIGHTS)
    weights.check_sample(folder, found)
    shapes = {key: tensor.shape for key, tensor in found.items()}
    pairs: dict[str, tuple[str, str, float]] = {}
    replaced: dict[str, str] = {}
    for key, shape in shapes.items():
        if half := _HALF.fullmatch(key):
            module, (a, b) = half[1].removeprefix(_PREFIX), (f"{half[1]}.lora_{x}.weight" for x in "AB")
            (r, n), (m, inner) = (shapes[k] if len(shapes.get(k, ())) == 2 else (0, 0) for k in (a, b))
            name = f"{module}.weight"
            if not r or r != inner or model.get(name) != [m, n]:
                said = (f"{x} {shapes.get(k, 'absent')}" for x, k in (("A", a), ("B", b)))
                _refuse(folder, name, ", ".join(said), model)
            pairs[name] = (a, b, _scale(config, module, r, folder))
        else:
            name = key.removeprefix(_PREFIX)
            if model.get(name) != shape:
                _refuse(folder, name, f"{shape}", model)
            if name in weights.EMBEDDINGS and not any(k in model for k in weights.HEAD):
                raise _wrong(
                    folder, "has embeddings of its own, and the model's output layer is its embeddings", found=name,
                    expected="an adapter that leaves them alone: with PEFT the output layer stays as it was",
                    do="train one without embeddings, or merge it, and name an aligned and a merged model that are "
                    "both saved with tie_word_embeddings: false",
                )  # fmt: skip
            replaced[name] = key
    if not pairs:
        raise _wrong(folder, "changes nothing", found=", ".join(list(shapes)[:4]) or "no tensors",
                     expected="tensors lora_A and lora_B", do="save it again with save_pretrained")  # fmt: skip
    return Adapter(folder, config, pairs, replaced)


def _refuse(folder: Path, name: str, found: str, model: Mapping[str, list[int]]) -> None:
    raise _wrong(
        folder, "does not fit the model it is to stand on", found=f"{name}: {found}",
        expected=f"{name} {model[name]}" if name in model else "a weight of that name in the model",
        do="name the adapter that was trained on this model, or the model it was trained on",
    )  # fmt: skip


def _scale(config: Mapping[str, Any], module: str, rank: int, folder: Path) -> float:
    """The scale s of one module; a pattern of the configuration names modules by the end of their names."""
    patterns = config.get("alpha_pattern") or {}
    try:
        alphas = [v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", module)]
    except (AttributeError, re.error) as error:
        raise _wrong(folder, "has an alpha_pattern that cannot be read", found=f"{patterns!r:.80} ({error})",
                     expected="pattern: number", do=f"correct {CONFIG}") from None  # fmt: skip
    alpha = alphas[0] if alphas else config.get("lora_alpha")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise _wrong(folder, "has no scale", found=f"lora_alpha: {alpha!r}", expected="a number",
                     do=f"correct {CONFIG}")  # fmt: skip
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def write(
    folder: Path, tensors: Mapping[str, torch.Tensor], *, rank: int, alpha: float, modules: Sequence[str], under: str,
    header: dict[str, Any],
) -> None:  # fmt: skip
    """Write an adapter as PEFT saves one; files appear whole, weights last.

    Args:
        tensors: `<module>.lora_A` (r, n) and `<module>.lora_B` (m, r) by the module's name in the model.
        modules: kinds of modules that have one; under: what it stands on, as PEFT is told.
        header: of the tensor file.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(modules), bias="none",  # type: ignore[arg-type]
        task_type="CAUSAL_LM", base_model_name_or_path=under, inference_mode=True,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        config.save_pretrained(temporary)
        said = json.loads(Path(temporary, CONFIG).read_text(encoding="utf-8"))
        said["target_modules"] = sorted(modules)  # PEFT has a set, whose order is another in every process
        jsonfiles.write_json(Path(temporary, CONFIG), said)
        named = {f"{_PREFIX}{k}.weight": v.detach().float().cpu() for k, v in sorted(tensors.items())}
        layout = container.layout({k: ("F32", v.shape, 4 * v.numel()) for k, v in named.items()})
        out = folder / WEIGHTS
        # Not by safetensors, which writes several entries of metadata in another order in every process.
        stamp = container.metadata(header | container.place(out))
        container.write_stream(Path(temporary, WEIGHTS), layout, named.items(), stamp)
        for name in (CONFIG, WEIGHTS):
            Path(temporary, name).replace(folder / name)
