"""The tensor families of WaRP as files: gram -> basis -> importance -> mask.

Each function reads files, calls the maths and writes one file whose header says what it was made
from: the aligned model, the safety rows, the layers, the basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.record import artifact, container, files, provenance
from holdfast.warp import masks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.model import chat
    from holdfast.model.layers import Layer

Say = Callable[[str], None]


def safety_examples(
    tokenizer: PreTrainedTokenizerBase, safety_table: Path, cfg: dict[str, Any]
) -> tuple[list[chat.Example], str]:
    """(encoded refused rows, their digest): the first `cfg["rows"]` hazards of the safety table."""
    from holdfast.model import chat
    from holdfast.record import tables

    rows = [r for r in tables.read(safety_table, "safety") if r["kind"] == "hazard"][: cfg["rows"]]
    encoded = chat.encode_rows(tokenizer, rows)
    return encoded, provenance.rows_digest([{"prompt": r["prompt"], "response": r["response"]} for r in rows])


def build_gram(aligned: Path, safety_table: Path, cfg: dict[str, Any], out: Path, say: Say) -> None:
    """Activation capture on the aligned model: one Gram matrix per distinct layer input."""
    from holdfast.model import folders, layers
    from holdfast.warp import gram

    model, tokenizer = folders.load(aligned.parent, role="aligned")
    targets = layers.resolve(model, cfg["modules"])
    encoded, rows = safety_examples(tokenizer, safety_table, cfg)
    grams, count = gram.capture(
        model, targets, encoded, batch_size=32, pad_id=tokenizer.pad_token_id, tokens=cfg["tokens"],
        unit=cfg.get("unit", False), say=say,
    )  # fmt: skip
    header = {
        "layers": list(layers.inputs(targets)), "aligned": container.identity(aligned), "rows": rows,
        "tokens": count, "positions": cfg["tokens"],
    } | ({"unit": True} if cfg.get("unit") else {})  # fmt: skip
    artifact.write(out, grams, family="gram", header=header)


def _write_bases(
    out: Path, shapes: Mapping[str, tuple[int, ...]], made: Iterable[tuple[str, torch.Tensor]], header: dict[str, Any]
) -> None:
    """Write matrices as they are made, so that never two are held, and how far the worst is from orthogonal."""
    from holdfast.warp import basis

    header["orthogonality_error"] = 0.0

    def each() -> Iterator[tuple[str, torch.Tensor]]:
        for name, matrix in made:
            if matrix.dim() == 2:
                header["orthogonality_error"] = max(header["orthogonality_error"], basis.orthogonality_error(matrix))
            yield name, matrix
            del matrix  # before the next one is made

    artifact.write_each(out, shapes, each(), family="basis", header=lambda: header)


def build_basis(gram_file: Path, out: Path, say: Say) -> None:
    """SVD by `eigh`: U and the eigenvalues of every Gram matrix, one after the other."""
    import torch

    from holdfast.warp import basis

    grams, header = artifact.read(gram_file, family="gram", lazy=True)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in grams:
        shapes |= {name: grams.shape(name), f"{name}.eigenvalues": grams.shape(name)[:1]}

    def made() -> Iterator[tuple[str, torch.Tensor]]:
        for name in grams:
            gram = grams[name]
            u, values = basis.from_gram(gram.cuda() if torch.cuda.is_available() else gram)
            del gram
            share = float(values[0] / values.sum())
            say(f"{name}: n = {u.shape[0]}, largest eigenvalue holds {share:.1%} of the energy")
            yield name, u
            yield f"{name}.eigenvalues", values
            del u, values

    _write_bases(out, shapes, made(), header | {"gram_file": container.identity(gram_file), "kind": "safety"})


def build_directions(gram_file: Path, spec: dict[str, Any], out: Path, say: Say) -> None:
    """The leading directions of every Gram matrix: a share of them, or as many as carry a share of the energy."""
    import torch

    from holdfast.warp import basis

    grams, header = artifact.read(gram_file, family="gram", lazy=True)
    found: dict[str, torch.Tensor] = {}
    for name in grams:
        gram = grams[name].cuda() if torch.cuda.is_available() else grams[name]
        u = basis.held(gram, name, spec["share"], spec["energy"])
        carried = float((u * (gram @ u)).sum() / gram.diagonal().sum())
        say(f"{name}: n = {u.shape[0]}, {u.shape[1]} directions hold {carried:.1%} of the energy")
        found[name] = u.cpu()
        del gram, u
    shapes = {name: tuple(u.shape) for name, u in found.items()}
    header |= {"gram_file": container.identity(gram_file), "kind": "leading", "spec": spec}
    _write_bases(out, shapes, found.items(), header)


def build_random_basis(gram_file: Path, seed: int, out: Path) -> None:
    """The control basis: a random orthogonal matrix of the same shape for every input."""
    import zlib

    from holdfast.warp import basis

    grams, header = artifact.read(gram_file, family="gram", lazy=True)
    shapes = {name: grams.shape(name) for name in grams}
    made = (
        (name, basis.random_orthogonal(shapes[name][0], seed * 1_000_003 + zlib.crc32(name.encode()))) for name in grams
    )
    _write_bases(out, shapes, made, header | {"kind": "random", "seed": seed})


def build_output_basis(aligned: Path, gram_file: Path, cfg: dict[str, Any], out: Path) -> None:
    """Output-side bases (ActSVD): V of every layer from the Gram of its outputs; inputs stay as they are."""
    from holdfast.model import folders, layers
    from holdfast.warp import basis

    model, _ = folders.load(aligned.parent, role="aligned")
    targets = layers.resolve(model, cfg["modules"])
    grams, header = artifact.read(
        gram_file, family="gram", layers=list(layers.inputs(targets)),
        expect={"aligned": container.identity(aligned)}, lazy=True,
    )  # fmt: skip
    shapes = {x.name: (x.module.weight.shape[0],) * 2 for x in targets}
    made = ((x.name, basis.from_gram(basis.output_gram(x.module.weight.detach(), grams[x.input]))[0]) for x in targets)
    _write_bases(out, shapes, made, header | {"gram_file": container.identity(gram_file), "kind": "output"})


def build_permuted_basis(aligned: Path, basis_file: Path, cfg: dict[str, Any], out: Path) -> None:
    """The sanity arm: the safety basis plus a signed permutation of every layer's outputs."""
    import itertools
    import zlib

    from holdfast.model import folders, layers
    from holdfast.warp import basis

    model, _ = folders.load(aligned.parent, role="aligned")
    targets = layers.resolve(model, cfg["modules"])
    bases, header = artifact.read(
        basis_file, family="basis", layers=list(layers.inputs(targets)),
        expect={"aligned": container.identity(aligned), "kind": "safety"}, lazy=True,
    )  # fmt: skip
    rows = {x.name: x.module.weight.shape[0] for x in targets}
    signed = ((name, basis.signed_permutation(m, zlib.crc32(name.encode()))) for name, m in rows.items())
    shapes = {name: bases.shape(name) for name in bases} | {name: (m, m) for name, m in rows.items()}
    _write_bases(out, shapes, itertools.chain(bases.items(), signed), header | {"kind": "permuted"})


