"""The fast paths against the plain implementation of the published algorithm, on a whole model in float64."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from conftest import ROOT

from benchmarks import bench, designs, overhead, published, rounding, scale, stall
from holdfast.model import folders, layers
from holdfast.warp import basis, gram, importance
from holdfast.warp.optimizer import RotatedAdamW, Rotation

MODULES = bench.MODULES


@pytest.fixture
def problem(model, encoded):
    """(model in float64, target modules, input name -> U, layer name -> mask, batches)."""
    model = model.double()
    targets = layers.resolve(model, MODULES)
    u = {
        name: torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0]
        for name, n in ((k, readers[0].module.in_features) for k, readers in layers.inputs(targets).items())
    }
    frozen = {x.name: torch.rand(x.module.weight.shape) < 0.3 for x in targets}
    return model, targets, u, frozen, bench.batches(encoded, 6)


def test_a_model_trains_along_the_published_trajectory(problem):
    """Accumulation over two batches, clipping, everything trainable, weight decay 0 as published."""
    model, targets, u, frozen, batches = problem
    other = copy.deepcopy(model)
    others = layers.resolve(other, MODULES)
    swapped = published.swap(other, others, u, frozen)
    reference = torch.optim.AdamW(other.parameters(), lr=3e-3, weight_decay=0.0)
    rotations = {x.module.weight: Rotation(u[x.input], frozen[x.name]) for x in targets}
    ours = RotatedAdamW(model.parameters(), rotations, lr=3e-3, max_grad_norm=1.0)
    start = {x.name: x.module.weight.detach().clone() for x in targets}
    for i in range(0, len(batches), 2):
        for batch in batches[i : i + 2]:
            (other(**batch, use_cache=False).loss / 2).backward()
            (model(**folders.supervised(model, batch), use_cache=False).loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        reference.step()
        ours.step()
        for optimizer in (reference, ours):
            optimizer.zero_grad()
        for x in targets:
            assert torch.allclose(x.module.weight, swapped[x.name].weight, atol=1e-11, rtol=0)
    assert all((x.module.weight - start[x.name]).abs().max() > 1e-3 for x in targets)
    published.restore(other, others, swapped)
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-11, rtol=0), name


def test_importance_equals_the_gradient_of_swapped_modules(problem, encoded):
    model, targets, u, _, batches = problem
    before = {name: p.clone() for name, p in model.named_parameters()}
    expected = published.importance(model, targets, u, batches)
    ours = importance.score(model, targets, u, encoded, batch_size=6, pad_id=0)
    for x in targets:
        assert torch.allclose(ours[x.name].double(), expected[x.name], atol=1e-6 * expected[x.name].max())
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name], atol=1e-12), name


def test_bases_span_the_same_spaces_as_one_svd_per_module(model, encoded):
    """Columns may differ in sign, and within equal eigenvalues in direction: the leading projectors agree."""
    targets = layers.resolve(model, MODULES)
    theirs = published.bases(model, targets, bench.batches(encoded, 8))
    grams, _ = gram.capture(model, targets, encoded, batch_size=8, pad_id=0)
    ours = {name: basis.from_gram(g) for name, g in grams.items()}
    for x in targets:
        u, values = ours[x.input]
        gaps = values[:-1] / values[1:].clamp(min=1e-12)
        k = int(gaps[: len(gaps) // 2].argmax()) + 1
        a, b = u[:, :k] @ u[:, :k].T, theirs[x.name][:, :k] @ theirs[x.name][:, :k].T
        assert torch.allclose(a, b, atol=1e-3), (x.name, k)


def test_batched_generation_is_that_of_one_prompt_at_a_time():
    sides = bench.generation_case(bench.SHAPES["tiny"])
    ours, alone = sides[bench.OURS](), sides[bench.PUBLISHED]()
    assert ours == alone


def test_the_benchmark_writes_what_it_measured(tmp_path):
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--shapes", "tiny", "--rounds", "2", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    entries = json.loads(out.read_text())["entries"]
    names = {e["name"] for e in entries}
    assert {"step 4x128x4", "importance", "basis", "merge", "generation", "memory of a step"} <= names
    for entry in entries:
        if entry["name"].startswith("step"):
            assert entry["ours"] > 0 and entry["ratio_to_plain"]["low"] <= entry["ratio_to_plain"]["median"]
            assert entry["name"] in done.stdout
            count = entry["operations"]
            assert entry["floor_to_plain"] == count["ours"] / count["plain"] > 1 >= entry["floor_to_published"] > 0
    assert "floor" in done.stdout


def test_the_floor_of_a_step_is_two_products_per_module():
    """4 Σ m n² operations more than plain: dL/dW U and ΔC Uᵀ."""
    shape = bench.SHAPES["tiny"]
    counted = bench.operations(bench.step_case(shape, 2, 16, 1))
    targets = layers.resolve(shape.model(), MODULES)
    more = sum(4 * x.module.weight.shape[0] * x.module.weight.shape[1] ** 2 for x in targets)
    assert counted["ours"] - counted["plain"] == more


@pytest.mark.parametrize(("side", "times"), [(bench.LEAD, 8), (bench.UPDATE, 4)])
def test_the_floor_of_holding_directions_is_two_products_with_k_of_them(side, times):
    """4 Σ m n k operations for the update, as many for the gradient."""
    shape = bench.SHAPES["tiny"]
    counted = bench.operations(bench.lead_case(shape, side, (2, 16, 1)))
    sizes = (x.module.weight.shape for x in layers.resolve(shape.model(), MODULES))
    assert counted["ours"] - counted["plain"] == sum(times * m * n * round(bench.HELD * n) for m, n in sizes)


def test_the_cost_at_scale_is_counted_from_its_parts(monkeypatch):
    """What is run on a GPU at the shape of a 7B model, here tiny on the CPU."""
    shape = bench.SHAPES["tiny"]
    entries = {e["name"]: e for e in scale.run(shape, "cpu", 1, "")}
    assert list(entries) == ["basis", "importance", "step bf16", "step pure_bf16"]
    found = entries["basis"]
    assert found["decompositions"] == {32: 2 * shape.blocks, 48: shape.blocks}  # 3 distinct inputs a block, 5 modules
    assert found["ours"] == sum(found["of_one"]["ours"][n] * count for n, count in found["decompositions"].items())
    assert found["published"] == 8 * found["of_one"]["published"][32] + 2 * found["of_one"]["published"][48]
    for name in ("step bf16", "step pure_bf16"):
        assert entries[name]["ratio_to_plain"] == entries[name]["ours"] / entries[name]["plain"]
    text = scale.table(list(entries.values()))
    assert "target 150 s" in text and "target 1.15" in text and "met" not in text  # a tiny model meets nothing
    whole = {"shape": asdict(scale.SHAPE), "name": "importance"}
    assert scale.verdict(whole | {"ours": 149.0}).startswith("met")
    assert scale.verdict(whole | {"ours": 151.0}).startswith("MISSED")

    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scale, "stepper", too_large)
    (entry,) = scale.run(shape, "cpu", 1, "step bf16")
    assert entry["ours"] is None and scale.verdict(entry) == "did not fit into memory" and " - " in scale.table([entry])


def test_the_stall_shows_at_the_published_rates_and_not_with_float32_masters():
    for rotated in (False, True):
        shares = [stall.moved(torch.bfloat16, lr, steps=60, n=48, rotated=rotated) for lr in (1e-6, 1e-5, 5e-5)]
        assert shares == sorted(shares) and shares[0] < 0.05 and shares[1] < 0.2 < shares[2] < 0.7
        assert stall.moved(torch.float32, 1e-6, steps=60, n=48, rotated=rotated) > 0.99


def test_the_share_of_compute_comes_from_the_logs(tmp_path, monkeypatch, capsys):
    ran = ("replicate1/base", 110, 8, 2), ("finetune/a", 118, 6, 2), ("compare", 119, 1, 0.5)
    for name, end, worked, started in ran:
        log = tmp_path / f"logs/x/{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"something\nworked {worked:.2f} s, after {started:.2f} s to start\n")
        os.utime(log, (end, end))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["overhead", "x"])
    assert overhead.main() == 0
    out = capsys.readouterr().out
    assert "wall 19 s on 2 cores" in out  # from 100, when base was started, to 119
    assert "74% of the wall time, 58% of the core seconds" in out  # 14 of 19; (2 * 8 + 6) of 38
    assert overhead.covered([(0, 2), (1, 3), (5, 6)]) == 4


def test_the_bits_of_a_processor_are_the_same_twice_and_hang_on_its_instructions(monkeypatch, capsys):
    """One line per setting: what no setting changed is what this process computes."""
    plain, seconds = rounding.measure()
    assert plain == rounding.measure()[0] and len(set(plain)) == len(plain) == len(rounding.COLUMNS) and seconds > 0
    monkeypatch.setattr(rounding, "SETTINGS", ({}, {"ATEN_CPU_CAPABILITY": "default"}))
    monkeypatch.setattr(sys, "argv", ["rounding"])
    monkeypatch.chdir(ROOT)
    assert rounding.main() == 0
    _, own, other = capsys.readouterr().out.splitlines()
    assert own.split()[1:-1] == plain and other.split()[:1] == ["ATEN_CPU_CAPABILITY=default"]
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert other.split()[1:-1] != plain


def test_the_error_of_a_mean_over_bases_aligned_models_and_fine_tunings():
    """Variances 4, 2 and 1: of one model the root of 7, of 2 x 3 x 5 models that of 4 / 2 + 2 / 6 + 1 / 30."""
    found = designs.errors(4, 2, 1, [(1, 1, 1), (2, 3, 5)])
    assert found == pytest.approx([7**0.5, (2 + 1 / 3 + 1 / 30) ** 0.5])
