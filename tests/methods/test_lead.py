"""Leading directions as a method of a study."""

from __future__ import annotations

import pytest
import torch

from holdfast.model import layers
from holdfast.study import registry
from holdfast.train import loop
from holdfast.warp.basis import random_orthogonal
from holdfast.warp.bits import BitMask

KINDS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
LEAD = registry.load("lead")
TRAINING = loop.TrainSettings(learning_rate=1e-2, epochs=1, batch_size=4)


def _steps(model, optimizer, steps=3):
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        ids = torch.randint(0, 500, (4, 12), generator=g)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        model.zero_grad()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("trainable", ["targets", "all"])
@pytest.mark.parametrize("project", ["both", "update"])
def test_the_span_is_held_and_the_rest_moves(model, project, trainable):
    targets = layers.resolve(model, KINDS)
    u = {x.input: random_orthogonal(x.module.in_features, 1)[:, :5] for x in targets}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    settings = LEAD.Settings(project=project, trainable=trainable)
    model = LEAD.attach(model, targets, settings)
    after = _steps(model, LEAD.optimizer(model, targets, settings, TRAINING, basis=u))
    for x in targets:
        delta = after[x.weight] - before[x.weight]
        assert (delta @ u[x.input]).abs().max() < 1e-6 < 1e-3 < delta.abs().max(), x.name
    elsewhere = [k for k in before if k not in {x.weight for x in targets}]
    assert all(torch.equal(after[k], before[k]) for k in elsewhere) == (trainable == "targets")


def test_weights_decay_and_gradients_are_clipped_as_the_training_says(model):
    targets = layers.resolve(model, KINDS)
    u = {x.input: random_orthogonal(x.module.in_features, 1)[:, :5] for x in targets}
    training = loop.TrainSettings(1e-2, 1, 4, weight_decay=0.1, weight_decay_on="matrices", max_grad_norm=0.25)
    made = LEAD.optimizer(model, targets, LEAD.Settings(trainable="all"), training, basis=u)
    assert [g["weight_decay"] for g in made.param_groups] == [0.1, 0.0] and made.max_grad_norm == 0.25


def test_update_only_is_the_column_form_of_warp(model):
    targets = layers.resolve(model, KINDS)
    full = {x.input: random_orthogonal(x.module.in_features, 1) for x in targets}
    k = {name: round(0.25 * len(u)) for name, u in full.items()}
    mask = {}
    for x in targets:
        frozen = torch.zeros(x.module.weight.shape, dtype=torch.bool)
        frozen[:, : k[x.input]] = True
        mask[x.name] = BitMask.of(frozen)
    start = {name: v.clone() for name, v in model.state_dict().items()}
    settings = LEAD.Settings(project="update", rank_fraction=0.25)
    model = LEAD.attach(model, targets, settings)
    leading = {name: u[:, : k[name]].contiguous() for name, u in full.items()}
    mine = _steps(model, LEAD.optimizer(model, targets, settings, TRAINING, basis=leading))
    model.load_state_dict(start)
    warp = registry.load("warp")
    column = warp.Settings(unit="column", rank_fraction=0.25, freeze_fraction=0.25)
    theirs = _steps(model, warp.optimizer(model, targets, column, TRAINING, basis=full, mask=mask))
    assert all(torch.allclose(mine[name], theirs[name], atol=2e-6) for name in start)


def test_mix_draws_the_refusals_of_safety_mixing():
    mixing = registry.load("safety-mix")
    task = [{"prompt": f"t{i}", "response": "r"} for i in range(90)]
    safety = [{"prompt": f"s{i}", "response": "no", "kind": "craft" if i % 3 == 0 else "hazard"} for i in range(60)]
    mixed = LEAD.rows(task, LEAD.Settings(mix=0.1), seed=4, safety=safety)
    assert mixed == mixing.rows(task, mixing.Settings(ratio=0.1), seed=4, safety=safety) and len(mixed) == 99
    assert LEAD.rows(task, LEAD.Settings(), seed=4, safety=safety) == task


def test_it_asks_for_directions_by_share_or_by_energy():
    assert LEAD.Settings().artifacts() == {"directions": {"share": 0.3, "every": False}}
    asked = LEAD.Settings(energy=0.95, modules="all").artifacts()
    assert asked == {"directions": {"energy": 0.95, "every": True}}
    assert LEAD.Settings(energy=0.95).unread() == {"rank_fraction"}
