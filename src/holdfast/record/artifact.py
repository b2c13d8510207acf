"""The only reader and writer of tensor files: safetensors with a header that says what they are.

The header is in the file's `__metadata__`: family, schema version, digest of the settings, layers,
inputs it was made from (`identity`), numbers measured on the way, and a seal: a checksum of the file. A reader
states what it expects and refuses anything else, a flipped bit too, before a tensor is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from holdfast.errors import ArtifactError, LayerMismatch
from holdfast.record import container, files
from holdfast.record.container import SEAL, UNSEALED

SCHEMA = 3
TYPES = {"gram": "F32", "basis": "F32", "importance": "F32", "mask": "U8", "neurons": "I32"}


def write(path: Path | str, tensors: Mapping[str, Any], *, family: str, header: Mapping[str, Any]) -> None:
    """Write tensors (torch or numpy) and their header; temp file and rename, so never half a file.

    The same tensors and header give the same bytes.
    """
    # One metadata entry: safetensors writes several in random order, and equal files must be equal bytes.
    metadata = _stamp(path, family, header)
    first = next(iter(tensors.values()), None)
    ordered = {k: tensors[k] for k in sorted(tensors)}
    save_file: Callable[..., None]
    if first is None or isinstance(first, np.ndarray):
        from safetensors.numpy import save_file

        ordered = {k: np.ascontiguousarray(v) for k, v in ordered.items()}
    else:
        from safetensors.torch import save_file

        ordered = {k: v.detach().contiguous().cpu() for k, v in ordered.items()}
    with files.whole(path) as temporary:
        save_file(ordered, temporary, metadata=metadata)
        container.seal(temporary)


def _stamp(path: Path | str, family: str, header: Mapping[str, Any]) -> dict[str, str]:
    stamp = {"family": family, "schema": SCHEMA, "header": header, SEAL: UNSEALED} | container.place(path)
    return {"holdfast": json.dumps(stamp, sort_keys=True)}


def header(path: Path | str, *, family: str) -> dict[str, Any]:
    """The header of a tensor file.

    Raises:
        ArtifactError: missing, not safetensors, truncated, or another family or schema.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    remake = container.again(path)
    if not path.is_file():
        raise ArtifactError(f"{path} is missing.", found="no file", expected=f"a {family} file", do=remake)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("holdfast", "{}"))
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged.",
            found=str(error)[:120],
            expected="a whole safetensors file",
            do=f"rm {path} && {remake}",
        ) from None
    if metadata.get("family") != family or metadata.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} is not what this step reads.",
            found=f"{metadata.get('family', 'no family')} (schema {metadata.get('schema', '?')})",
            expected=f"{family} (schema {SCHEMA})",
            do=remake,
        )
    found: dict[str, Any] = metadata["header"]
    return found


@overload
def read(
    path: Path | str, *, family: str, layers: list[str] | None = None, expect: Mapping[str, Any] | None = None,
    torch: bool = True, lazy: Literal[True],
) -> tuple[container.Stored, dict[str, Any]]: ...  # fmt: skip


@overload
def read(
    path: Path | str, *, family: str, layers: list[str] | None = None, expect: Mapping[str, Any] | None = None,
    torch: bool = True, lazy: Literal[False] = False,
) -> tuple[dict[str, Any], dict[str, Any]]: ...  # fmt: skip


def read(
    path: Path | str, *, family: str, layers: list[str] | None = None, expect: Mapping[str, Any] | None = None,
    torch: bool = True, lazy: bool = False,
) -> tuple[Mapping[str, Any], dict[str, Any]]:  # fmt: skip
    """(tensors, header) of a file that must be of this family, for these layers, with these header fields.

    Args:
        layers: ordered names the header's `layers` must equal.
        expect: header fields that must have these values.
        torch: torch tensors; False gives numpy arrays without importing torch.
        lazy: each is read when it is asked for.

    Raises:
        LayerMismatch: made for other layers. ArtifactError: any other difference.
    """
    found = header(path, family=family)
    if layers is not None and found.get("layers") != layers:
        raise LayerMismatch(
            f"{path} was made for other layers than are asked for.",
            found=_summary(found.get("layers", [])),
            expected=_summary(layers),
            do=f"{container.again(path)}, or change basis.modules of the study (`modules` of the call)",
        )
    for key, value in (expect or {}).items():
        if found.get(key) != value:
            raise ArtifactError(
                f"{path} does not belong to this run ({key} differs).",
                found=f"{key} = {str(found.get(key))[:80]}",
                expected=f"{key} = {str(value)[:80]}",
                do=container.again(path),
            )
    container.check_seal(path)
    wrong = {v["dtype"] for k, v in container.raw_header(path)[0].items() if k != "__metadata__"} - {TYPES.get(family)}
    if wrong and family in TYPES:
        raise ArtifactError(
            f"{path} holds numbers of another type.", found=", ".join(sorted(wrong)), expected=TYPES[family],
            do=f"rm {path} && {container.again(path)}",
        )  # fmt: skip
    if lazy:
        return container.Stored(path, torch=torch), found
    load_file: Callable[..., dict[str, Any]]
    if torch:
        from safetensors.torch import load_file
    else:
        from safetensors.numpy import load_file
    return load_file(path), found


def write_each(
    path: Path | str, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, Any]], *, family: str,
    header: Callable[[], Mapping[str, Any]],
) -> None:  # fmt: skip
    """`write` of float32 torch tensors that are made one by one, in the order of `shapes`; the header is asked
    for when all are made, so it may hold what was measured on the way."""
    layout, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + 4 * math.prod(shape)
        layout[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
        begin = end

    container.write_stream(path, layout, tensors, lambda: _stamp(path, family, header()))


def _summary(layers: list[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name in layers:
        kinds.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    return ", ".join(f"{k} x {len(v)}" for k, v in kinds.items()) or "none"
