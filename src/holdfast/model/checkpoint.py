"""The tensors of a model wherever they lie, one at a time: in one file, in shards, or in an adapter on another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArtifactError
from holdfast.model import adapter, weights
from holdfast.record import container

if TYPE_CHECKING:
    import torch

_HEAD = "lm_head.weight"


class Checkpoint:
    """The weights of a folder in Hugging Face layout, read when they are asked for.

    layout: name -> its entry in `container.raw_header`, in the order of the files. parts: file name -> the entries of
    one file, so that a like one can be written.

    Raises:
        ArtifactError: no safetensors, a shard too few, or a damaged file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if container.place(folder):  # of a study: what is wrong with it, a command makes good
            container.raw_header(folder / weights.WEIGHTS)
        self._where = weights.tensors(folder)
        self.parts: dict[str, dict[str, Any]] = {}
        for path in dict.fromkeys(t.file for t in self._where.values()):
            container.check_seal(path)
            head, _ = container.raw_header(path)
            self.parts[path.name] = {k: v for k, v in head.items() if k != "__metadata__"}
        self.layout = {name: entry for part in self.parts.values() for name, entry in part.items()}

    def get_tensor(self, name: str) -> torch.Tensor:
        """One tensor as it is stored."""
        from safetensors import safe_open

        # Opened anew every time: an open file keeps every page that was read of it in memory.
        file: Any = safe_open(self._where[name].file, framework="pt")
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def identity(self) -> str:
        """What says in records which weights these are."""
        from holdfast.record import provenance

        found = [container.identity(self.folder / name) for name in self.parts]
        return found[0] if len(found) == 1 else provenance.digest(found)

    def weakened(self) -> bool:
        """Whether they are those of a model of ours that was weakened on purpose."""
        return weakened(self.folder)


class Adapted:
    """A model with an adapter folded in, W + s B A, in float32: a `Checkpoint` to whoever reads it."""

    def __init__(self, under: Checkpoint, folder: Path) -> None:
        from safetensors import safe_open

        self.folder, self._under = folder, under
        self.adapter = adapter.read(folder, shapes(under.folder))
        self._tensors: Any = safe_open(self.adapter.file, framework="pt")
        self.parts = {weights.WEIGHTS: container.layout({k: _float32(v) for k, v in under.layout.items()})}
        self.layout = self.parts[weights.WEIGHTS]

    def get_tensor(self, name: str) -> torch.Tensor:
        """One tensor with the adapter's update, float32 where it is a floating one."""
        if name in self.adapter.replaced:
            whole: torch.Tensor = self._tensors.get_tensor(self.adapter.replaced[name])
            return whole.float()
        tensor = self._under.get_tensor(name)
        if name in self.adapter.pairs:
            return tensor.float() + self.adapter.update(self._tensors, name)
        return tensor.float() if tensor.is_floating_point() else tensor

    def added(self, name: str) -> torch.Tensor | None:
        """The update s B A of one weight; None where the adapter replaces it or leaves it alone."""
        return self.adapter.update(self._tensors, name) if name in self.adapter.pairs else None

    def identity(self) -> str:
        """As of a `Checkpoint`: of the adapter and what it stands on."""
        from holdfast.record import provenance

        return provenance.digest([self._under.identity(), container.identity(self.adapter.file), self.adapter.config])

    def weakened(self) -> bool:
        """As of a `Checkpoint`."""
        return self._under.weakened() or container.is_weakened(self.adapter.file)


def opened(folder: Path, under: Path | None = None) -> Checkpoint | Adapted:
    """The weights of a folder; of an adapter on those of `under`.

    Raises:
        ArtifactError: as `Checkpoint` and `adapter.read`; or an adapter with nothing under it.
    """
    if not adapter.named(folder):
        return Checkpoint(folder)
    if under is None:
        raise ArtifactError(
            f"{folder} is an adapter, and is to be a whole model here.", found=adapter.CONFIG,
            expected="a folder with model.safetensors", do="name the model it stands on",
        )  # fmt: skip
    return Adapted(Checkpoint(under), folder)


def _float32(entry: Mapping[str, Any]) -> tuple[str, Sequence[int], int]:
    """Type, shape and bytes of a tensor of a header once its floats are in float32."""
    begin, end = entry["data_offsets"]
    if weights.floating(entry["dtype"]):
        return "F32", entry["shape"], 4 * math.prod(entry["shape"])
    return entry["dtype"], entry["shape"], end - begin


def stream(source: Checkpoint | Adapted) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors, one after another.

    Raises:
        ArtifactError: one holds what is no number.
    """
    for name in source.layout:
        tensor = source.get_tensor(name)
        refuse_not_finite(name, tensor, source.folder)
        yield name, tensor
        del tensor  # before the next one is read


def refuse_not_finite(name: str, tensor: torch.Tensor, source: Path | str) -> None:
    """Refuse a tensor that holds what is no number.

    Raises:
        ArtifactError: names it.
    """
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise ArtifactError(
            f"The weights in {source} hold what is no number.", found=f"NaN or infinity in {name}",
            expected="finite weights", do="copy the model again, or look at the training that made it",
        )  # fmt: skip


def shapes(folder: Path) -> dict[str, list[int]]:
    """Name -> shape of every tensor of a folder, from headers alone.

    Raises:
        ArtifactError: as `Checkpoint`.
    """
    return {name: list(t.shape) for name, t in weights.tensors(folder).items()}


def weakened(folder: Path) -> bool:
    """Whether a folder holds a model of ours that was weakened on purpose, from headers alone."""
    return any(container.is_weakened(path) for path in {t.file for t in weights.tensors(folder).values()})


def refuse_role(folder: Path, role: str) -> None:
    """Refuse a model of ours that plays another role than it is given for; one of others does not say.

    Raises:
        ArtifactError: both roles.
    """
    path = folder / weights.WEIGHTS
    if adapter.named(folder) or not path.is_file():
        return
    try:
        found = container.stamped(path).get("role")
    except ArtifactError:  # damaged, which whoever looks it over says in words for a file of others
        return
    if found is not None and found != role:
        raise ArtifactError(
            f"{folder} is given as the {role} model, and says that it is another.", found=f"role {found}",
            expected=f"role {role}, or a model that was not made here", do=f"name the {role} model",
        )  # fmt: skip


def refuse_other(
    given: Mapping[str, list[int]], aligned: Mapping[str, list[int]], what: str, of: str, *, exactly: bool = False
) -> None:  # fmt: skip
    """Refuse tensors (name -> shape) that are not those of the aligned model.

    Unless they must be `exactly` those, a tied head that one of them holds too, and what is computed, may be missing.

    Raises:
        ArtifactError: names the first that differs.
    """
    different = sorted(k for k in given.keys() | aligned.keys() if given.get(k) != aligned.get(k))
    if not exactly:
        free = {k for k in given.keys() ^ aligned.keys() if k.endswith((_HEAD, *weights.COMPUTED))}
        different = [k for k in different if k not in free]
    if different:
        name = different[0]
        raise ArtifactError(
            f"{what} cannot be compared or merged with {of}: {name} differs.",
            found=f"{given.get(name, 'absent')}   ({len(different)} tensors differ)",
            expected=f"{aligned.get(name, 'absent')}",
            do="name models of one base only: same architecture, same vocabulary",
        )  # fmt: skip
