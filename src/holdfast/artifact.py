"""The only reader and writer of tensor files: safetensors with a header that says what they are.

The header is in the file's `__metadata__`: family, schema version, digest of the settings, layers,
inputs it was made from (by sha256) and numbers measured on the way. A reader states what it expects
and refuses anything else before a tensor is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast import files
from holdfast.errors import ArtifactError, LayerMismatch

SCHEMA = 1


def write(path: Path | str, tensors: Mapping[str, Any], *, family: str, header: Mapping[str, Any]) -> None:
    """Write tensors (torch or numpy) and their header; temp file and rename, so never half a file.

    The same tensors and header give the same bytes.
    """
    # One metadata entry: safetensors writes several in random order, and equal files must be equal bytes.
    stamp = {"family": family, "schema": SCHEMA, "header": header}
    metadata = {"holdfast": json.dumps(stamp, sort_keys=True)}
    first = next(iter(tensors.values()), None)
    ordered = {k: tensors[k] for k in sorted(tensors)}
    if first is None or isinstance(first, np.ndarray):
        from safetensors.numpy import save_file

        ordered = {k: np.ascontiguousarray(v) for k, v in ordered.items()}
    else:
        from safetensors.torch import save_file

        ordered = {k: v.detach().contiguous().cpu() for k, v in ordered.items()}
    with files.whole(path) as temporary:
        save_file(ordered, temporary, metadata=metadata)


def header(path: Path | str, *, family: str) -> dict[str, Any]:
    """The header of a tensor file.

    Raises:
        ArtifactError: missing, not safetensors, truncated, or another family or schema.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    again = f"snakemake {path}"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing.", found="no file", expected=f"a {family} file", do=again)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("holdfast", "{}"))
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged.",
            found=str(error)[:120],
            expected="a whole safetensors file",
            do=f"rm {path} && {again}",
        ) from None
    if metadata.get("family") != family or metadata.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{path} is not what this step reads.",
            found=f"{metadata.get('family', 'no family')} (schema {metadata.get('schema', '?')})",
            expected=f"{family} (schema {SCHEMA})",
            do=again,
        )
    return metadata["header"]


def read(
    path: Path | str, *, family: str, layers: list[str] | None = None, expect: Mapping[str, Any] | None = None,
    torch: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """(tensors, header) of a file that must be of this family, for these layers, with these header fields.

    Args:
        layers: ordered names the header's `layers` must equal.
        expect: header fields that must have these values.
        torch: torch tensors; False gives numpy arrays without importing torch.

    Raises:
        LayerMismatch: made for other layers. ArtifactError: any other difference.
    """
    found = header(path, family=family)
    if layers is not None and found.get("layers") != layers:
        raise LayerMismatch(
            f"{path} was made for other layers than this study asks for.",
            found=_summary(found.get("layers", [])),
            expected=_summary(layers),
            do=f"snakemake {path}, or change basis.modules in the study",
        )
    for key, value in (expect or {}).items():
        if found.get(key) != value:
            raise ArtifactError(
                f"{path} does not belong to this run ({key} differs).",
                found=f"{key} = {str(found.get(key))[:80]}",
                expected=f"{key} = {str(value)[:80]}",
                do=f"snakemake {path}",
            )
    if torch:
        from safetensors.torch import load_file
    else:
        from safetensors.numpy import load_file
    return load_file(path), found


def _summary(layers: list[str]) -> str:
    kinds: dict[str, list[str]] = {}
    for name in layers:
        kinds.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    return ", ".join(f"{k} x {len(v)}" for k, v in kinds.items()) or "none"


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON through a temp file; keys sorted, so equal values are equal bytes."""
    files.write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())
