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


def build_output_basis(aligned: Path, gram_file: Path, cfg: dict[str, Any], out: Path) -> None:
    """Output-side bases (ActSVD): V of every layer from the Gram of its outputs; inputs stay as they are."""
    from holdfast import layers, models
    from holdfast.warp import basis

    model, _ = models.load(aligned.parent)
    targets = layers.resolve(model, cfg["modules"])
    grams, header = artifact.read(
        gram_file, family="gram", layers=list(layers.inputs(targets)),
        expect={"aligned": provenance.file_digest(aligned)},
    )  # fmt: skip
    tensors = {x.name: basis.from_gram(basis.output_gram(x.module.weight.detach(), grams[x.input]))[0] for x in targets}
    error = max(basis.orthogonality_error(v) for v in tensors.values())
    header |= {"gram_file": provenance.file_digest(gram_file), "orthogonality_error": error, "kind": "output"}
    artifact.write(out, tensors, family="basis", header=header)


def build_permuted_basis(aligned: Path, basis_file: Path, cfg: dict[str, Any], out: Path) -> None:
    """The sanity arm: the safety basis plus a signed permutation of every layer's outputs."""
    import zlib

    from holdfast import layers, models
    from holdfast.warp import basis

    model, _ = models.load(aligned.parent)
    targets = layers.resolve(model, cfg["modules"])
    tensors, header = artifact.read(
        basis_file, family="basis", layers=list(layers.inputs(targets)),
        expect={"aligned": provenance.file_digest(aligned), "kind": "safety"},
    )  # fmt: skip
    for x in targets:
        tensors[x.name] = basis.signed_permutation(x.module.weight.shape[0], zlib.crc32(x.name.encode()))
    artifact.write(out, tensors, family="basis", header=header | {"kind": "permuted"})


def task_examples(tokenizer, task_table: Path, cfg: dict[str, Any]) -> tuple[list[dict[str, list[int]]], str]:
    """(encoded task rows, their digest): the first `cfg["rows"]` training rows of a task."""
    from holdfast import chat, data, tables

    dataset = data.dataset(cfg["task"])
    rows = [r for r in tables.read(task_table, cfg["task"]) if r["split"] == "train"][: cfg["rows"]]
    pairs = [dict(zip(("prompt", "response"), dataset.example(r, cfg["instruction"]), strict=True)) for r in rows]
    return chat.encode_rows(tokenizer, pairs), provenance.rows_digest(pairs)


def build_importance(
    aligned: Path, table: Path, basis_file: Path | None, cfg: dict[str, Any], out: Path, say: Say
) -> None:
    """Importance of every coefficient in the coordinates of `basis_file` (None: original space), for the
    refusals of a safety table, or for a task's rows when `cfg` names one (`task`)."""
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
    encoded, rows = (task_examples if cfg.get("task") else safety_examples)(tokenizer, table, cfg)
    scores = importance.score(
        model, targets, bases, encoded, batch_size=cfg["batch_size"], pad_id=tokenizer.pad_token_id, say=say
    )
    header = {
        "layers": [x.name for x in targets], "aligned": digest, "rows": rows, "batch_size": cfg["batch_size"],
        "basis_file": provenance.file_digest(basis_file) if basis_file else None,
    }  # fmt: skip
    artifact.write(out, scores, family="importance", header=header)


def build_mask(
    importance_file: Path, spec: dict[str, Any], seed: int, out: Path, *, task_file: Path | None = None
) -> None:
    """One mask by its spec (scores, unit, threshold, freeze fraction), as bits. Needs no torch.

    The importance file also says which layers, basis and aligned model the mask belongs to; a random
    mask takes only that and the shapes from it. With `task_file` (two masks) a coefficient that the
    same rule finds important for the task is not frozen.
    """
    scores, header = artifact.read(importance_file, family="importance", torch=False)
    frozen = _frozen(scores, header["layers"], spec, seed)
    if task_file is not None:
        expect = {k: header[k] for k in ("aligned", "basis_file")}
        task, _ = artifact.read(task_file, family="importance", torch=False, layers=header["layers"], expect=expect)
        wanted = _frozen(task, header["layers"], spec, seed)
        frozen = {name: mask & ~wanted[name] for name, mask in frozen.items()}
    header = header | {
        "spec": spec,
        "frozen_fraction": sum(int(m.sum()) for m in frozen.values()) / sum(m.size for m in frozen.values()),
        "columns_with_frozen": {name: float(mask.any(axis=0).mean()) for name, mask in frozen.items()},
        "shapes": {name: list(mask.shape) for name, mask in frozen.items()},
    }  # fmt: skip
    artifact.write(out, {name: masks.pack(mask) for name, mask in frozen.items()}, family="mask", header=header)


def _frozen(scores, layers: list[str], spec: dict[str, Any], seed: int) -> dict[str, Any]:
    """Layer name -> boolean (m, n) by one spec. With a rank fraction below 1 as many coefficients are frozen,
    all of them among the leading directions."""
    if spec["scores"] == "random":
        scores = {name: masks.random_scores(scores[name].shape, name, seed) for name in layers}
    rank, fraction = spec.get("rank_fraction", 1.0), spec["freeze_fraction"]
    kept = {name: scores[name][:, : masks.leading(scores[name].shape[1], rank)] for name in layers}
    if spec["threshold"] == "model":
        share = sum(scores[name].size for name in layers) / sum(part.size for part in kept.values())
        frozen = masks.top_overall(kept, min(1.0, fraction * share))
    else:
        frozen = {
            name: masks.build(part, spec["unit"], min(1.0, fraction * (scores[name].size / part.size)))
            for name, part in kept.items()
        }
    return {name: masks.widen(frozen[name], scores[name].shape[1]) for name in layers}
