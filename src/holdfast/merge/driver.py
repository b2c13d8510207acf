"""Post-hoc realignment: one streaming driver for every method with KIND = "merge".

Checkpoints are read tensor by tensor, arithmetic is float32, the result is written in the storage
type of the fine-tuned model. A merge method says what one tensor becomes; at no moment does the
driver hold more than the tensors that method asks for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from holdfast.errors import ArtifactError
from holdfast.model import folders, machine
from holdfast.record import artifact, container, jsonfiles, provenance
from holdfast.study import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Weights(Mapping[str, torch.Tensor]):
    """The tensor of one name in every model a method needs: role -> float32, loaded when asked for.

    Every access gives a fresh tensor that the method may change in place. `finetuned` and `aligned`
    are always there.
    """

    def __init__(self, files: Mapping[str, Any], name: str) -> None:
        self._files, self._name = files, name

    def __getitem__(self, role: str) -> torch.Tensor:
        tensor: torch.Tensor = self._files[role].get_tensor(self._name)
        return tensor.to(torch.float32, copy=True)

    def stored(self, role: str) -> torch.Tensor:
        """The tensor to be read only: where the file has float32, its own pages instead of a copy."""
        tensor: torch.Tensor = self._files[role].get_tensor(self._name)
        return tensor.float()

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
    return dtype in ("F64", "F32", "F16", "BF16") and not name.endswith("inv_freq")


def _open(files: Mapping[str, Path]) -> dict[str, Any]:
    """Open the checkpoints; they must hold the same tensors in the same shapes."""
    from safetensors import safe_open

    for path in files.values():
        container.check_seal(path)
    heads = {role: container.raw_header(path)[0] for role, path in files.items()}
    want = {k: v["shape"] for k, v in heads["finetuned"].items() if k != "__metadata__"}
    for role, head in heads.items():
        have = {k: v["shape"] for k, v in head.items() if k != "__metadata__"}
        different = sorted(k for k in want.keys() | have.keys() if want.get(k) != have.get(k))
        if different:
            raise ArtifactError(
                f"{files[role]} cannot be merged with {files['finetuned']}: {different[0]} differs.",
                found=f"{role}: {have.get(different[0], 'absent')}   ({len(different)} tensors differ)",
                expected=f"finetuned: {want.get(different[0], 'absent')}",
                do="merge models of one base only: same architecture, same vocabulary",
            )
    return {role: safe_open(path, framework="pt") for role, path in files.items()}


def run(
    *,
    checkpoints: dict[str, Path],
    cfg: dict[str, Any],
    folder: Path,
    record_file: Path,
    gram_file: Path | None = None,
    preferences: list[dict[str, str]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Merge one cell: write its model and the record of what happened.

    Args:
        checkpoints: role -> model.safetensors; `finetuned` and `aligned`, and what the method needs.
        cfg: method, settings, seed.

    Raises:
        ArtifactError: a checkpoint is missing, damaged or of another architecture.
    """
    started = time.monotonic()
    method = registry.load(cfg["method"])
    settings = method.Settings.model_validate(cfg["settings"])
    aligned_digest = container.identity(checkpoints["aligned"])
    files = _open(checkpoints)
    head, _ = container.raw_header(checkpoints["finetuned"])
    layout = {k: v for k, v in head.items() if k != "__metadata__"}
    weights = {k: v for k, v in layout.items() if is_weight(k, v["dtype"])}
    gram: Mapping[str, torch.Tensor] = {}
    if gram_file is not None:
        gram, _ = artifact.read(gram_file, family="gram", expect={"aligned": aligned_digest})
    context = Context(
        names=list(weights), weights=lambda name: Weights(files, name),
        model=lambda role: folders.load(checkpoints[role].parent), gram=gram, preferences=preferences or [],
        seed=cfg["seed"], say=say,
    )  # fmt: skip
    state = method.prepare(settings, context) if hasattr(method, "prepare") else None
    changed: dict[str, list[int]] = {}

    def merged() -> Iterator[tuple[str, torch.Tensor]]:
        for i, name in enumerate(layout):
            stored = files["finetuned"].get_tensor(name)
            if name not in weights:
                yield name, stored
                continue
            dtype = stored.dtype
            del stored
            out = method.merge(name, context.weights(name), settings, state).to(dtype)
            start = files["aligned"].get_tensor(name).to(dtype)
            kind = name.split(".")[-2] if "." in name else name
            count = int((out != start).count_nonzero())
            del start
            for key in ("all", kind):
                entry = changed.setdefault(key, [0, 0])
                entry[0] += count
                entry[1] += out.numel()
            if i % 20 == 0:
                say(f"merged {i + 1}/{len(layout)} tensors")
            yield name, out
            del out  # before the next tensors are read

    folder.mkdir(parents=True, exist_ok=True)
    folders.forget_card(folder)
    for name in folders.FILES[:-1]:
        source = checkpoints["finetuned"].parent / name
        if source.exists():
            shutil.copyfile(source, folder / name)
    stamp: dict[str, Any] = {"role": "finetuned", "aligned": aligned_digest, "settings": provenance.digest(cfg)}
    if any(role.startswith("finetuned") and container.is_weakened(path) for role, path in checkpoints.items()):
        stamp["weakened"] = True  # a merge restores at most a part
        folders.warn(folder)
    out = folder / folders.FILES[-1]
    container.write_stream(out, layout, merged(), folders.metadata(stamp | container.place(out)))
    shares = {k: c / n for k, (c, n) in changed.items()}
    record = context.record | {
        "weights/changed_fraction": shares.pop("all"), "changed_fraction_by_module": shares,
        "cost/seconds": round(time.monotonic() - started, 2),
        "cost/peak_memory_bytes": provenance.peak_resident(),
        **machine.made_with(),
    }  # fmt: skip
    jsonfiles.write_json(record_file, record)
    return record
