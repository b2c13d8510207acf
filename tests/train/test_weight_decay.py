"""Weight decay: what decays is what transformers' Trainer lets decay, for every optimizer of ours."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
)

from holdfast import names
from holdfast.model import chat, layers
from holdfast.study import registry
from holdfast.study.keys import Safety, Task
from holdfast.train import loop
from holdfast.warp.basis import random_orthogonal
from holdfast.warp.bits import BitMask
from holdfast.warp.optimizer import RotatedAdamW

TINY = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip
SETTINGS = loop.TrainSettings(learning_rate=2e-2, epochs=4, batch_size=24, warmup_fraction=0.0, weight_decay=0.1)


@pytest.mark.parametrize(
    "model",
    [
        LlamaForCausalLM(LlamaConfig(**TINY, attention_bias=True, mlp_bias=True)),
        Qwen2ForCausalLM(Qwen2Config(**TINY)),
        GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2)),
    ],
    ids=["llama", "qwen2", "gpt2"],
)
def test_groups_are_those_of_the_trainer(model):
    decays = set(Trainer.get_decay_parameter_names(None, model))
    matrices, rest = loop.groups(model, SETTINGS)
    assert matrices["weight_decay"] == 0.1 and rest["weight_decay"] == 0
    named = {p: name for name, p in model.named_parameters()}
    decays &= set(named.values())  # a tied weight has one name here
    assert {named[p] for p in matrices["params"]} == decays
    assert {named[p] for p in rest["params"]} == set(named.values()) - decays != set()


def test_nothing_that_decays_is_one_group_in_the_models_order(model):
    """Sums over gradients run in this order, so a study without decay keeps its bytes."""
    for settings in (
        loop.TrainSettings(1e-3, 1, 1),
        loop.TrainSettings(1e-3, 1, 1, weight_decay=0.1, weight_decay_on="all"),
    ):
        (group,) = loop.groups(model, settings)
        assert all(a is b for a, b in zip(group["params"], model.parameters(), strict=True))
        assert group["weight_decay"] == settings.weight_decay


def test_defaults_are_those_of_the_published_runs():
    assert Safety().training.weight_decay_on == Safety(training={"epochs": 2}).training.weight_decay_on == "all"
    assert Task(dataset="chat").training.weight_decay_on == "matrices"


def _trained(name, settings, model, tokenizer, encoded, folder, options=None, **needs):
    method, model = registry.load(name), copy.deepcopy(model)
    chosen = method.Settings(**(options or {}))
    targets = layers.resolve(model, names.MODULE_KINDS)
    if hasattr(method, "attach"):
        model = method.attach(model, targets, chosen, **needs)
    optimizer = None
    if hasattr(method, "optimizer"):
        optimizer = method.optimizer(model, targets, chosen, settings, **needs)
        assert isinstance(optimizer, RotatedAdamW)
    loop.train(
        model, tokenizer, encoded, settings, seed=0, log_file=folder / "t", checkpoints=folder / "c", identity="x",
        optimizer=optimizer, clips_itself=optimizer is not None,
    )  # fmt: skip
    return model.state_dict()


def _by_hand(model, tokenizer, encoded, decay, everything):
    """AdamW written out, full batches, cosine schedule without warm-up, the norm clipped at 1; in float64."""
    model = copy.deepcopy(model).double()
    batch = chat.collate(encoded, tokenizer.pad_token_id)
    first = {k: torch.zeros_like(p) for k, p in model.named_parameters()}
    second = {k: torch.zeros_like(p) for k, p in model.named_parameters()}
    for step in range(4):
        rate = 2e-2 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 4, dtype=torch.float64)))
        model.zero_grad()
        model(**batch).loss.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
        for name, p in model.named_parameters():
            gradient = p.grad * min(1.0, 1.0 / (float(norm) + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, spread = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            with torch.no_grad():
                if everything or "norm" not in name:
                    p.mul_(1 - rate * decay)
                p.sub_(rate * mean / (spread.sqrt() + 1e-8))
    return model.state_dict()


ARMS = [
    ("full", {}), ("safety-mix", {}), ("warp", {"basis": "original", "mask": "none", "trainable": "all"}),
    ("sn-tune", {}),
]  # fmt: skip


@pytest.mark.parametrize("on", ["matrices", "all"])
@pytest.mark.parametrize(("name", "options"), ARMS, ids=[n for n, _ in ARMS])
def test_every_optimizer_decays_what_the_trainer_does(name, options, on, model, tokenizer, encoded, tmp_path):
    """With nothing frozen every arm is AdamW; what decays is seen in the norms."""
    settings = loop.TrainSettings(**{**SETTINGS.__dict__, "weight_decay_on": on})
    targets = layers.resolve(model, names.MODULE_KINDS)
    nothing = {x.name: BitMask.of(torch.zeros_like(x.module.weight, dtype=torch.bool)) for x in targets}
    needs = {"mask": nothing} if name == "sn-tune" else {}
    ours = _trained(name, settings, model, tokenizer, encoded, tmp_path, options, **needs)
    want = _by_hand(model, tokenizer, encoded, 0.1, on == "all")
    assert all((ours[k] - want[k]).abs().max() < 2e-4 for k in want)
    other = _by_hand(model, tokenizer, encoded, 0.1, on != "all")
    undecayed = _by_hand(model, tokenizer, encoded, 0.0, False)
    assert (other["model.norm.weight"] - ours["model.norm.weight"]).abs().max() > 1e-3
    key = "model.embed_tokens.weight"
    assert (undecayed[key] - ours[key]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["full", "warp", "sn-tune", "lora", "lora-wsr"])
def test_without_decay_what_would_decay_makes_no_difference(name, model, tokenizer, encoded, tmp_path):
    targets = layers.resolve(model, names.MODULE_KINDS)
    basis = {x.input: random_orthogonal(x.module.weight.shape[1], 1) for x in targets}
    draw = torch.Generator().manual_seed(1)
    mask = {x.name: BitMask.of(torch.rand(x.module.weight.shape, generator=draw) < 0.3) for x in targets}
    found = []
    for on in ("matrices", "all"):
        settings = loop.TrainSettings(**{**SETTINGS.__dict__, "weight_decay": 0.0, "weight_decay_on": on})
        torch.manual_seed(0)
        found.append(_trained(name, settings, model, tokenizer, encoded, tmp_path / on, basis=basis, mask=mask))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
