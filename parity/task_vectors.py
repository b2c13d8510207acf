"""Task arithmetic, TIES and DARE: mergekit's `GTATask.execute` with its `get_task_vectors`, `get_mask` and `sparsify`.


The classes around them are stood in for by the settings they read. DARE drops the same entries on both sides:
`torch.bernoulli` is stood in for by ours.
"""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from unittest import mock

import torch

from holdfast.merge import fusion
from holdfast.methods import task_vectors
from parity import code, tiny

REPOSITORY, COMMIT = "arcee-ai/mergekit", "a6e402884ba9bc30da7f23e8304a35f19485de95"
FILE, NAME, SEED = "mergekit/merge_methods/generalized_task_arithmetic.py", "w", 3


def _merged(theirs: code.Code, models: dict[str, torch.Tensor], how: str, **asked: float) -> torch.Tensor:
    thinning = theirs.module("mergekit/sparsify.py")
    given = {"torch": torch, "logging": logging, "sparsify": thinning.sparsify}
    given |= {name: theirs.part(FILE, name, given) for name in ("get_task_vectors", "get_mask")}
    execute = theirs.part(FILE, "GTATask.execute", given | {"override": lambda f: f})
    ties, dare = how == "ties", how == "dare"
    density = asked.get("density", 1.0)
    task = SimpleNamespace(
        method=SimpleNamespace(
            sparsification_method="magnitude" if ties else "random" if dare else None,
            consensus_method="sum" if ties else None,
        ),
        weight_info=SimpleNamespace(name=NAME, is_embed=False),
        base_model="base",
        int8_mask=False,
        tensor_parameters=SimpleNamespace(
            data={k: {"weight": 1.0, "density": density} for k in ("aligned", "finetuned")}
        ),
        normalize=ties,
        lambda_=asked["weight"],
        rescale_norm=None,
    )
    merged = execute(task, {k: v.clone() for k, v in models.items()})
    if dare:  # without their `rescale`, which keeps the norm of a vector in place of its expectation
        merged = models["base"] + (merged - models["base"]) / density
    return merged


def compare(theirs: code.Code) -> list[code.Row]:
    base = tiny.normal(24, 30, seed=1, dtype=torch.float32)
    models = {
        "base": base,
        **{
            role: base + 0.1 * tiny.normal(24, 30, seed=s, dtype=torch.float32)
            for role, s in (("aligned", 2), ("finetuned", 3))
        },
    }
    weights = tiny.context({r: {NAME: v} for r, v in models.items()}, [NAME]).weights(NAME)
    draws = iter([torch.rand(base.shape, generator=fusion.generator(SEED, NAME, i)) >= 0.3 for i in range(2)])
    rows = []
    for how, asked in (
        ("sum", {"weight": 0.4}),
        ("ties", {"weight": 0.8, "density": 0.2}),
        ("dare", {"weight": 0.4, "drop": 0.3}),
    ):
        ours = task_vectors.merge(NAME, weights, task_vectors.Settings(fusion=how, **asked), SEED)
        wanted = dict(asked)
        if how == "dare":
            wanted["density"] = 1 - wanted.pop("drop")
        with mock.patch("torch.bernoulli", lambda p: next(draws).to(p)):
            want = _merged(theirs, models, how, **wanted)
        because = {
            "sum": "float32",
            "ties": "float32; the share kept is rounded here and cut there",
            "dare": "float32; theirs divided by the density afterwards: its `rescale` keeps a vector's norm instead",
        }[how]
        rows.append(code.Row(f"{how}: the update", tiny.far(ours - base, want - base), 1e-5, because))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
