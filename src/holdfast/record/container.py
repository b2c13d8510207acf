"""The bytes of a safetensors file: its header, the seal in it, and tensors that come and go one by one.

A seal is a checksum of the file, kept in the `holdfast` entry of its `__metadata__`; `artifact` says what else
is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from holdfast.errors import ArtifactError
from holdfast.record import files, provenance

# XXH3-128 of the file with zeros in this place; written last. It guards against accidents: whoever changes a file on
# purpose can seal it anew, whatever the checksum, and this one costs a tenth of a sha256. provenance.json has that.
SEAL = "xxh3_128"
UNSEALED = "0" * 32
PLACE = "place"
_PIECE = 1 << 20
_DIGITS = 256  # room for numbers that are measured while a file is written


def raw_header(path: Path | str) -> tuple[dict[str, Any], int]:
    """(the JSON header of any safetensors file, entries in data order; where its data begin).

    Raises:
        ArtifactError: missing, or not a whole safetensors file.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= size - 8:
                raise ValueError("the header's length is out of range")
            head = json.loads(file.read(length))
        entries = sorted(
            ((k, v) for k, v in head.items() if k != "__metadata__"), key=lambda e: tuple(e[1]["data_offsets"])
        )
        if not all({"dtype", "shape"} <= entry.keys() for _, entry in entries):
            raise ValueError("an entry of the header has no dtype or shape")
        if entries and entries[-1][1]["data_offsets"][1] != size - 8 - length:
            raise ValueError("the file is shorter or longer than its header says")
        if not all(isinstance(v, str) for v in head.get("__metadata__", {}).values()):
            raise ValueError("its metadata are not text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is missing or damaged.",
            found=str(error)[:120], expected="a whole safetensors file", do=f"rm -f {path} && {again(path)}",
        ) from None  # fmt: skip
    return {"__metadata__": head.get("__metadata__", {})} | dict(entries), 8 + length


def is_weakened(weights: Path) -> bool:
    """Whether a model of ours was trained on purpose on answers it should refuse, or merged from one that was."""
    return bool(stamped(weights).get("weakened"))


def stamped(path: Path) -> dict[str, Any]:
    """Our entry of a file's metadata; nothing in a file of others."""
    return _stamped(path)[0]


def metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """The safetensors metadata of a model: Hugging Face's own, and ours in one entry, with room for the seal."""
    return {"format": "pt", "holdfast": json.dumps({**header, SEAL: UNSEALED}, sort_keys=True)}


def pack_header(entries: Mapping[str, Any], metadata: Mapping[str, str], size: int = 0) -> bytes:
    """The first bytes of a safetensors file: length and JSON header, padded to eight bytes and to `size`."""
    raw = json.dumps({"__metadata__": dict(metadata), **entries}, separators=(",", ":"), sort_keys=True).encode()
    raw += b" " * max(-len(raw) % 8, size - 8 - len(raw))
    return len(raw).to_bytes(8, "little") + raw


