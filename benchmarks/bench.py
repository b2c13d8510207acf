"""Ours, the published algorithm and plain fine-tuning side by side: `make bench`, or `python -m benchmarks.bench`.

The sides of a case take turns in one process on one thread, after a warm-up; a ratio is the median of the
ratios of the rounds, its spread their quartiles. On a CPU the clock is process CPU time, so that other
processes of the machine do not count. Peak memory is measured in a process per side. The floor of a ratio is that of
the operations of matrix products on both sides, counted by torch; of the bases, that of a decomposition which cost
nothing. Writes results/bench.json.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from benchmarks import published
from holdfast.merge import driver
from holdfast.model import folders, layers
from holdfast.record import jsonfiles, provenance
from holdfast.warp import basis, gram, importance, masks
from holdfast.warp.optimizer import RotatedAdamW, Rotation

MODULES = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
FREEZE = 0.1
HELD = 0.3  # share of the directions that `lead` holds
PLAIN, OURS, PUBLISHED = "plain", "ours", "published"
LEAD, UPDATE = "lead", "lead update"  # gradient and update projected, or the update alone
CAPTURE = "capture"  # the part of ours that is not decomposition


@dataclass(frozen=True)
class Shape:
    """One Llama shape with random weights."""

    name: str
    hidden: int
    mlp: int
    blocks: int
    heads: int
    kv_heads: int
    vocabulary: int

    def model(self, device: str = "cpu") -> LlamaForCausalLM:
        torch.manual_seed(0)
        with torch.device(device):
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=self.hidden, intermediate_size=self.mlp, num_hidden_layers=self.blocks,
                    num_attention_heads=self.heads, num_key_value_heads=self.kv_heads, vocab_size=self.vocabulary,
                    max_position_embeddings=2048, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
                    pad_token_id=0,
                )
            )  # fmt: skip
        return model.eval()


SHAPES = {
    s.name: s
    for s in (
        Shape("prototype", 512, 1376, 6, 8, 8, 2048),
        Shape("grouped-query", 512, 1792, 6, 8, 2, 2048),
        Shape("wide", 1024, 2752, 4, 8, 8, 8192),  # for the memory of a merge, whose tensors must outweigh Python
        Shape("tiny", 32, 48, 2, 4, 2, 128),
    )
}
# (micro-batch, sequence, accumulation) of one optimizer step
STEPS = ((4, 128, 4), (4, 64, 4), (4, 128, 1))
TARGETS = {
    "step 4x128x4": ("ratio_to_plain", 1.05), "step 4x128x1": ("ratio_to_plain", 1.30),
    "importance": ("ratio_to_plain", 1.25), "importance, against published": ("ratio_to_published", 1 / 2.5),
    "basis": ("ratio_to_published", 1 / 5), "memory of a step": ("ratio_to_plain_and_bases", 1.05),
    "merge": ("ratio_to_plain", 1.5), "memory of a merge": ("ratio_to_three_largest", 1.0),
    "generation": ("ratio_to_published", 1 / 3), "directions": ("ratio_to_published", 1 / 5),
    "lead 4x128x4": ("ratio_to_plain", 1.10), "lead 4x128x1": ("ratio_to_plain", 1.30),
    "lead update 4x128x4": ("ratio_to_plain", 1.10), "lead update 4x128x1": ("ratio_to_plain", 1.30),
    "memory of lead": ("ratio_to_plain", 1.10),
}  # fmt: skip


def rows(shape: Shape, count: int, length: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Random token rows, every token supervised."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, shape.vocabulary, (count, length), generator=generator).tolist()
    return [{"input_ids": i, "labels": i} for i in ids]


def batches(encoded: list[dict[str, list[int]]], size: int) -> list[dict[str, torch.Tensor]]:
    from holdfast.model import chat

    return [chat.collate(encoded[i : i + size], 0) for i in range(0, len(encoded), size)]


def random_rotations(targets: list[layers.Layer]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(input name -> U, layer name -> boolean mask) of the right shapes, where the weights are. The cost does not
    depend on the values, so inputs of one width have copies of one U."""
    one: dict[int, torch.Tensor] = {}
    u = {}
    for name, readers in layers.inputs(targets).items():
        weight = readers[0].module.weight
        n = weight.shape[1]
        if n not in one:
            generator = torch.Generator(weight.device).manual_seed(n)
            one[n] = torch.linalg.qr(torch.randn(n, n, generator=generator, device=weight.device))[0]
        u[name] = one[n].clone()
    generators = {d: torch.Generator(d).manual_seed(1) for d in {x.module.weight.device for x in targets}}
    frozen = {}
    for x in targets:
        device = x.module.weight.device
        frozen[x.name] = torch.rand(x.module.weight.shape, generator=generators[device], device=device) < FREEZE
    return u, frozen


