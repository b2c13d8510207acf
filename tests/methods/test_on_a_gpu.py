"""Every trained method on a pretended GPU, hook by hook, against the CPU: the same weights to the last bit.

Method files are found by looking at the folder.
"""

from __future__ import annotations

import copy

import pretend
import pytest
import torch
from test_methods import METHODS, MODULES, cell, run  # noqa: F401 - a fixture

from holdfast.model import layers
from holdfast.study import registry

# Settings with which a model as small as this moves, and every tensor of the method has a say in it.
SMALL = {
    "salora": {"rank": 2, "safety_directions": 6, "task_directions": 8, "task_rows": 4},
    "sn-tune": {"tune_rows": 4, "tune_learning_rate": 1e-3},
    "rsn-tune": {"tune_rows": 4, "tune_learning_rate": 1e-3},
}
CASES = [(name, SMALL.get(name, {})) for name in METHODS if registry.header(name).kind == "train"]
CASES += [("warp", {"rank_fraction": 0.5}), ("lora-wsr", {"constraint": "directions"}), ("lead", {"project": "update"})]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_a_method_does_on_a_gpu_what_it_does_on_the_cpu(name, settings, cell, tokenizer, encoded, tmp_path):  # noqa: F811
    model, targets, needs = cell
    if name == "lead":  # of which all directions would hold everything
        needs["basis"] = {k: u[:, :10].contiguous() for k, u in needs["basis"].items()}
    start = {x.name: x.module.weight.detach().clone() for x in targets}
    there = copy.deepcopy(model)

    def act(model):
        targets = layers.resolve(model, MODULES)
        weights = {x.module.weight: start[x.name] for x in targets}  # what is needed comes from files, on the host
        made = run(
            name, (model, targets, needs), tokenizer, encoded[:12], tmp_path, settings, prelude=True, epochs=1,
            batch_size=4,
        )  # fmt: skip
        told = []
        if hasattr(made.optimizer, "frozen_drift"):
            told = [made.optimizer.frozen_drift(weights), made.optimizer.moved_fraction(weights),
                    made.optimizer.frozen_fraction()]  # fmt: skip
        return made, told

    with pretend.plain():
        expected, told = act(model)
    with pretend.gpu():
        found, told_there = act(there.cuda())
        weights, factors, kept = found.folded.state_dict(), found.factors, found.beside.state()
        assert {x.device for x in (*weights.values(), *factors.values(), *kept.values())} == {pretend.CUDA}
        # A checkpoint is read on the host.
        found.beside.restore({k: v.cpu() for k, v in kept.items()}, found.folded)
        again = found.beside.state()
        assert all(again[k].device == pretend.CUDA and torch.equal(again[k], kept[k]) for k in kept)
    assert told == told_there
    assert any(not torch.equal(v, expected.before[k]) for k, v in expected.folded.state_dict().items())
    for mine, theirs in ((expected.folded.state_dict(), weights), (expected.factors, factors)):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert torch.equal(theirs[key].held, value), key