def task_examples(
    tokenizer: PreTrainedTokenizerBase, task_table: Path, cfg: dict[str, Any]
) -> tuple[list[chat.Example], str]:
    """(encoded task rows, their digest): the first `cfg["rows"]` training rows of a task."""
    from holdfast import data
    from holdfast.model import chat
    from holdfast.record import tables

    dataset = data.dataset(cfg["task"])
    rows = [r for r in tables.read(task_table, cfg["task"]) if r["split"] == "train"][: cfg["rows"]]
    pairs = [dict(zip(("prompt", "response"), dataset.example(r, cfg["instruction"]), strict=True)) for r in rows]
    return chat.encode_rows(tokenizer, pairs), provenance.rows_digest(pairs)


def build_importance(
    aligned: Path, table: Path, basis_file: Path | None, cfg: dict[str, Any], out: Path, say: Say
) -> None:
    """Importance of every coefficient in the coordinates of `basis_file` (None: original space), for the
    refusals of a safety table, or for a task's rows when `cfg` names one (`task`)."""
    from holdfast.model import folders, layers
    from holdfast.warp import importance

    model, tokenizer = folders.load(aligned.parent, role="aligned")
    targets = layers.resolve(model, cfg["modules"])
    digest = container.identity(aligned)
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
        "basis_file": container.identity(basis_file) if basis_file else None,
    } | ({} if bases is None else _round_trip(targets, bases))  # fmt: skip
    artifact.write(out, scores, family="importance", header=header)