# ---- the sides ------------------------------------------------------------------------------------


def stepper(
    side: str, shape: Shape, micro: int, length: int, accumulation: int, *, device: str = "cpu",
    precision: str = "fp32", checkpointing: bool = False,
) -> Callable[[], None]:  # fmt: skip
    """One optimizer step of full-parameter training: forward, backward, clipping, update.

    `precision` as in a study: fp32, bf16 (products in bfloat16, float32 masters), pure_bf16.
    """
    model = shape.model(device)
    model = model.bfloat16() if precision == "pure_bf16" else model
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    targets = layers.resolve(model, MODULES)
    work = [{k: v.to(device) for k, v in b.items()} for b in batches(rows(shape, micro * accumulation, length), micro)]
    settings = {"lr": 1e-4, "weight_decay": 0.0}
    u, frozen = random_rotations(targets) if side != PLAIN else ({}, {})
    u = {name: x.to(model.dtype) for name, x in u.items()}
    if side in (OURS, LEAD, UPDATE):
        rotations = {x.module.weight: Rotation(u[x.input], frozen[x.name]) for x in targets}
        if side != OURS:
            held = {name: x[:, : masks.leading(len(x), HELD)].contiguous() for name, x in u.items()}
            rotations = {x.module.weight: Rotation(held[x.input], None, None, True, side == LEAD) for x in targets}
            del u, frozen
        optimizer = RotatedAdamW(model.parameters(), rotations, max_grad_norm=1.0, **settings)
    else:
        if side == PUBLISHED:
            published.swap(model, targets, u, frozen)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True, **settings)  # as the training loop's

    def step() -> None:
        for batch in work:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(**folders.supervised(model, batch), use_cache=False).loss / accumulation
            loss.backward()
        if not isinstance(optimizer, RotatedAdamW):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def step_case(shape: Shape, micro: int, length: int, accumulation: int) -> dict[str, Callable[[], Any]]:
    return {s: stepper(s, shape, micro, length, accumulation) for s in (PLAIN, OURS, PUBLISHED)}


