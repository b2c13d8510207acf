"""NLSR: the statements of the authors' code for the low-rank part of a weight, for the mask of its largest entries and
for the amplified reference, and `Adaptive_Search_Operation` for who is restored.

Activations are random, and every module's Bernoulli draw is read as its probability. What works on the factors of
adapters, the cosines and the exchange of entries, has no counterpart in whole updates and is not compared.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from unittest import mock

import torch

from holdfast.methods import nlsr
from parity import code, tiny

REPOSITORY, COMMIT = "xinykou/NLSR", "aaee2b746f52fd6f250e9084953382068b5af734"
PRUNING = "src/prune_regions"


def _probabilities(theirs: code.Code, cosines: dict[str, float]) -> dict[str, float]:
    found = {}
    search = theirs.part("src/safe_lora/inner.py", "Lora_inner_Wrapper.Adaptive_Search_Operation", {"torch": torch})
    wrapper = SimpleNamespace(
        seed=0, model=SimpleNamespace(device="cpu"), prune_rate=0.5, epsilon=0.2, modified_layers=[]
    )
    bernoulli = torch.bernoulli

    def drawn(p: torch.Tensor) -> torch.Tensor:
        found.update(zip(cosines, p.tolist(), strict=True))
        return bernoulli(p)

    with mock.patch("torch.bernoulli", drawn):
        search(wrapper, [{k: torch.tensor(v)} for k, v in cosines.items()])
    return found


def compare(theirs: code.Code) -> list[code.Row]:
    cosines = {f"m{i}": float(x) for i, x in enumerate(tiny.normal(9, seed=1))}
    want = _probabilities(theirs, cosines)
    rows = [
        code.Row(
            f"probabilities, `chance: {how}`", tiny.far(nlsr.chances(cosines, nlsr.Settings(chance=how)), want), *why
        )
        for how, why in (
            ("code", (1e-6, "float32 there")),
            (
                "paper",
                (1.5, "theirs gives the most similar module the largest, against the paper and their own comment"),
            ),
        )
    ]
    weight = tiny.normal(24, 32, seed=2, dtype=torch.float32)
    inputs = tiny.normal(300, 32, seed=3, dtype=torch.float32) * torch.logspace(0, -1, 32)
    module = SimpleNamespace(activation_norms=inputs, base=torch.nn.Linear(32, 24, bias=False))
    module.base.weight.data = weight.clone()
    names = {
        "torch": torch,
        "module": module,
        "name": "",
        "w_current": weight.T,
        "args": SimpleNamespace(top_remove=False, sparsity_ratio=0.8, niter=30),
    }
    theirs.statements(f"{PRUNING}/model_wrapper_low.py", "score =", "if args.top_remove", names)
    masking = {"torch": torch, "args": SimpleNamespace(sparsity_ratio=0.8), "W": module.base.weight.data}
    names = masking | {"name": "weight", "binary_masks": {}}
    theirs.statements(f"{PRUNING}/sparsity_ratio_low.py", "W_metric =", "binary_masks[", names)
    mask = nlsr.critical(weight, inputs.T @ inputs, nlsr.Settings())
    other = (mask != names["binary_masks"]["default"]).double().mean()
    rows.append(
        code.Row(
            "share of entries in one mask only",
            float(other),
            0.02,
            "their svd_lowrank has no column to spare; they keep the entries above, here the largest κ",
        )
    )
    a, b = tiny.normal(4, 32, seed=4), tiny.normal(24, 4, seed=5)
    factors = [SimpleNamespace(data=x.clone()) for x in (a, b)]
    for factor in factors:
        names = {"name": "lora", "moderate_model_param": factor, "args": SimpleNamespace(alpha=0.9)}
        theirs.statements("src/expo-lora.py", "if 'lora' in name", "if 'lora' in name", names)
    ours = 1.9 * b @ a  # θ_aligned + α (θ_aligned − θ_weak) − θ_weak, of an adapter on θ_weak
    rows.append(
        code.Row(
            "amplified update, α = 0.9",
            tiny.far(ours, factors[1].data @ factors[0].data),
            0.42,
            "they multiply both factors by 2 α, the update by 3.24; the equation, followed here, by 1 + α",
        )
    )
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
