"""SaLoRA: the statements of the authors' script that make C, A, B and W − C B A, and `get_delta_weight` of their peft.

Activations are random. `torch.svd_lowrank` is theirs, once as they call it and once with ten columns to spare.
"""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from unittest import mock

import torch

from holdfast.methods import salora
from parity import code, tiny

REPOSITORY, COMMIT = "homles11/SaLoRA", "3f73de1662c1a5ba50d7a1fb98b10316b2aa4592"
FIRST, KEY = "score = module.activation_norms @", "weight_list[layer_n + '_' + str(current_num // divide_num) + '"
OUT, IN, RANK, DIRECTIONS = 24, 32, 4, 6


def _spared(svd, matrix: torch.Tensor, q: int, niter: int) -> tuple[torch.Tensor, ...]:
    u, s, v = svd(matrix, q=min(q + 10, *matrix.shape), niter=niter)
    return u[:, :q], s[:q], v[:, :q]


def _theirs(theirs: code.Code, weight: torch.Tensor, safe: torch.Tensor, task: torch.Tensor) -> dict:
    torch.manual_seed(0)
    module = SimpleNamespace(activation_norms=safe, base=torch.nn.Linear(IN, OUT, bias=False))
    module.base.weight.data = weight.clone()
    names = {
        "torch": torch,
        "module": module,
        "name": "",
        "args": SimpleNamespace(rs=DIRECTIONS, ds=DIRECTIONS),
        "rank": RANK,
        "n_iter": 30,
        "layer_n": "q_proj",
        "current_num": 0,
        "divide_num": 2,
        "weight_list": {},
    }
    with torch.no_grad():
        theirs.statements("lora_train_act.py", FIRST, f"{KEY}_V'] = V", names)
        module.activation_norms = task
        theirs.statements("lora_train_act.py", FIRST, f"{KEY}weight'] =", names)
    return {k.removeprefix("q_proj_0"): v for k, v in names["weight_list"].items()}


def compare(theirs: code.Code) -> list[code.Row]:
    weight = tiny.normal(OUT, IN, seed=1, dtype=torch.float32)
    scale = torch.logspace(0, -2, IN)
    safe, task = (tiny.normal(200, IN, seed=s, dtype=torch.float32) * scale for s in (2, 3))
    settings = salora.Settings(
        rank=RANK, alpha=RANK, safety_directions=DIRECTIONS, task_directions=DIRECTIONS, modules=("q_proj",)
    )
    v_s, a, b = salora.beginning(weight, safe.T @ safe, task.T @ task, settings)
    start = (b - v_s @ (v_s.T @ b)) @ a
    plain = _theirs(theirs, weight, safe, task)
    with mock.patch("torch.svd_lowrank", functools.partial(_spared, torch.svd_lowrank)):
        spared = _theirs(theirs, weight, safe, task)
    rows = []
    for how, want, within, because in (
        ("", plain, 2e-2, "their svd_lowrank has no column to spare, so that its last directions are not exact"),
        (", with spare columns", spared, 1e-4, "float32 there"),
    ):
        rows.append(
            code.Row(f"C = I − V Vᵀ{how}", tiny.far(torch.eye(OUT) - v_s @ v_s.T, want["lora_C"]), within, because)
        )
        rows.append(code.Row(f"W − C B A{how}", tiny.far(weight - start, want["weight"]), within, because))
    delta = theirs.part(
        "peft/src/peft/tuners/lora/layer.py", "Linear.get_delta_weight", {"torch": torch, "transpose": lambda x, _: x}
    )
    later_a, later_b = (x + tiny.normal(*x.shape, seed=7, dtype=torch.float32) for x in (a, b))
    layer = {k: {"default": SimpleNamespace(weight=v)} for k, v in (("lora_A", later_a), ("lora_B", later_b))}
    trained = spared["weight"] + delta(
        SimpleNamespace(**layer, lora_C=spared["lora_C"], fan_in_fan_out=False, scaling={"default": 1.0}), "default"
    )
    linear = torch.nn.Linear(IN, OUT, bias=False)
    linear.weight.data = weight.clone()
    adapted = salora.adapted(linear, settings, v_s, a, b)
    adapted.a.data, adapted.b.data = later_a, later_b
    rows.append(code.Row("W' of other A and B", tiny.far(weight + adapted.update(), trained), 1e-4, "float32 there"))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