def lead_case(shape: Shape, side: str, step: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    """A step that holds leading directions beside a plain one."""
    return {PLAIN: stepper(PLAIN, shape, *step), OURS: stepper(side, shape, *step)}


def directions_case(shape: Shape) -> dict[str, Callable[[], Any]]:
    """Decomposition alone: published, one `svd` of every target module's Gram matrix; ours, the leading directions of
    every distinct input."""
    model = shape.model()
    targets = layers.resolve(model, MODULES)
    grams, _ = gram.capture(model, targets, rows(shape, 32, 128), batch_size=8, pad_id=0)
    return {
        OURS: lambda: [basis.held(g, name, HELD) for name, g in grams.items()],
        PUBLISHED: lambda: [torch.linalg.svd(grams[x.input])[0] for x in targets],
    }


def importance_case(shape: Shape) -> dict[str, Callable[[], Any]]:
    """Importance over 8 batches of 2 x 128; plain is one forward and backward with weight gradients."""
    model = shape.model()
    targets = layers.resolve(model, MODULES)
    u, _ = random_rotations(targets)
    encoded = rows(shape, 16, 128)
    work = [folders.supervised(model, b) for b in batches(encoded, 2)]

    def plain() -> None:
        for batch in work:
            model.zero_grad()
            model(**batch, use_cache=False).loss.backward()
        model.zero_grad()

    return {
        PLAIN: plain,
        OURS: lambda: importance.score(model, targets, u, encoded, batch_size=2, pad_id=0),
        PUBLISHED: lambda: published.importance(model, targets, u, work),
    }


def basis_case(shape: Shape) -> dict[str, Callable[[], Any]]:
    """Activation capture over 32 x 128 tokens and the bases of all target modules."""
    model = shape.model()
    targets = layers.resolve(model, MODULES)
    encoded = rows(shape, 32, 128)

    def ours() -> dict[str, torch.Tensor]:
        grams, _ = gram.capture(model, targets, encoded, batch_size=8, pad_id=0)
        return {name: basis.from_gram(g)[0] for name, g in grams.items()}

    def capture() -> None:
        gram.capture(model, targets, encoded, batch_size=8, pad_id=0)

    return {OURS: ours, PUBLISHED: lambda: published.bases(model, targets, batches(encoded, 8)), CAPTURE: capture}


def merge_case(shape: Shape, folder: Path) -> dict[str, Callable[[], Any]]:
    """RESTA of three checkpoints; plain is copying the same bytes: three files read, one written."""
    checkpoints = merged_from(folder)
    for i, path in enumerate(checkpoints.values()):
        model = shape.model()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01 * i)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(path.parent)
        folders.stamp(path, {"role": path.parent.name})  # sealed, as the models of a study are

    def copying() -> None:
        for role, path in checkpoints.items():
            shutil.copyfile(path, folder / f"copy-{role}")

    return {PLAIN: copying, OURS: lambda: merge(folder)}


def merged_from(folder: Path) -> dict[str, Path]:
    """Where the three checkpoints of a merge lie in a folder, by role."""
    return {role: folder / role / "model.safetensors" for role in ("finetuned", "aligned", "unaligned")}


def merge(folder: Path) -> None:
    """RESTA of the checkpoints that `merge_case` left in a folder."""
    cfg = {"method": "resta", "settings": {}, "seed": 0}
    places = {role: path.parent for role, path in merged_from(folder).items()}
    driver.run(checkpoints=places, cfg=cfg, folder=folder / "merged", record_file=folder / "merged.json")


def generation_case(shape: Shape) -> dict[str, Callable[[], Any]]:
    """Greedy answers to 64 prompts of 16 to 48 tokens, 32 new tokens each; published is one prompt at a time.
    Both sides return the token ids, which must be equal."""
    from transformers import GenerationConfig

    model = shape.model()
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(16, 49, (64,), generator=generator).tolist()
    prompts = [torch.randint(3, shape.vocabulary, (n,), generator=generator).tolist() for n in lengths]
    config = GenerationConfig(do_sample=False, max_new_tokens=32, eos_token_id=2, pad_token_id=0, bos_token_id=1)

    @torch.inference_mode()
    def one_at_a_time() -> list[list[int]]:
        out = []
        for ids in prompts:
            batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            new = model.generate(**batch, generation_config=config)[0, len(ids) :].tolist()
            out.append(new[: new.index(2)] if 2 in new else new)
        return out

    def ours() -> list[list[int]]:
        from holdfast.evaluate import answers

        return [
            ids for ids, _ in answers.generate(model, prompts, stops=[2], pad_id=0, max_new_tokens=32, batch_size=64)
        ]

    return {OURS: ours, PUBLISHED: one_at_a_time}


# ---- measuring ------------------------------------------------------------------------------------


