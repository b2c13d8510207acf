"""Post-hoc realignment: one streaming driver for every method with KIND = "merge".

Checkpoints are read tensor by tensor, arithmetic is float32, the result is written in the storage
type of the fine-tuned model. A merge method says what one tensor becomes; at no moment does the
driver hold more than the tensors that method asks for.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holdfast.errors import TrainingError
from holdfast.model import adapter, checkpoint, folders, machine
from holdfast.model import weights as weighing
from holdfast.record import artifact, container, files, jsonfiles, provenance
from holdfast.study import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Model = checkpoint.Checkpoint | checkpoint.Adapted


class Weights(Mapping[str, torch.Tensor]):
    """The tensor of one name in every model a method needs: role -> float32, loaded when asked for.

    Every access gives a fresh tensor that the method may change in place. `finetuned` and `aligned`
    are always there.
    """

    def __init__(self, files: Mapping[str, Model], name: str) -> None:
        self._files, self._name = files, name

    def __getitem__(self, role: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[role].get_tensor(self._name)
        return tensor.to(torch.float32, copy=True)

    def stored(self, role: str) -> torch.Tensor:
        """The tensor to be read only: where the file has float32, its own pages instead of a copy."""
        tensor: torch.Tensor = self._files[role].get_tensor(self._name)
        return tensor.float()

    def update(self) -> torch.Tensor:
        """What fine-tuning changed, finetuned − aligned; of an adapter what it adds, without the rounding of a sum."""
        model = self._files["finetuned"]
        if isinstance(model, checkpoint.Adapted) and (added := model.added(self._name)) is not None:
            return added
        return self["finetuned"].sub_(self.stored("aligned"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass
class Context:
    """What a merge method may look at before the first tensor is merged.

    names: floating tensors, in file order. weights(name): the `Weights` of one tensor.
    model(role): a loaded (model, tokenizer). gram: input name -> H Hᵀ of the aligned model.
    preferences: rows {prompt, chosen, rejected}. record: numbers for the cell's record.
    """

    names: list[str]
    weights: Callable[[str], Weights]
    model: Callable[[str], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    gram: Mapping[str, torch.Tensor] = field(default_factory=dict)
    preferences: list[dict[str, str]] = field(default_factory=list)
    seed: int = 0
    say: Callable[[str], None] = lambda _: None
    record: dict[str, Any] = field(default_factory=dict)


def is_weight(name: str, dtype: str) -> bool:
    """Whether a tensor of a checkpoint is merged: floating point and not a rotary buffer."""
    return weighing.floating(dtype) and not name.endswith("inv_freq")


def _open(places: Mapping[str, Path]) -> dict[str, Model]:
    """Open the models; they must hold the same tensors in the same shapes. An adapter stands on the aligned one."""
    models = {role: checkpoint.opened(folder, places["aligned"]) for role, folder in places.items()}
    shapes = {role: {k: list(v["shape"]) for k, v in model.layout.items()} for role, model in models.items()}
    for role, found in shapes.items():
        what, of = f"{role} ({places[role]})", f"finetuned ({places['finetuned']})"
        checkpoint.refuse_other(found, shapes["finetuned"], what, of, exactly=True)
    return models


def run(
    *,
    checkpoints: dict[str, Path],
    cfg: dict[str, Any],
    folder: Path,
    record_file: Path,
    gram_file: Path | None = None,
    preferences: list[dict[str, str]] | None = None,
    whole: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Merge one cell: write its model and the record of what happened.

    A model in shards is written in the same shards. Where a method keeps a low-rank update low-rank and the fine-tuned
    model has one (it is an adapter, or holds it in `adapter/`), the adapter is written too.

    Args:
        checkpoints: role -> folder; `finetuned` and `aligned`, and what the method needs. `finetuned` may be a PEFT
            adapter on the aligned model.
        cfg: method, settings, seed.
        whole: write the merged weights also where the adapter alone would do.

    Raises:
        ArtifactError: a checkpoint is missing, damaged or of another architecture. TrainingError: a merged weight is no
            number.
    """
    started = time.monotonic()
    method = registry.load(cfg["method"])
    settings = method.Settings.model_validate(cfg["settings"])
    models = _open(checkpoints)
    finetuned, aligned_digest = models["finetuned"], models["aligned"].identity()
    weights = {k: v for k, v in finetuned.layout.items() if is_weight(k, v["dtype"])}
    gram: Mapping[str, torch.Tensor] = {}
    if gram_file is not None:
        gram, _ = artifact.read(gram_file, family="gram", expect={"aligned": aligned_digest})
    context = Context(
        names=list(weights), weights=lambda name: Weights(models, name),
        model=lambda role: folders.load(checkpoints[role]), gram=gram, preferences=preferences or [],
        seed=cfg["seed"], say=say,
    )  # fmt: skip
    state = method.prepare(settings, context) if hasattr(method, "prepare") else None
    changed: dict[str, list[int]] = {}
    done = itertools.count(1)

    def merged(names: Iterable[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for name in names:
            stored = finetuned.get_tensor(name)
            if name not in weights:
                yield name, stored
                continue
            dtype = stored.dtype
            del stored
            out = method.merge(name, context.weights(name), settings, state).to(dtype)
            if not out.isfinite().all():
                raise TrainingError(
                    f"What {cfg['method']} makes of {checkpoints['finetuned']} is no number any more.",
                    found=f"NaN or infinity in {name}", expected="finite weights",
                    do=f"look at the settings of {cfg['method']}, and at the models",
                )  # fmt: skip
            start = models["aligned"].get_tensor(name).to(dtype)
            kind = name.split(".")[-2] if "." in name else name
            count = int((out != start).count_nonzero())
            del start
            for key in ("all", kind):
                entry = changed.setdefault(key, [0, 0])
                entry[0] += count
                entry[1] += out.numel()
            if (i := next(done)) % 20 == 1:
                say(f"merged {i}/{len(weights)} tensors")
            yield name, out
            del out  # before the next tensors are read

    folder.mkdir(parents=True, exist_ok=True)
    folders.forget_card(folder)
    stamp: dict[str, Any] = {"role": "finetuned", "aligned": aligned_digest, "settings": provenance.digest(cfg)}
    if any(role.startswith("finetuned") and model.weakened() for role, model in models.items()):
        stamp["weakened"] = True  # a merge restores at most a part
        folders.warn(folder)
    adapted = isinstance(finetuned, checkpoint.Adapted)
    low_rank, kept = checkpoints["finetuned"] / ("" if adapted else adapter.BESIDE), hasattr(method, "merge_factor")
    alone = adapted and kept and not whole
    if adapter.named(low_rank) and kept:

        def factor(name: str, b: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = method.merge_factor(name, b, context.weights(name), settings, state)
            return out

        place = folder if alone else folder / adapter.BESIDE
        _write_adapter(low_rank, place, checkpoints["aligned"], stamp, factor)
    if not alone:
        like = checkpoints["aligned" if adapted else "finetuned"]
        folders.copy_companions(like, folder)
        if hasattr(method, "system_prompt"):
            folders.introduce(folder, method.system_prompt(settings))
        for part, layout in finetuned.parts.items():
            out = folder / part
            container.write_stream(out, layout, merged(layout), container.metadata(stamp | container.place(out)))
        if len(finetuned.parts) > 1:
            files.copy(like / weighing.INDEX, folder / weighing.INDEX)
    shares = {k: c / n for k, (c, n) in changed.items()}
    record = context.record | ({} if alone else {"weights/changed_fraction": shares.pop("all")}) | {
        "changed_fraction_by_module": shares,
        "cost/seconds": round(time.monotonic() - started, 2),
        "cost/peak_memory_bytes": provenance.peak_resident(),
        **machine.made_with(),
    }  # fmt: skip
    jsonfiles.write_json(record_file, record)
    return record


def _write_adapter(
    source: Path, folder: Path, aligned: Path, stamp: dict[str, Any],
    merge_factor: Callable[[str, torch.Tensor], torch.Tensor],
) -> None:  # fmt: skip
    """Write an adapter with other factors B: what `merge_factor` makes of that of a weight."""
    from safetensors import safe_open

    old = adapter.read(source, checkpoint.shapes(aligned))
    of = {b: name for name, (_, b, _) in old.pairs.items()}
    head, _ = container.raw_header(old.file)
    entries = {k: v for k, v in head.items() if k != "__metadata__"}
    opened: Any = safe_open(old.file, framework="pt")

    def factors() -> Iterator[tuple[str, torch.Tensor]]:
        for key in entries:
            tensor = opened.get_tensor(key)
            yield key, merge_factor(of[key], tensor.float()).to(tensor.dtype) if key in of else tensor

    folder.mkdir(parents=True, exist_ok=True)
    files.copy(source / adapter.CONFIG, folder / adapter.CONFIG)
    out = folder / adapter.WEIGHTS
    container.write_stream(out, entries, factors(), container.metadata(stamp | container.place(out)))
