"""Trained methods against plain float64 forms of what was published, written here from the papers and from what the
authors' code does, without our library. Each fails when the equation is changed."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from test_methods import cell  # noqa: F401 - a fixture

from holdfast.model import chat, folders
from holdfast.record import artifact, tables
from holdfast.study import arms, registry
from holdfast.train import loop
from holdfast.warp import families, masks
from holdfast.warp.basis import random_orthogonal


@pytest.mark.parametrize("seed", [0, 1])
def test_safety_mix_draws_what_the_published_script_draws(seed):
    method = registry.load("safety-mix")
    task = [{"prompt": f"t{i}", "response": "r"} for i in range(90)]
    pool = [{"prompt": f"s{i}", "response": "no", "kind": "craft" if i % 3 == 0 else "hazard"} for i in range(60)]
    refusals = [r for r in pool if r["kind"] == "hazard"]
    rows = method.rows(task, method.Settings(ratio=0.1, draw="published"), seed=seed, safety=pool)
    assert rows == task + random.Random(42).sample(refusals, 9)
    assert rows != method.rows(task, method.Settings(ratio=0.1), seed=seed, safety=pool)


# ---- LoRA and LoRA-WSR ----------------------------------------------------------------------------


def _random_adapters(model):
    stream = torch.Generator().manual_seed(5)
    for p in (p for p in model.parameters() if p.requires_grad):
        torch.nn.init.normal_(p, std=0.3, generator=stream)


def test_lora_adds_alpha_over_rank_times_b_a(model):
    method, settings = registry.load("lora"), registry.load("lora").Settings(rank=3, alpha=12)
    start = {k: v.double().clone() for k, v in model.state_dict().items()}
    wrapped = method.attach(model, [], settings)
    _random_adapters(wrapped)
    a, b = ({n.split(f".lora_{x}.")[0]: p.detach().double() for n, p in wrapped.named_parameters() if f"lora_{x}" in n}
            for x in "AB")  # fmt: skip
    out = method.fold(wrapped, settings).state_dict()
    assert len(a) == 14
    for name, value in out.items():
        found = [k for k in a if f"{k}.weight".endswith(name)]
        want = start[name] + sum(12 / 3 * b[k] @ a[k] for k in found)
        assert torch.allclose(value.double(), want, atol=1e-5) and (not found or (value - start[name]).abs().max() > 1)


@pytest.mark.parametrize("constraint", ["mask", "directions"])
def test_lora_wsr_is_its_formula_in_forward_and_fold(constraint, cell):  # noqa: F811
    model, targets, needs = cell
    method = registry.load("lora-wsr")
    settings = method.Settings(rank=3, alpha=12, constraint=constraint, freeze_fraction=0.25)
    start = {x.name: x.module.weight.detach().double().clone() for x in targets}
    method.attach(model, targets, settings, **needs)
    _random_adapters(model)
    for x in targets:
        module = model.get_submodule(x.name)
        u, product = needs["basis"][x.input].double(), module.b.detach().double() @ module.a.detach().double()
        if constraint == "mask":
            change = torch.where(needs["mask"][x.name].bools, 0.0, 12 / 3 * product) @ u.T
        else:
            leading = u[:, : round(0.25 * len(u))]
            change = 12 / 3 * product @ (torch.eye(len(u)).double() - leading @ leading.T)
        inputs = torch.randn(4, len(u), dtype=torch.float64)
        out = module(inputs.float()).detach().double()
        assert torch.allclose(out, inputs @ (start[x.name] + change).T, atol=1e-4)
        start[x.name] = start[x.name] + change
        assert change.abs().max() > 0.5
    folded = method.fold(model, settings).state_dict()
    assert all(torch.allclose(folded[x.weight].double(), start[x.name], atol=1e-5) for x in targets)


# ---- WaRP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "unit"), [("all", False), ("prompt", False), ("response", False), ("all", True)])
def test_the_gram_matrix_sums_over_the_tokens_of_refusals(tokens, unit, model, tokenizer, world, tmp_path):
    """What block 0 reads is the embedding over its root mean square, times the norm's weight: written out here."""
    with torch.no_grad():
        torch.nn.init.uniform_(model.model.layers[0].input_layernorm.weight, 0.5, 2.0)
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    rows = world.safety(20, 20)
    tables.write(rows, tmp_path / "safety.parquet", "safety")
    cfg = {"modules": ["q_proj", "up_proj"], "rows": 12, "tokens": tokens} | ({"unit": True} if unit else {})
    families.build_gram(tmp_path / "aligned/model.safetensors", tmp_path / "safety.parquet", cfg, tmp_path / "g", print)
    grams, header = artifact.read(tmp_path / "g", family="gram")
    weight = model.model.layers[0].input_layernorm.weight.detach().double().numpy()
    table, want, count = model.model.embed_tokens.weight.detach().double().numpy(), np.zeros((32, 32)), 0
    for row in [r for r in rows if r["kind"] == "hazard"][:12]:
        encoded = chat.encode(tokenizer, row["prompt"], row["response"])
        for token, label in zip(encoded["input_ids"], encoded["labels"], strict=True):
            if tokens == "all" or (label == chat.IGNORE) == (tokens == "prompt"):
                x = table[token]
                h = weight * x / math.sqrt((x**2).mean() + model.config.rms_norm_eps)
                h = h / np.sqrt((h**2).sum()) if unit else h
                want += np.outer(h, h)
                count += 1
    assert header["tokens"] == count
    assert np.allclose(grams["blocks.0.attention_input"].double().numpy(), want, rtol=1e-4, atol=1e-3)


