"""LoRA-WSR: the module LinearWSRLoRA of WSR-Tune's code; its file imports torch alone and is run whole.

Their `projected LoRA` (`constraint: directions` here) is not compared: its code makes its subspace from an adapter.
"""

from __future__ import annotations

import sys

import torch

from holdfast.methods import lora_wsr
from parity import code, tiny

REPOSITORY, COMMIT = "min-seong-kim/Safety-WaRP-LLM", "62655ede3a130387ded918ae63d3f9b6053b70aa"


def compare(theirs: code.Code) -> list[code.Row]:
    module = theirs.module("models/lora_wsr_elementwise.py")
    linear = torch.nn.Linear(20, 12).double()
    u = torch.linalg.qr(tiny.normal(20, 20, seed=1))[0]
    frozen = tiny.normal(12, 20, seed=2) > 1
    published = module.LinearWSRLoRA(linear, r=4, alpha=16)
    published.set_basis_and_mask(u, frozen)
    ours = lora_wsr.adapted(linear, lora_wsr.Settings(rank=4, alpha=16), u, frozen).double()
    a, b = tiny.normal(4, 20, seed=3), tiny.normal(12, 4, seed=4)
    for factors in ((published.lora_A, published.lora_B), (ours.a, ours.b)):
        for p, value in zip(factors, (a, b), strict=True):
            p.data = value.clone()
    x = tiny.normal(30, 20, seed=5)
    got, want = ours(x), published(x)
    of = [
        torch.autograd.grad(out.square().sum(), p)
        for out, p in ((got, (ours.a, ours.b)), (want, (published.lora_A, published.lora_B)))
    ]
    return [
        code.Row(
            "what the module says", tiny.far(got.detach(), want.detach()), 1e-12, "float64; another order of sums"
        ),
        code.Row("gradients of A and B", max(map(tiny.far, *of)), 1e-12, "float64; another order of sums"),
        code.Row(
            "folded weight",
            tiny.far(linear.weight.detach() + ours.update(), published.folded_weight()),
            1e-12,
            "float64; another order of sums",
        ),
    ]


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