def layout(tensors: Mapping[str, tuple[str, Sequence[int], int]]) -> dict[str, Any]:
    """The entries of a header for tensors one after the other, each given as type, shape and bytes."""
    out, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        out[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return out


def place(path: Path | str) -> dict[str, str]:
    """{PLACE: study and name} of a tensor file of a study; nothing for one that lies anywhere else."""
    top, *below = Path(path).parts
    return {PLACE: "/".join(below)} if top == "work" else {}


def again(path: Path | str) -> str:
    """The command that makes a file of a study again.

    >>> again("work/demo/masks/a.safetensors")
    'snakemake --config study=demo -- work/demo/masks/a.safetensors'
    """
    top, *below = Path(path).parts
    return f"snakemake --config study={below[0]} -- {path}" if top == "work" and below else f"snakemake {path}"


def _digest(path: Path | str, begin: int, seal: str) -> str:
    """XXH3-128 of the whole file as it was before its seal was written into it."""
    from xxhash import xxh3_128

    piece = memoryview(bytearray(_PIECE))
    with Path(path).open("rb", buffering=0) as file:
        found = xxh3_128(file.read(begin).replace(seal.encode(), UNSEALED.encode(), 1))
        while count := file.readinto(piece):
            found.update(piece[:count])
    return found.hexdigest()


def seal(path: Path | str) -> None:
    """Write the file's checksum into its header, which has room for it (`UNSEALED`)."""
    _, begin = raw_header(path)
    with Path(path).open("r+b") as file:
        place = file.read(begin).index(UNSEALED.encode())
        digest = _digest(path, begin, UNSEALED)
        file.seek(place)
        file.write(digest.encode())


def check_seal(path: Path | str) -> None:
    """Refuse a file that is not as it was written, or was made for another place; files of others have no seal.

    Raises:
        ArtifactError: damaged, a bit differs, or it is a file of another study or of another name.
    """
    stamp, begin = _stamped(path)
    sealed = stamp.get(SEAL)
    if sealed is not None and sealed != _digest(path, begin, str(sealed)):
        raise ArtifactError(
            f"{path} is damaged.", found="other bytes than were written", expected=f"{SEAL} {str(sealed)[:16]}...",
            do=f"rm {path} && {again(path)}, or make pull",
        )  # fmt: skip
    here = place(path).get(PLACE)
    if here and stamp.get(PLACE, here) != here:
        raise ArtifactError(
            f"{path} was made for another place.", found=f"work/{stamp[PLACE]}", expected=f"work/{here}",
            do=f"rm {path} && {again(path)}, or make pull",
        )  # fmt: skip


def _stamped(path: Path | str) -> tuple[dict[str, Any], int]:
    """(our entry of a file's metadata, where its data begin); an entry that cannot be read has a seal nothing fits."""
    head, begin = raw_header(path)
    try:
        return dict(json.loads(head["__metadata__"].get("holdfast", "{}"))), begin
    except (ValueError, TypeError):
        return {SEAL: ""}, begin


def identity(path: Path | str) -> str:
    """What says in other headers which file this is: its seal, which whoever reads the tensors checks; the sha256 of a
    file of others, which has none."""
    return str(_stamped(path)[0].get(SEAL) or provenance.file_digest(path))


class Stored(Mapping[Any, Any]):
    """The tensors of a safetensors file, each read when it is asked for: nothing is kept.

    Args:
        path: the file.
        names: key -> tensor name, for another kind of key than the name itself.
        rounded: dtype floats are rounded to; None for as they are.
        torch: torch tensors; False gives numpy arrays without importing torch.
    """

    def __init__(
        self, path: Path | str, names: Mapping[Any, str] | None = None, *, rounded: str | None = None,
        torch: bool = True,
    ) -> None:  # fmt: skip
        from safetensors import safe_open

        self._dtype = None
        if rounded:
            import torch as library

            self._dtype = getattr(library, rounded)
        self._file = cast("Any", safe_open(path, framework="pt" if torch else "numpy"))  # its stub has no types
        self._names = {name: name for name in self._file.keys()} if names is None else dict(names)  # noqa: SIM118

    def __getitem__(self, key: Any) -> Any:
        tensor = self._file.get_tensor(self._names[key])
        return tensor if self._dtype is None else tensor.to(self._dtype)

    def shape(self, key: Any) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        return tuple(self._file.get_slice(self._names[key]).get_shape())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_stream(
    path: Path | str, layout: Mapping[str, Any], tensors: Iterable[tuple[str, Any]],
    metadata: Mapping[str, str] | Callable[[], Mapping[str, str]],
) -> None:  # fmt: skip
    """Write torch tensors one by one as they come, in the order and types of `layout` (the entries of
    `raw_header` of a like file), so that a merge never holds a whole model. Metadata given as a function is
    asked for before the first tensor and again after the last; it may then differ by a few digits."""
    import torch

    with files.whole(path) as temporary, temporary.open("wb") as target:
        known = metadata() if callable(metadata) else metadata
        head = len(pack_header(layout, known)) + (_DIGITS if callable(metadata) else 0)
        target.write(pack_header(layout, known, head))
        written = 0
        stream = iter(tensors)
        for expected, entry in layout.items():
            name, tensor = next(stream)
            begin, end = entry["data_offsets"]
            if name != expected or begin != written or list(tensor.shape) != entry["shape"]:
                raise ValueError(f"{name} {tuple(tensor.shape)} does not fit the layout at {expected} {entry}")
            written += target.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            if written != end:
                raise ValueError(f"{name} has another type than the layout says")
            del tensor  # before the next one is made
        if next(stream, None) is not None:
            raise ValueError("there are more tensors than the layout has")
        if callable(metadata):
            final = pack_header(layout, metadata(), head)
            if len(final) != head:
                raise ValueError("the header grew by more than a few digits")
            target.seek(0)
            target.write(final)
        target.flush()
        seal(temporary)