def _scores(tmp_path):
    """An importance file of three layers whose scores differ by orders of magnitude."""
    shapes = {"a": (8, 10), "b": (12, 10), "c": (6, 20)}
    rng, scale = np.random.default_rng(0), {"a": 1.0, "b": 30.0, "c": 0.1}
    scores = {k: (scale[k] * rng.random(s) ** 3).astype(np.float32) for k, s in shapes.items()}
    header = {"layers": list(shapes), "aligned": "x", "basis_file": None}
    artifact.write(tmp_path / "scores", {k: torch.from_numpy(v) for k, v in scores.items()}, family="importance",
                   header=header)  # fmt: skip
    return scores


def _frozen(tmp_path, seed=0, **options):
    """The mask that the settings of a WaRP arm lead to."""
    settings = registry.load("warp").Settings(freeze_fraction=0.2, **options)
    spec = settings.artifacts()["mask"] | {"minus_task": None}
    families.build_mask(tmp_path / "scores", arms.MaskSpec(**spec).model_dump(), seed, tmp_path / "mask")
    bits, header = artifact.read(tmp_path / "mask", family="mask", torch=False)
    return {k: masks.unpack(bits[k], header["shapes"][k]) for k in header["layers"]}


def _largest(values, k):
    """Which of these are the k largest, as a set of keys; the values differ."""
    return set(sorted(values, key=values.get)[len(values) - k :])


@pytest.mark.parametrize("unit", ["entry", "column", "row"])
def test_warp_freezes_the_most_important_of_each_module(unit, tmp_path):
    scores = _scores(tmp_path)
    frozen = _frozen(tmp_path, unit=unit)
    for name, s in scores.items():
        m, n = s.shape
        entries = {(i, j): float(s[i, j]) for i in range(m) for j in range(n)}
        if unit == "entry":
            want = _largest(entries, round(0.2 * m * n))
        elif unit == "column":
            columns = _largest({j: math.hypot(*s[:, j]) for j in range(n)}, round(0.2 * n))
            want = {e for e in entries if e[1] in columns}
        else:
            rows = _largest({i: math.hypot(*s[i]) for i in range(m)}, round(0.2 * m))
            want = {e for e in entries if e[0] in rows}
        assert {(int(i), int(j)) for i, j in np.argwhere(frozen[name])} == want