def _round_trip(targets: Sequence[Layer], bases: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """What writing W in the coordinates of a basis and back costs: max over layers of ‖V (Vᵀ W U) Uᵀ - W‖ / ‖W‖,
    in float32 and with every matrix in bfloat16."""
    import torch

    from holdfast.warp.optimizer import Rotation

    worst = {"float32": 0.0, "bfloat16": 0.0}
    for x in targets:
        weight = x.module.weight.detach()
        for name in worst:
            w = weight.to(getattr(torch, name))
            u, v = (bases[k].to(w) if k in bases else None for k in (x.input, x.name))
            back = Rotation(u, v=v).back(Rotation(u, v=v).rotate(w)).float()
            worst[name] = max(worst[name], float((back - weight).norm() / weight.norm()))
    return {f"round_trip_{name}": error for name, error in worst.items()}


def build_mask(
    importance_file: Path, spec: dict[str, Any], seed: int, out: Path, *, task_file: Path | None = None,
    profile: Path | None = None,
) -> None:  # fmt: skip
    """One mask by its spec (scores, unit, threshold, freeze fraction), as bits. Needs no torch.

    The importance file also says which layers, basis and aligned model the mask belongs to; a random
    mask takes only that and the shapes from it. With `task_file` (two masks) a coefficient that the
    same rule finds important for the task is not frozen. `profile` is a table of the share that is frozen by
    direction of the basis.
    """
    scores, header = artifact.read(importance_file, family="importance", torch=False, lazy=True)
    frozen = _frozen(scores, header["layers"], spec, seed)
    if task_file is not None:
        expect = {k: header[k] for k in ("aligned", "basis_file")}
        task, _ = artifact.read(
            task_file, family="importance", torch=False, lazy=True, layers=header["layers"], expect=expect
        )
        wanted = _frozen(task, header["layers"], spec, seed)
        frozen = ((name, mask & ~other) for (name, mask), (_, other) in zip(frozen, wanted, strict=True))
    packed, columns, shapes, count, profiles = {}, {}, {}, 0, {}
    for name, mask in frozen:
        profiles[name] = masks.profile(mask)
        packed[name], shapes[name] = masks.pack(mask), list(mask.shape)
        columns[name] = float(mask.any(axis=0).mean())
        count += int(mask.sum())
    header = header | {
        "spec": spec, "frozen_fraction": count / sum(m * n for m, n in shapes.values()),
        "columns_with_frozen": columns, "shapes": shapes,
    }  # fmt: skip
    if profile is not None:
        rows = ("layer,directions,frozen\n", *(f"{n},{d:g},{f:.6g}\n" for n, p in profiles.items() for d, f in p))
        files.write_text(profile, "".join(rows))
    artifact.write(out, packed, family="mask", header=header)


def _frozen(
    scores: container.Stored, layers: list[str], spec: dict[str, Any], seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(layer name, boolean (m, n)) by one spec, layer by layer unless one threshold is for the whole model. With a
    rank fraction below 1 as many coefficients are frozen, all of them among the leading directions."""

    def kept(name: str) -> np.ndarray:
        found = masks.random_scores(scores.shape(name), name, seed) if spec["scores"] == "random" else scores[name]
        return found[:, : masks.leading(found.shape[1], spec.get("rank_fraction", 1.0))]

    def share(size: int, part: int) -> float:
        wanted: float = spec["freeze_fraction"]
        return min(1.0, wanted * (size / part))

    sizes = {name: math.prod(scores.shape(name)) for name in layers}
    found: Iterator[tuple[str, np.ndarray]]
    if spec["threshold"] == "model":
        parts = {name: kept(name) for name in layers}
        overall = masks.top_overall(parts, share(sum(sizes.values()), sum(p.size for p in parts.values())))
        found = ((name, overall[name]) for name in layers)
    else:
        each = ((name, kept(name)) for name in layers)
        found = ((name, masks.build(part, spec["unit"], share(sizes[name], part.size))) for name, part in each)
    return ((name, masks.widen(mask, scores.shape(name)[1])) for name, mask in found)
