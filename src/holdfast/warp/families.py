"""The tensor families of WaRP as files: gram -> basis -> importance -> mask.

Each function reads files, calls the maths and writes one file whose header says what it was made
from: the aligned model, the safety rows, the layers, the basis.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast import artifact, provenance
from holdfast.warp import masks

Say = Callable[[str], None]


def safety_examples(tokenizer, safety_table: Path, cfg: dict[str, Any]) -> tuple[list[dict[str, list[int]]], str]:
    """(encoded refused rows, their digest): the first `cfg["rows"]` hazards of the safety table."""
    from holdfast import chat, tables

    rows = [r for r in tables.read(safety_table, "safety") if r["kind"] == "hazard"][: cfg["rows"]]
    encoded = chat.encode_rows(tokenizer, rows)
    return encoded, provenance.rows_digest([{"prompt": r["prompt"], "response": r["response"]} for r in rows])


def build_gram(aligned: Path, safety_table: Path, cfg: dict[str, Any], out: Path, say: Say) -> None:
    """Activation capture on the aligned model: one Gram matrix per distinct layer input."""
    from holdfast import layers, models
    from holdfast.warp import gram

    model, tokenizer = models.load(aligned.parent)
    targets = layers.resolve(model, cfg["modules"])
    encoded, rows = safety_examples(tokenizer, safety_table, cfg)
    grams, count = gram.capture(
        model, targets, encoded, batch_size=32, pad_id=tokenizer.pad_token_id, tokens=cfg["tokens"], say=say
    )
    header = {
        "layers": list(layers.inputs(targets)), "aligned": provenance.file_digest(aligned), "rows": rows,
        "tokens": count, "positions": cfg["tokens"],
    }  # fmt: skip
    artifact.write(out, grams, family="gram", header=header)


def build_basis(gram_file: Path, out: Path, say: Say) -> None:
    """SVD by `eigh`: U and the eigenvalues of every Gram matrix, one after the other."""
    from holdfast.warp import basis

    grams, header = artifact.read(gram_file, family="gram")
    tensors, error = {}, 0.0
    for name in list(grams):
        u, values = basis.from_gram(grams.pop(name))
        tensors[name], tensors[f"{name}.eigenvalues"] = u, values
        error = max(error, basis.orthogonality_error(u))
        say(f"{name}: n = {u.shape[0]}, largest eigenvalue holds {float(values[0] / values.sum()):.1%} of the energy")
    header = header | {"gram_file": provenance.file_digest(gram_file), "orthogonality_error": error, "kind": "safety"}
    artifact.write(out, tensors, family="basis", header=header)


def build_random_basis(gram_file: Path, seed: int, out: Path) -> None:
    """The control basis: a random orthogonal matrix of the same shape for every input."""
    import zlib

    from holdfast.warp import basis

    grams, header = artifact.read(gram_file, family="gram")
    tensors = {
        name: basis.random_orthogonal(g.shape[0], seed * 1_000_003 + zlib.crc32(name.encode()))
        for name, g in grams.items()
    }
    error = max(basis.orthogonality_error(u) for u in tensors.values())
    artifact.write(
        out, tensors, family="basis", header=header | {"orthogonality_error": error, "kind": "random", "seed": seed}
    )


def build_importance(
    aligned: Path, safety_table: Path, basis_file: Path | None, cfg: dict[str, Any], out: Path, say: Say
) -> None:
    """Importance of every coefficient in the coordinates of `basis_file` (None: original space)."""
    from holdfast import layers, models
    from holdfast.warp import importance

    model, tokenizer = models.load(aligned.parent)
    targets = layers.resolve(model, cfg["modules"])
    digest = provenance.file_digest(aligned)
    bases = None
    if basis_file is not None:
        bases, _ = artifact.read(
            basis_file, family="basis", layers=list(layers.inputs(targets)), expect={"aligned": digest}
        )
    encoded, rows = safety_examples(tokenizer, safety_table, cfg)
    scores = importance.score(
        model, targets, bases, encoded, batch_size=cfg["batch_size"], pad_id=tokenizer.pad_token_id, say=say
    )
    header = {
        "layers": [x.name for x in targets], "aligned": digest, "rows": rows, "batch_size": cfg["batch_size"],
        "basis_file": provenance.file_digest(basis_file) if basis_file else None,
    }  # fmt: skip
    artifact.write(out, scores, family="importance", header=header)


def build_mask(importance_file: Path, spec: dict[str, Any], seed: int, out: Path) -> None:
    """One mask by its spec (scores, unit, freeze fraction), as bits. Needs no torch.

    The importance file also says which layers, basis and aligned model the mask belongs to; a random
    mask takes only that and the shapes from it.
    """
    scores, header = artifact.read(importance_file, family="importance", torch=False)
    bits, frozen, total, columns = {}, 0, 0, {}
    for name in header["layers"]:
        values = scores[name]
        if spec["scores"] == "random":
            values = masks.random_scores(values.shape, name, seed)
        mask = masks.build(values, spec["unit"], spec["freeze_fraction"])
        bits[name] = masks.pack(mask)
        frozen, total = frozen + int(mask.sum()), total + mask.size
        columns[name] = float((mask.any(axis=0)).mean())
    header = header | {
        "spec": spec, "frozen_fraction": frozen / total, "columns_with_frozen": columns,
        "shapes": {k: list(scores[k].shape) for k in header["layers"]},
    }  # fmt: skip
    artifact.write(out, bits, family="mask", header=header)
