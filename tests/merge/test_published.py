"""Merge methods against plain float64 forms of what was published, written here from the papers and from what the
authors' code does, without our library. Each fails when the equation is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_merging import family, gram_file, merge  # noqa: F401 - fixtures

from holdfast.model.layers import of_weight
from holdfast.record import artifact
from holdfast.study import registry


def _float64(path):
    return {k: v.double().numpy() for k, v in load_file(path).items()}


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- Safe Delta -----------------------------------------------------------------------------------


def _safe_delta(aligned, finetuned, gram, s, *, budget, never_kept=0.15, tile=2048, group=4, damping=0.01):
    """Entry by entry, as the paper's rule and the authors' code read."""
    m, n = aligned.shape
    h = 2 * gram
    h = h + damping * np.trace(h) / n * np.eye(n)
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    w = aligned.copy()
    for left in range(0, n, tile):
        columns = range(left, min(left + tile, n))
        cost = {(i, j): (finetuned[i, j] - w[i, j]) ** 2 / u[j, j] ** 2 for i in range(m) for j in columns}
        order = sorted(cost, key=lambda entry: (1 / u[entry[1], entry[1]] ** 2, entry[1], entry[0]))
        if budget == "published":
            allowed = np.mean([1 / u[j, j] ** 2 for j in columns]) * s / 2 * m / 4096
        else:
            allowed = s * sum(cost.values())
        kept, spent = set(), 0.0
        for entry in order[: len(order) - int(never_kept * len(order))]:
            spent += cost[entry]
            if spent > allowed * (1 + 1e-9):
                break
            kept.add(entry)
        for j in columns:
            end_of_group = min(left + ((j - left) // group + 1) * group, columns[-1] + 1)
            for i in range(m):
                if (i, j) in kept:
                    error = (w[i, j] - finetuned[i, j]) / u[j, j]
                    w[i, end_of_group:] -= error * u[j, end_of_group:]
                    w[i, j] = finetuned[i, j]
    return w


def _layer(seed, m=6, n=13, t=60):
    x = _random(n, t, seed=seed) * np.linspace(0.3, 2.5, n)[np.random.default_rng(seed).permutation(n), None]
    x = x + 0.5 * x[::-1]  # correlated, so that compensation matters
    aligned = _random(m, n, seed=seed + 100)
    return x @ x.T, aligned, aligned + 0.1 * _random(m, n, seed=seed + 200)


@pytest.mark.parametrize("tile", [2048, 5])
@pytest.mark.parametrize("group", [4, 1])
@pytest.mark.parametrize(("budget", "s"), [("relative", 0.4), ("relative", 0.9), ("published", 25.0)])
@pytest.mark.parametrize("never_kept", [0.15, 0.0, 0.33])
def test_safe_delta_is_the_published_rule_on_compensated_tiles(tile, group, budget, s, never_kept):
    method = registry.load("safe-delta")
    settings = method.Settings(strength=s, budget=budget, tile=tile, group=group, never_kept=never_kept)
    for seed in range(4):
        gram, aligned, finetuned = _layer(seed)
        want = _safe_delta(aligned, finetuned, gram, s, budget=budget, never_kept=never_kept, tile=tile, group=group)
        factor = method.inverse_factor(torch.from_numpy(gram), settings.damping)
        out, kept = method.fuse(torch.from_numpy(aligned), torch.from_numpy(finetuned), factor, settings)
        assert np.abs(out.numpy() - want).max() < 1e-9
        assert 0.05 < kept.double().mean() < 0.99


def test_tiles_are_selected_on_what_earlier_tiles_left():
    """The reference tells compensated from original selection apart, or the test above would say nothing."""
    method, seen = registry.load("safe-delta"), 0
    settings = method.Settings(strength=0.5, tile=5)
    for seed in range(4):
        gram, aligned, finetuned = (torch.from_numpy(x) for x in _layer(seed))
        factor = method.inverse_factor(gram, settings.damping)
        _, kept = method.fuse(aligned, finetuned, factor, settings)
        alone = method.selection((finetuned - aligned)[:, 5:10], factor.diagonal()[5:10], settings)
        seen += int((kept[:, 5:10] != alone).sum())
    assert seen


def test_safe_delta_merges_with_the_gram_matrices_of_the_study(merge, family, gram_file):  # noqa: F811
    out, _ = merge("safe-delta", {"strength": 0.5})
    aligned, finetuned = _float64(family["aligned"]), _float64(family["finetuned"])
    grams, _ = artifact.read(gram_file, family="gram")
    looked = 0
    for name in (k for k in out if of_weight(k) and ".layers.1." in k):
        gram = grams[of_weight(name)[0]].double().numpy()
        want = _safe_delta(aligned[name], finetuned[name], gram, 0.5, budget="relative")
        close = np.isclose(out[name].double().numpy(), want, atol=1e-5)
        assert close.mean() > 0.995, name  # a float32 sum may move the last kept entry
        looked += 1
    assert looked == 7
