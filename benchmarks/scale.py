"""What protection costs at the shape of a 7B model, on one GPU: `python -m benchmarks.scale`.

Random weights in the shape of Llama 2 7B: activation capture and bases, importance, and one step of the constrained
optimizer beside plain full fine-tuning and the published form (benchmarks/published.py), each in bfloat16 over float32
masters and in pure bfloat16. Nothing whole is run: a basis of every width, a few batches, a few steps; what the whole
takes is their median times their count. A side that does not fit into memory says so. Writes results/scale.json.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from benchmarks import published
from benchmarks.bench import MODULES, OURS, PLAIN, PUBLISHED, SHAPES, Shape, batches, random_rotations, rows, stepper
from holdfast.model import layers
from holdfast.record import jsonfiles
from holdfast.warp import basis, gram, importance

SHAPE = Shape("llama-2-7b", 4096, 11008, 32, 32, 32, 32000)
# The published run: 4,994 safety rows, scored two by two; fine-tuning 16 rows a step.
ROWS, CAPTURED, LENGTH, SCORED_TOGETHER, STEP = 4994, 32, 150, 2, (4, 128, 4)
LIMITS = {"basis": 150.0, "importance": 150.0, "step bf16": 1.15}
Entry = dict[str, Any]


def seconds(device: str, work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of `work` after a warm-up, the device's queue drained."""
    taken = []
    for i in range(rounds + 1):
        _drain(device)
        started = time.perf_counter()
        work()
        _drain(device)
        if i:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _drain(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def fitting(device: str, make: Callable[[], Callable[[], Any]], rounds: int) -> dict[str, float | None]:
    """{seconds, peak_memory} of what `make` returns; no seconds where it does not fit, no memory without a GPU."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        taken: float | None = seconds(device, make(), rounds)
    except torch.OutOfMemoryError:
        taken = None
    return {"seconds": taken, "peak_memory": torch.cuda.max_memory_allocated() if device == "cuda" else None}


def capturing(shape: Shape, device: str, rounds: int) -> tuple[dict[str, float | None], Counter, Counter]:
    """What capturing 32 rows takes, and how many distinct inputs and target modules there are of each width."""
    model = shape.model(device)
    targets = layers.resolve(model, MODULES)
    capture = functools.partial(gram.capture, model, targets, rows(shape, CAPTURED, LENGTH), batch_size=32, pad_id=0)
    distinct = Counter(readers[0].module.in_features for readers in layers.inputs(targets).values())
    return fitting(device, lambda: capture, rounds), distinct, Counter(x.module.in_features for x in targets)


def capture_and_bases(shape: Shape, device: str, rounds: int) -> Entry:
    """Gram matrices of the published safety rows and the bases of all distinct inputs, against one Gram matrix and one
    `svd` per module."""
    captured, distinct, modules = capturing(shape, device, rounds)
    ours, theirs = {}, {}
    for n in distinct:
        h = torch.randn(2 * n, n, device=device)
        matrix = h.T @ h
        del h
        ours[n] = fitting(device, lambda m=matrix: lambda: basis.from_gram(m), 1)["seconds"]
        theirs[n] = fitting(device, lambda m=matrix: lambda: torch.linalg.svd(m), 1)["seconds"]
    whole = captured["seconds"] and captured["seconds"] * ROWS / CAPTURED
    return {
        "name": "basis", "capture": captured, "capture_of_all_rows": whole, "decompositions": dict(distinct),
        "of_one": {OURS: ours, PUBLISHED: theirs}, OURS: total(ours, distinct), PUBLISHED: total(theirs, modules),
    }  # fmt: skip


def total(each: dict[int, float | None], count: dict[int, int]) -> float | None:
    """Seconds of all matrices from the seconds of one of each width; None where one did not fit."""
    return None if None in each.values() else sum(each[n] * count[n] for n in count)


def scoring(shape: Shape, device: str, rounds: int) -> Entry:
    """Importance of the published safety rows, in the 16-bit weights its authors score with."""
    model = shape.model(device).bfloat16()
    targets = layers.resolve(model, MODULES)
    u = {name: x.bfloat16() for name, x in random_rotations(targets)[0].items()}
    encoded = rows(shape, 4 * SCORED_TOGETHER, LENGTH)
    work = [{k: v.to(device) for k, v in b.items()} for b in batches(encoded, SCORED_TOGETHER)]
    sides = {
        OURS: lambda: importance.score(model, targets, u, encoded, batch_size=SCORED_TOGETHER, pad_id=0),
        PUBLISHED: lambda: published.importance(model, targets, u, work),
    }
    found = {side: fitting(device, lambda f=f: f, rounds) for side, f in sides.items()}
    whole = {s: f["seconds"] and f["seconds"] * ROWS / len(encoded) for s, f in found.items()}
    return {"name": "importance", "of_some_batches": found, **whole}


def stepping(shape: Shape, device: str, rounds: int, precision: str) -> Entry:
    """One optimizer step of 16 rows, every parameter trained, activations checkpointed."""
    found = {}
    for side in (PLAIN, OURS, PUBLISHED):
        found[side] = fitting(
            device,
            lambda s=side: stepper(s, shape, *STEP, device=device, precision=precision, checkpointing=True),
            rounds,
        )
    taken = {side: f["seconds"] for side, f in found.items()}
    ratios = {
        f"ratio_to_{other}": taken[OURS] / taken[other] if taken[OURS] and taken[other] else None
        for other in (PLAIN, PUBLISHED)
    }
    peaks = {side: f["peak_memory"] for side, f in found.items()}
    return {"name": f"step {precision}", **taken, **ratios, "peak_memory": peaks}


def run(shape: Shape, device: str, rounds: int, only: str) -> list[Entry]:
    """Every case whose name contains `only`."""
    cases: dict[str, Callable[[], Entry]] = {
        "basis": lambda: capture_and_bases(shape, device, rounds),
        "importance": lambda: scoring(shape, device, rounds),
        "step bf16": lambda: stepping(shape, device, rounds, "bf16"),
        "step pure_bf16": lambda: stepping(shape, device, rounds, "pure_bf16"),
    }
    entries = []
    for name, case in cases.items():
        if only in name:
            print(f"{name}, {shape.name} ...", file=sys.stderr, flush=True)
            entries.append(case() | {"shape": asdict(shape)})
    return entries


def verdict(entry: Entry) -> str:
    """What the target asks of an entry, and what it got; another shape than the target's is not judged."""
    limit = LIMITS.get(entry["name"])
    if limit is None:
        return ""
    key = "ratio_to_plain" if entry["name"].startswith("step") else OURS
    got, unit = entry[key], "" if key != OURS else " s"
    if got is None:
        return "did not fit into memory"
    if entry["shape"] != asdict(SHAPE):
        return f"target {limit:g}{unit} at the shape of {SHAPE.name}"
    return f"{'met' if got <= limit else 'MISSED'}: {got:.2f}{unit}, target {limit:g}{unit}"


def table(entries: list[Entry]) -> str:
    """The entries as lines of text: seconds of every side, and the verdict."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    lines = [f"{'case':16}{'plain, s':>12}{'ours, s':>12}{'published, s':>14}  target"]
    for e in entries:
        sides = (cell(e.get(side)) for side in (PLAIN, OURS, PUBLISHED))
        lines.append("{:16}{:>12}{:>12}{:>14}  {}".format(e["name"], *sides, verdict(e)))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default=SHAPE.name, choices=[SHAPE.name, *sorted(SHAPES)])
    parser.add_argument("--blocks", type=int, help="decoder blocks, where all do not fit; the costs are per block")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--out", type=Path, default=Path("results/scale.json"))
    args = parser.parse_args()
    logging.disable_progress_bar()
    shape = {SHAPE.name: SHAPE, **SHAPES}[args.shape]
    if args.blocks:
        shape = Shape(**asdict(shape) | {"blocks": args.blocks})
    entries = run(shape, args.device, args.rounds, args.only)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    jsonfiles.write_json(args.out, {"device": device, "torch": torch.__version__, "entries": entries})
    print(table(entries))
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