def test_one_threshold_for_the_model_is_one_threshold(tmp_path):
    scores = _scores(tmp_path)
    frozen = _frozen(tmp_path, threshold="model")
    entries = {(k, i, j): float(x) for k, s in scores.items() for (i, j), x in np.ndenumerate(s)}
    want = _largest(entries, round(0.2 * len(entries)))
    assert {(k, int(i), int(j)) for k, m in frozen.items() for i, j in np.argwhere(m)} == want
    assert [round(frozen[k].mean(), 1) for k in "abc"] != [0.2, 0.2, 0.2]


@pytest.mark.parametrize("threshold", ["layer", "model"])
def test_a_random_mask_knows_nothing_of_importance(threshold, tmp_path):
    scores, hits = _scores(tmp_path), []
    for seed in range(40):
        frozen = _frozen(tmp_path, seed, mask="random", threshold=threshold)
        assert sum(m.sum() for m in frozen.values()) == round(0.2 * 320)
        hits.append(np.mean([frozen[k][scores[k] >= np.quantile(scores[k], 0.8)].mean() for k in scores]))
    assert abs(np.mean(hits) - 0.2) < 0.03  # as many of the important ones as of all


@pytest.mark.parametrize("sides", ["input", "both", "output"])
def test_warp_trains_coefficients_as_the_published_forward_form(sides, cell, tokenizer, encoded, tmp_path):  # noqa: F811
    """Two epochs of a whole model in the coordinates C = Vᵀ W U against AdamW on C itself, in float64."""
    model, targets, needs = cell
    basis = {} if sides == "output" else dict(needs["basis"])
    if sides != "input":
        basis |= {x.name: random_orthogonal(x.module.weight.shape[0], 2 + i) for i, x in enumerate(targets)}
    reference = copy.deepcopy(model).double()
    method, settings = registry.load("warp"), registry.load("warp").Settings()
    training = loop.TrainSettings(learning_rate=5e-3, epochs=4, batch_size=len(encoded), warmup_fraction=0.0)
    method.attach(model, targets, settings)
    optimizer = method.optimizer(model, targets, settings, training, basis=basis, mask=needs["mask"])
    loop.train(
        model, tokenizer, encoded, training, seed=0, log_file=tmp_path / "t", checkpoints=tmp_path / "c", identity="x",
        optimizer=optimizer, clips_itself=True,
    )  # fmt: skip
    weights = dict(reference.named_parameters())
    v = {x.name: basis.get(x.name, torch.eye(x.module.weight.shape[0])).double() for x in targets}
    u = {x.name: basis.get(x.input, torch.eye(x.module.weight.shape[1])).double() for x in targets}
    c = {x.name: (v[x.name].T @ weights[x.weight].detach() @ u[x.name]).requires_grad_() for x in targets}
    adam = torch.optim.AdamW(c.values(), lr=5e-3, weight_decay=0.0)
    batch = chat.collate(encoded, tokenizer.pad_token_id)
    for step in range(4):
        adam.param_groups[0]["lr"] = 5e-3 * 0.5 * (1 + math.cos(math.pi * step / 4))
        made = {}
        for x in targets:
            free = torch.where(needs["mask"][x.name].bools, c[x.name].detach(), c[x.name])
            made[x.weight] = v[x.name] @ free @ u[x.name].T
        loss = torch.func.functional_call(reference, made, kwargs=dict(batch)).loss
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(c.values(), 1.0)
        adam.step()
    for x in targets:
        want = v[x.name] @ c[x.name].detach() @ u[x.name].T
        assert torch.allclose(model.state_dict()[x.weight].double(), want, atol=5e-4)
        assert (want - weights[x.weight]).abs().max() > 5e-3
