"""Safety neurons: importance against brute-force removal, and what the two methods hold fixed."""

from __future__ import annotations

import pytest
import torch

from holdfast import names
from holdfast.model import folders, layers
from holdfast.record import artifact, tables
from holdfast.study import registry
from holdfast.train import loop, neurons
from holdfast.warp.bits import BitMask


@torch.no_grad()
def _without(model, module, channel, run):
    """run() with one output channel of a linear module silenced."""
    weight = module.weight[channel].clone()
    module.weight[channel] = 0
    out = run()
    module.weight[channel] = weight
    return out


def _captured(model, module, ids):
    """The first output of a module (attention weights: the second)."""
    kept = []
    handle = module.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    handle.remove()
    return kept[0]


@pytest.fixture
def eager(tokenizer):
    """A model that returns its attention weights, with grouped-query attention."""
    from holdfast.world.model import new_model

    m = new_model(
        tokenizer, hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2, max_positions=256, seed=0
    )
    m.set_attn_implementation("eager")
    return m.eval()


def test_importance_of_mlp_channels_equals_their_removal(eager, encoded):
    ids = torch.tensor([encoded[0]["input_ids"]])
    values = neurons.importance(eager, encoded[0])
    mlp = eager.model.layers[0].mlp
    full = _captured(eager, mlp, ids)
    for channel in (0, 7, 31):
        removed = _without(eager, mlp.up_proj, channel, lambda: _captured(eager, mlp, ids))
        want = (full - removed).pow(2).sum()
        assert torch.allclose(values["blocks.0.mlp"][channel], want, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("kind", "group"), [("q_proj", "q"), ("k_proj", "k")])
def test_importance_of_query_and_key_channels_equals_their_removal(kind, group, eager, encoded):
    ids = torch.tensor([encoded[1]["input_ids"]])
    values = neurons.importance(eager, encoded[1])
    attention = eager.model.layers[0].self_attn
    full = _captured(eager, attention, ids)[1]
    for channel in (0, 3, 5, 13):
        removed = _without(eager, getattr(attention, kind), channel, lambda: _captured(eager, attention, ids))[1]
        want = (full - removed).pow(2).sum()
        assert torch.allclose(values[f"blocks.0.{group}"][channel], want, rtol=1e-3, atol=1e-10)


