"""What fine-tuning did to the weights of one model: how much changed where, and how much in the safety subspace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ArtifactError
from holdfast.model import layers
from holdfast.record import artifact, container, csvfiles

if TYPE_CHECKING:
    import torch

ENERGY = 0.9  # of the safety activations: the directions that carry it are the subspace
COLUMNS = ("block", "module", "changed", "relative_norm", "inside", "directions")


def measure(before: torch.Tensor, after: torch.Tensor, basis: torch.Tensor | None, directions: int) -> dict[str, Any]:
    """Of one weight W (m, n), before and after: the share of entries that changed, ‖ΔW‖ / ‖W‖, and the share of
    ‖ΔW‖² in the first `directions` columns of `basis` (n, n); `inside` is empty without a basis, and without a change.

    `directions` is returned as a share of n: what a change without preference would have inside.
    """
    delta = after.float() - before.float()
    total = float(delta.double().pow(2).sum())
    out: dict[str, Any] = {
        "changed": float((after != before).double().mean()),
        "relative_norm": (total / max(float(before.double().pow(2).sum()), 1e-300)) ** 0.5,
        "inside": "", "directions": "",
    }  # fmt: skip
    if basis is not None:
        out["directions"] = directions / basis.shape[0]
        if total:
            out["inside"] = float((delta @ basis[:, :directions].float()).double().pow(2).sum()) / total
    return out


def build(model: Path, *, aligned: Path, basis: Path, out: Path) -> list[dict[str, Any]]:
    """Write changes.csv of one model, a row per linear module of every block; tensor by tensor.

    Raises:
        ArtifactError: one of the files is damaged, or the models are not of one architecture.
    """
    from safetensors import safe_open

    from holdfast.warp.basis import subspace

    for path in (model, aligned):
        container.check_seal(path)
    bases, header = artifact.read(basis, family="basis", lazy=True)
    sizes = {name: subspace(bases[f"{name}.eigenvalues"], ENERGY) for name in header["layers"]}
    rows: list[dict[str, Any]] = []
    with safe_open(model, framework="pt") as after, safe_open(aligned, framework="pt") as before:
        for name in before.keys():  # noqa: SIM118 - not a mapping
            if (found := layers.of_weight(name)) is None:
                continue
            reads, kind = found
            new, old = after.get_tensor(name), before.get_tensor(name)
            if new.shape != old.shape:
                raise ArtifactError(
                    f"{model} is not a fine-tuned {aligned}: {name} differs.", found=f"{list(new.shape)}",
                    expected=f"{list(old.shape)}", do="rebuild both from the same base",
                )  # fmt: skip
            of = bases[reads] if reads in sizes else None
            rows.append(
                {"block": int(reads.split(".")[1]), "module": kind} | measure(old, new, of, sizes.get(reads, 0))
            )
    rows.sort(key=lambda r: r["block"])
    csvfiles.write_csv(out, rows, COLUMNS)
    return rows