def interleave(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every side in every round; the order turns by one from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    names = list(sides)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            gc.collect()
            started = time.process_time()
            sides[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def operations(sides: dict[str, Callable[[], Any]]) -> dict[str, int]:
    """Operations of the matrix products of one call of every side."""
    from torch.utils.flop_counter import FlopCounterMode

    out = {}
    for name, side in sides.items():
        with FlopCounterMode(display=False) as counter:
            side()
        out[name] = counter.get_total_flops()
    return out


def _ratio(a: list[float], b: list[float]) -> dict[str, float]:
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return {"median": statistics.median(ratios), "low": low, "high": high}


def summarize(name: str, shape: Shape, seconds: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """One entry of bench.json: median seconds per side and the ratios of ours."""
    out = {"name": name, "shape": asdict(shape)} | {k: statistics.median(v) for k, v in seconds.items()}
    for other in (PLAIN, PUBLISHED):
        if other in seconds:
            out[f"ratio_to_{other}"] = _ratio(seconds[OURS], seconds[other])
    if CAPTURE in seconds:
        out["floor_to_published"] = out[CAPTURE] / out[PUBLISHED]
    return out | more


def floors(counted: dict[str, int]) -> dict[str, Any]:
    """What the ratios would be if every operation cost the same and nothing else cost anything."""
    return {"operations": counted} | {
        f"floor_to_{other}": counted[OURS] / counted[other] for other in (PLAIN, PUBLISHED) if other in counted
    }


def peak_memory(side: str, shape: Shape, step: tuple[int, int, int]) -> int:
    """Peak resident bytes of two optimizer steps, in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.bench", "--memory-of", side, "--shapes", shape.name]
    return int(
        subprocess.run([*command, "--step", *map(str, step)], check=True, capture_output=True, encoding="utf-8").stdout
    )


def merge_memory(shape: Shape) -> dict[str, Any]:
    """Anonymous memory that RESTA adds to a process of its own, against the three largest tensors."""
    with tempfile.TemporaryDirectory() as folder:
        merge_case(shape, Path(folder))
        command = [sys.executable, "-m", "benchmarks.bench", "--memory-of", "merge", "--out", folder]
        grown = int(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
    sizes = sorted((p.numel() * p.element_size() for p in shape.model("meta").parameters()), reverse=True)
    return {
        "name": "memory of a merge", "shape": asdict(shape), OURS: grown, "three_largest": sum(sizes[:3]),
        "model": sum(sizes), "ratio_to_three_largest": grown / sum(sizes[:3]),
    }  # fmt: skip


def grown_by(work: Callable[[], Any]) -> int:
    """Bytes of anonymous memory at the peak of `work` above those before it; looked at every millisecond."""

    def anonymous() -> int:
        line = next(
            x for x in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if x.startswith("RssAnon")
        )
        return int(line.split()[1]) * 1024

    done, before = threading.Event(), anonymous()
    peak = [before]

    def watch() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak[0] - before


def run(shapes: list[Shape], rounds: int, only: str) -> list[dict[str, Any]]:
    """All cases whose name contains `only`."""
    entries: list[dict[str, Any]] = []

    def add(name: str, shape: Shape, make: Callable[[], dict[str, Callable[[], Any]]], times: int, **more) -> None:
        if only in name:
            print(f"{name}, {shape.name} ...", file=sys.stderr, flush=True)
            sides = make()
            entry = summarize(name, shape, interleave(sides, times), **more)
            entries.append(
                entry | (floors(operations(sides)) if name.startswith(("step", "importance", "lead")) else {})
            )

    for shape in shapes:
        for step in STEPS:
            add(f"step {'x'.join(map(str, step))}", shape, lambda s=shape, t=step: step_case(s, *t), rounds)
        add("importance", shape, lambda s=shape: importance_case(s), rounds)
        add("basis", shape, lambda s=shape: basis_case(s), max(2, rounds // 3))
        with tempfile.TemporaryDirectory() as folder:
            add("merge", shape, lambda s=shape, f=folder: merge_case(s, Path(f)), rounds)
        for side, step in itertools.product((LEAD, UPDATE), STEPS):
            name = f"{side} {'x'.join(map(str, step))}"
            add(name, shape, lambda s=shape, w=side, t=step: lead_case(s, w, t), rounds)
        add("directions", shape, lambda s=shape: directions_case(s), max(2, rounds // 3))
        add("generation", shape, lambda s=shape: generation_case(s), max(2, rounds // 3))
        if only in "memory of a step":
            print(f"memory, {shape.name} ...", file=sys.stderr, flush=True)
            peaks = {side: peak_memory(side, shape, STEPS[0]) for side in (PLAIN, OURS, PUBLISHED)}
            targets = layers.resolve(shape.model(), MODULES)
            u, frozen = random_rotations(targets)
            allowed = sum(x.numel() * 4 for x in u.values()) + sum(x.numel() // 8 for x in frozen.values())
            entries.append(
                {"name": "memory of a step", "shape": asdict(shape), **peaks, "bases_and_mask_bits": allowed}
                | {"ratio_to_plain_and_bases": peaks[OURS] / (peaks[PLAIN] + allowed)}
                | {"ratio_to_published": peaks[OURS] / peaks[PUBLISHED]}
            )
        if only in "memory of lead":
            print(f"memory of lead, {shape.name} ...", file=sys.stderr, flush=True)
            peaks = {side: peak_memory(side, shape, STEPS[0]) for side in (PLAIN, LEAD)}
            ratio = {"ratio_to_plain": peaks[LEAD] / peaks[PLAIN]}
            entries.append({"name": "memory of lead", "shape": asdict(shape), **peaks} | ratio)
    if only in "memory of a merge":
        print("memory of a merge ...", file=sys.stderr, flush=True)
        entries.append(merge_memory(SHAPES["tiny" if shapes == [SHAPES["tiny"]] else "wide"]))
    return entries


def verdict(entry: dict[str, Any]) -> str:
    """What the target asks of an entry, and what it got."""
    out = []
    for name, (key, limit) in TARGETS.items():
        if name.split(",")[0] == entry["name"] and key in entry:
            got = entry[key]["median"] if isinstance(entry[key], dict) else entry[key]
            floor = entry.get(key.replace("ratio", "floor"))
            least = "" if floor is None else f", floor {floor:.2f}"
            out.append(f"{'met' if got <= limit else 'MISSED'}: {key} {got:.2f}, target {limit:.2f}{least}")
    return "; ".join(out)


def table(entries: list[dict[str, Any]]) -> str:
    """The entries as lines of text, ratios of ours with quartiles."""

    def ratio(entry: dict[str, Any], other: str) -> str:
        r = entry.get(f"ratio_to_{other}")
        if r is None:
            return ""
        return f"{r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" if isinstance(r, dict) else f"{r:.2f}"

    lines = [f"{'case':20} {'shape':14} {'ours / plain':>20} {'ours / published':>20}  target"]
    for e in entries:
        lines.append(
            f"{e['name']:20} {e['shape']['name']:14} {ratio(e, PLAIN):>20} {ratio(e, PUBLISHED):>20}  {verdict(e)}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["prototype", "grouped-query"], choices=sorted(SHAPES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"))
    parser.add_argument("--memory-of", choices=(PLAIN, OURS, PUBLISHED, LEAD, UPDATE, "merge"), help=argparse.SUPPRESS)
    parser.add_argument("--step", nargs=3, type=int, default=STEPS[0], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    shapes = [SHAPES[name] for name in args.shapes]
    if args.memory_of == "merge":
        print(grown_by(lambda: merge(args.out)))
        return
    if args.memory_of:
        step = stepper(args.memory_of, shapes[0], *args.step)
        step()
        step()
        print(provenance.peak_resident())
        return
    entries = run(shapes, args.rounds, args.only)
    machine = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    jsonfiles.write_json(args.out, {"machine": machine, "entries": entries})
    print(table(entries))
    print(f"\n{args.out}")


if __name__ == "__main__":
    main()
