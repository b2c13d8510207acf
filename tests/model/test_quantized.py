"""QLoRA on the CPU: NF4 under the adapter, merged in float32. Needs bitsandbytes, else skips."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from holdfast.model import chat, folders, layers, quantized
from holdfast.study import registry
from holdfast.train import loop

SETTINGS = {"rank": 4, "alpha": 8, "base": "nf4"}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)"
)


@pytest.fixture
def model(tokenizer):
    """Wider than the other tests' model: blocks of 64 and their eight-bit statistics want some weights."""
    from holdfast.world.model import new_model

    return new_model(
        tokenizer, hidden_size=128, intermediate_size=256, layers=1, heads=4, kv_heads=2, max_positions=256, seed=0
    )


@needs_bitsandbytes
def test_the_adapter_of_zeros_folds_to_the_rounded_weights(model):
    lora = registry.load("lora")
    settings = lora.Settings(**SETTINGS)
    start = {x.name: x.module.weight.detach().clone() for x in layers.resolve(model, settings.modules)}
    adapted = lora.attach(model, [], settings)
    trainable = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trainable == sum(4 * sum(w.shape) for w in start.values())
    plain = lora.fold(adapted, settings)
    for layer in layers.resolve(plain, settings.modules):
        assert type(layer.module) is torch.nn.Linear and layer.module.weight.dtype == torch.float32
        error = (layer.module.weight - start[layer.name]).abs().mean() / start[layer.name].abs().mean()
        assert 0 < error < 0.12, layer.name


@needs_bitsandbytes
def test_a_trained_qlora_model_is_an_ordinary_one(model, tokenizer, encoded, tmp_path):
    """Trains, folds to the same answers, saves with the keys of the start and loads."""
    lora = registry.load("lora")
    settings = lora.Settings(**SETTINGS)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapted = lora.attach(model, [], settings)
    trained = loop.train(
        adapted, tokenizer, encoded, loop.TrainSettings(1e-2, 3, 4), seed=0, log_file=tmp_path / "t.jsonl",
        checkpoints=tmp_path / "c", identity="x",
    )  # fmt: skip
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    import json

    assert trained["steps"] == len(encoded) // 4 * 3
    assert json.loads(lines[-1])["loss"] < json.loads(lines[0])["loss"]
    batch = chat.collate(encoded[:4], tokenizer.pad_token_id)
    with torch.no_grad():
        expected = adapted(**batch).logits
        folded = lora.fold(adapted, settings).eval()
        torch.testing.assert_close(folded(**batch).logits, expected, atol=1e-4, rtol=1e-4)
    assert folders.changed_fraction(before, folded.state_dict())["q_proj"] > 0.9
    folders.save(folded, tokenizer, tmp_path / "m", header={"role": "finetuned"})
    loaded, _ = folders.load(tmp_path / "m")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, folded(**batch).logits)


@needs_bitsandbytes
def test_nf4_is_within_its_block_error(model):
    """Every entry lies within half the widest gap of NF4 (0.152) times the largest entry of its block of 64,
    which is itself kept in eight bits."""
    weight = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    quantized.quantize(model, ("up_proj",))
    back = quantized.dequantized(model.model.layers[0].mlp.up_proj)
    blocks, rounded = weight.flatten().split(64), back.flatten().split(64)
    for a, b in zip(blocks, rounded, strict=True):
        assert ((a - b).abs() <= 0.2 * a.abs().max()).all()