def _block(model, encoded):
    """What block 0 computes for one sample, in float64 and written out: q and k after the rotary embedding and v, by
    head (heads, T, d), the attention weights and what gate and up give."""
    seen, block, config = {}, model.model.layers[0], model.config
    hooks = [
        module.register_forward_pre_hook(lambda _, args, part=part: seen.update({part: args[0][0]}))
        for part, module in (("self_attn", block.self_attn.q_proj), ("mlp", block.mlp.up_proj))
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([encoded["input_ids"]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    w = {k: v.double() for k, v in block.state_dict().items()}
    x, heads, kv = seen["self_attn"].double(), config.num_attention_heads, config.num_key_value_heads
    d = config.hidden_size // heads
    q, k, v = ((x @ w[f"self_attn.{n}_proj.weight"].T).view(len(x), -1, d).transpose(0, 1) for n in ("q", "k", "v"))
    angle = torch.arange(len(x))[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)[None, :]
    cos, sin = angle.double().cos(), angle.double().sin()

    def rotated(z):
        first, second = z[..., : d // 2], z[..., d // 2 :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    q, k = rotated(q), rotated(k)
    read_by = [h // (heads // kv) for h in range(heads)]
    up = seen["mlp"].double() @ w["mlp.up_proj.weight"].T
    gate = seen["mlp"].double() @ w["mlp.gate_proj.weight"].T
    return q, k, v, read_by, up, gate, w


def _weights(scores):
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


def test_the_public_detectors_scores_channel_by_channel(eager, encoded):
    q, k, v, read_by, up, _, _ = _block(eager, encoded[1])
    d, found = q.shape[-1], neurons.importance(eager, encoded[1], "code")
    by_q, by_k, by_v = torch.zeros(len(q), d), torch.zeros(len(k), d), torch.zeros(len(v), d)
    for head, kv in enumerate(read_by):
        scores = q[head] @ k[kv].T / d**0.5
        attended = _weights(scores) @ v[kv]
        for j in range(d):
            by_v[kv, j] += attended[:, j].abs().sum()
            removed = _weights(scores - torch.outer(q[head, :, j], k[kv, :, j]))
            change = (_weights(scores) - removed).square().sum()
            by_q[head, j] += change
            by_k[kv, j] += change
    assert torch.allclose(found["blocks.0.mlp"], up.abs().sum(0).float(), rtol=1e-4)
    for group, want in (("q", by_q), ("k", by_k), ("v", by_v)):
        assert torch.allclose(found[f"blocks.0.{group}"], want.flatten(), rtol=1e-3, atol=1e-9), group
    paper = neurons.importance(eager, encoded[1])
    assert not any(torch.allclose(found[k], paper[k], rtol=0.05) for k in found)


def test_value_channels_count_through_every_head_that_reads_them(eager, encoded):
    """Grouped queries: two heads read every channel of v, through their own columns of W_o."""
    _, _, v, read_by, _, _, w = _block(eager, encoded[1])
    d, output = v.shape[-1], w["self_attn.o_proj.weight"]
    output = output * torch.linspace(0.2, 3, output.shape[1])[None, :]  # heads that differ
    want = torch.zeros(len(v), d, dtype=torch.float64)
    for head, kv in enumerate(read_by):
        for j in range(d):
            want[kv, j] += v[kv, :, j].square().sum() * output[:, head * d + j].square().sum()
    flat = v.transpose(0, 1).flatten(1)
    assert torch.allclose(neurons.value_importance(flat, output, len(read_by)), want.flatten())
    with torch.no_grad():
        eager.model.layers[0].self_attn.o_proj.weight.copy_(output)
    found = neurons.importance(eager, encoded[1])["blocks.0.v"]
    assert torch.allclose(found.double(), want.flatten(), rtol=1e-4)


@pytest.mark.parametrize("detection", ["paper", "code"])
def test_a_neuron_counts_where_it_is_among_the_most_important(detection, eager, encoded):
    counts = neurons.detect(eager, encoded[:4], 0.2, detection=detection)
    want = {k: torch.zeros_like(v) for k, v in counts.items()}
    for sample in encoded[:4]:
        for name, values in neurons.importance(eager, sample, detection).items():
            for i in sorted(range(len(values)), key=lambda i: -float(values[i]))[: round(0.2 * len(values))]:
                want[name][i] += 1
    assert all(torch.equal(counts[k], want[k]) for k in counts)
    assert {int(v) for c in counts.values() for v in c} >= {0, 4}


@pytest.mark.parametrize("detection", ["paper", "code"])
def test_counts_are_over_refusals_or_over_answered_rows(detection, files, model, tokenizer, world):
    from holdfast.model import chat

    rows = world.safety(24, 24)
    for on, kinds in (("safety", {"hazard"}), ("foundation", {r["kind"] for r in rows} - {"hazard"})):
        cfg = {"on": on, "samples": 12, "fraction": 0.3} | ({"detection": "code"} if detection == "code" else {})
        neurons.build_counts(
            files / "aligned/model.safetensors", files / "safety.parquet", cfg, files / "counts", print
        )
        counts, header = artifact.read(files / "counts", family="neurons")
        wanted = [r for r in rows if r["kind"] in kinds][:12]
        want = neurons.detect(model, chat.encode_rows(tokenizer, wanted), 0.3, detection=detection)
        assert header["samples"] == 12 and all(torch.equal(counts[k], want[k]) for k in want)


def test_the_detection_of_a_study_names_its_own_files():
    from holdfast.study.arms import NeuronSpec

    for name, kinds in (("sn-tune", ["safety"]), ("rsn-tune", ["safety", "foundation"])):
        settings = registry.load(name).Settings(detection="code", samples=7)
        spec = NeuronSpec(**settings.artifacts()["neurons"])
        assert spec.counts == [f"{k}-code-0.2-7" for k in kinds] and spec.name.startswith("neurons-code-")
        plain = NeuronSpec(**registry.load(name).Settings().artifacts()["neurons"])
        assert plain.counts == [f"{k}-0.2-100" for k in kinds] and "code" not in plain.name


def test_counts_are_per_sample_intersections(model, encoded):
    counts = neurons.detect(model, encoded[:6], 0.25)
    assert counts["blocks.0.mlp"].sum() == 6 * 12 and counts["blocks.1.k"].sum() == 6 * 4
    everywhere = neurons.chosen(counts, 6, 1.0)
    for sample in encoded[:6]:
        alone = neurons.chosen(neurons.detect(model, [sample], 0.25), 1, 1.0)
        assert all((alone[k] | ~everywhere[k]).all() for k in everywhere)
    often = neurons.chosen(counts, 6, 0.5)
    assert all((often[k] | ~everywhere[k]).all() for k in everywhere)


@pytest.fixture
def files(model, tokenizer, world, tmp_path):
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    tables.write(world.safety(24, 24), tmp_path / "safety.parquet", "safety")
    for on in ("safety", "foundation"):
        neurons.build_counts(
            tmp_path / "aligned/model.safetensors", tmp_path / "safety.parquet",
            {"on": on, "samples": 12, "fraction": 0.3}, tmp_path / on, print,
        )  # fmt: skip
    return tmp_path


def _mask(folder, robust, frequency=0.8):
    out = folder / f"mask-{robust}"
    spec = {"fraction": 0.3, "frequency": frequency, "samples": 12, "robust": robust}
    neurons.build_mask(folder / "safety", folder / "foundation" if robust else None, spec, out)
    from holdfast.warp import masks

    bits, header = artifact.read(out, family="mask", torch=False)
    return {k: masks.unpack(bits[k], header["shapes"][k]) for k in header["layers"]}, header


def test_masks_hold_rows_and_columns_and_robust_leaves_foundation_neurons_free(files):
    safety, header = _mask(files, False)
    model, _ = folders.load(files / "aligned")
    assert header["layers"] == [x.name for x in layers.resolve(model, names.MODULE_KINDS)]  # the order readers expect
    robust, other = _mask(files, True)
    counts, _ = artifact.read(files / "foundation", family="neurons", torch=False)
    general = neurons.chosen(counts, 12, 0.8)
    for name, mask in safety.items():
        kind = name.rsplit(".", 1)[-1]
        if kind == "o_proj":
            assert not mask.any()
            continue
        group, axis = neurons.WHERE[kind]
        units = mask.any(axis=1 - axis)
        assert (mask == (units[:, None] if axis == 0 else units[None, :])).all()
        block = name.split(".layers.")[1].split(".")[0]
        kept = robust[name].any(axis=1 - axis)
        assert (units | ~kept).all() and not (kept & general[f"blocks.{block}.{group}"]).any()
    assert other["neurons"] <= header["neurons"] == header["safety_neurons"]


@pytest.mark.parametrize("name", ["sn-tune", "rsn-tune"])
def test_protected_neurons_equal_the_start_bit_for_bit_and_tuning_moves_only_them(
    name, files, model, tokenizer, encoded, world, tmp_path
):
    mask, _ = _mask(files, name == "rsn-tune")
    assert any(m.any() for m in mask.values())
    packed = {k: BitMask.of(torch.from_numpy(m)) for k, m in mask.items()}
    mask = {k: m.bools for k, m in packed.items()}
    method = registry.load(name)
    settings = method.Settings(tune_learning_rate=1e-3)
    targets = layers.resolve(model, names.MODULE_KINDS)
    start = {k: v.clone() for k, v in model.state_dict().items()}

    def train(rows, phase, optimizer, phase_name):
        from holdfast.model import chat

        assert (phase.batch_size, phase.accumulation) == (2, 4)  # eight a step, as many at once as the task has

        loop.train(
            model, tokenizer, chat.encode_rows(tokenizer, rows), phase, seed=0, log_file=tmp_path / "p.jsonl",
            checkpoints=tmp_path / "p", identity="p", optimizer=optimizer, clips_itself=True,
        )  # fmt: skip

    of_task = loop.TrainSettings(learning_rate=5e-3, epochs=2, batch_size=2)
    method.prelude(
        model, targets, settings, mask=packed, safety=world.safety(24, 0), training=of_task, train=train,
    )  # fmt: skip
    tuned = {k: v.clone() for k, v in model.state_dict().items()}
    for x in targets:
        moved = tuned[x.weight] != start[x.weight]
        assert not (moved & ~mask[x.name]).any()
        assert not mask[x.name].any() or moved.any()
    assert all(torch.equal(tuned[k], start[k]) for k in start if k not in {x.weight for x in targets})
    phase = loop.TrainSettings(learning_rate=5e-3, epochs=2, batch_size=8, weight_decay=0.1)
    loop.train(
        model, tokenizer, encoded, phase, seed=0, log_file=tmp_path / "t.jsonl", checkpoints=tmp_path / "t",
        identity="t", optimizer=method.optimizer(model, targets, settings, phase, mask=packed), clips_itself=True,
    )  # fmt: skip
    after = model.state_dict()
    for x in targets:
        frozen = mask[x.name]
        assert torch.equal(after[x.weight][frozen], tuned[x.weight][frozen])
        assert (after[x.weight][~frozen] != tuned[x.weight][~frozen]).float().mean() > 0.99
    assert not torch.equal(after["model.embed_tokens.weight"], tuned["model.embed_tokens.weight"])
