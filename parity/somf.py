"""SOMF: the authors' ConcreteMask and ties_merging_func; both files import torch alone and are run whole.

`Tensor.cuda` is stood in for by the tensor itself. The random numbers are the same on both sides.
"""

from __future__ import annotations

import copy
import sys
from unittest import mock

import torch

from holdfast.merge import fusion
from holdfast.methods import somf
from parity import code, tiny

REPOSITORY, COMMIT = "xinykou/safety_realignment", "5a805935b6fbdd7d63cf013c622631a186c133a5"
FOLDER = "llama_factory/src/llmtuner/model"


def compare(theirs: code.Code) -> list[code.Row]:
    masks = theirs.module(f"{FOLDER}/concrete_mask.py")
    vectors = [
        {"a": tiny.normal(12, 20, seed=s, dtype=torch.float32), "b": tiny.normal(30, seed=s + 9, dtype=torch.float32)}
        for s in range(3)
    ]
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        published = masks.ConcreteMask(0.5, vectors[0], init_value=0.0)
    for k, p in published.masks.items():
        p.data = tiny.normal(*p.shape, seed=len(k), dtype=torch.float32)
    torch.manual_seed(5)
    drawn = published._draw_mask()
    stream = torch.Generator().manual_seed(5)
    ours = {k: somf.relaxed(p.detach(), 0.5, stream) for k, p in published.masks.items()}
    applied = published.apply_mask([vectors[0]], drawn)[0]
    settings = somf.Settings()
    rows = [
        code.Row("relaxed mask, same draws", tiny.far(ours, drawn), 1e-5, "float32"),
        code.Row(
            "τ ⊙ m / mean(m)",
            tiny.far({k: somf.masked([v], drawn[k].detach(), settings, 0, k) for k, v in vectors[0].items()}, applied),
            1e-5,
            "float32",
        ),
    ]
    merged = theirs.module(f"{FOLDER}/tasks/ties_merging.py").ties_merging_func(
        copy.deepcopy(vectors), torch.tensor([0.4])
    )
    least = [fusion.threshold(list(v.values()), 0.2) for v in vectors]
    for how, within, because in (
        ("ties_merging", 1e-6, "float32; `fusion: ties_merging` follows their code"),
        ("ties", 2.0, "trimmed per tensor, and the mean of those that agree in place of their sum: the TIES paper"),
    ):
        got = {k: 0.4 * fusion.combine([v[k] for v in vectors], how, density=0.2, least=least) for k in vectors[0]}
        rows.append(code.Row(f"TIES, `fusion: {how}`", tiny.far(got, merged), within, because))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
