"""Leading directions: which they are, and that the optimizer keeps its updates out of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from holdfast.warp import basis
from holdfast.warp.optimizer import RotatedAdamW, Rotation


def _gram(n, decay, seed=0):
    """A Gram matrix (n, n) with a known spectrum, its eigenvectors and eigenvalues, leading first."""
    g = torch.Generator().manual_seed(seed)
    u, _ = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))
    values = torch.exp(-decay * torch.arange(n, dtype=torch.float64) / n)
    return ((u * values) @ u.T).float(), u, values


@pytest.mark.parametrize(("n", "k"), [(40, 1), (40, 12), (96, 29), (96, 96)])
@pytest.mark.parametrize("decay", [3, 15, 60])
def test_two_rounds_carry_nearly_what_eigenvectors_do(n, k, decay):
    gram, _, values = _gram(n, decay)
    u = basis.leading(gram, k)
    assert u.shape == (n, k) and u.dtype == torch.float32 and u.is_contiguous()
    assert torch.allclose(u.double().T @ u.double(), torch.eye(k, dtype=torch.float64), atol=2e-6)
    best = float(values[:k].sum() / values.sum())
    found = float((u.double() * (gram.double() @ u.double())).sum() / values.sum())
    assert best - max(0.3 * (1 - best), 0.15 * best * (k == 1)) - 1e-6 <= found <= best + 1e-6
    assert torch.equal(u, basis.leading(gram, k)) and not torch.equal(u, basis.leading(gram, k, seed=1))


def test_one_round_would_lose_much_more():
    gram, _, values = _gram(96, 3)
    q = torch.linalg.qr(gram @ torch.randn(96, 29, generator=torch.Generator().manual_seed(0))).Q

    def lost(u):
        return float(values[:29].sum() - (u.double() * (gram.double() @ u.double())).sum())

    assert lost(basis.leading(gram, 29)) < 0.5 * lost(q)


@given(st.floats(0.01, 1.0), st.floats(0.5, 40))
def test_the_fewest_eigenvectors_that_carry_a_share(energy, decay):
    gram, _, values = _gram(24, decay)
    u = basis.carrying(gram, energy).double()
    share = torch.cumsum(values, 0) / values.sum()
    k = u.shape[1]
    assert float((u * (gram.double() @ u)).sum() / values.sum()) >= energy - 1e-5
    assert k == 1 or float(share[k - 2]) < energy + 1e-5  # one fewer would not do


def test_a_share_that_is_reached_exactly_needs_no_more_directions():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])
    assert [basis.subspace(values, x) for x in (0.25, 0.5, 0.51, 0.75, 0.875, 0.9, 1.0)] == [1, 1, 2, 2, 3, 4, 4]


@pytest.mark.parametrize(("n", "tokens"), [(24, 1), (24, 5), (64, 63), (16, 40)])
def test_all_the_energy_of_few_tokens_is_in_as_many_directions(n, tokens):
    h = torch.randn(n, tokens, generator=torch.Generator().manual_seed(tokens), dtype=torch.float64)
    for gram in (h @ h.T, (h @ h.T).float(), h.float() @ h.float().T):  # the last is what a capture sums up
        held = basis.carrying(gram, 1.0)
        assert held.shape == (n, min(n, tokens))
        assert torch.allclose(held.double() @ (held.double().T @ h), h, atol=1e-3)


def test_which_directions_are_held_hangs_on_share_energy_and_input():
    gram, u, _ = _gram(20, 10)
    assert basis.held(gram, "blocks.0.mlp_input", 0.3).shape == (20, 6)
    assert basis.held(gram, "blocks.0.mlp_input", 0.01).shape == (20, 1)
    exact = basis.held(gram, "x", 0.3, 0.9)
    assert torch.allclose(
        (exact.double() @ exact.double().T), u[:, : exact.shape[1]] @ u[:, : exact.shape[1]].T, atol=1e-5
    )
    a, b = basis.held(gram, "a", 0.3), basis.held(gram, "b", 0.3)
    assert not torch.equal(a, b)


# ---- the optimizer --------------------------------------------------------------------------------


def _problem(m=5, n=8, k=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    w0 = torch.randn(m, n, generator=g, dtype=torch.float64)
    u, _ = torch.linalg.qr(torch.randn(n, k, generator=g, dtype=torch.float64))
    data = [tuple(torch.randn(16, d, generator=g, dtype=torch.float64) for d in (n, m)) for _ in range(9)]
    return w0, u, data


def _loss(w, x, target):
    return (((x @ w.T).tanh() - target) ** 2).mean()


def _by_hand(w0, u, data, *, early, clip, lr=0.05, decay=0.1, betas=(0.9, 0.999), eps=1e-8):
    """AdamW as published (Loshchilov and Hutter), its update (decay too) times I − U Uᵀ; `early` the gradient too."""
    free = torch.eye(len(u), dtype=torch.float64) - u @ u.T
    w, m, v = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0)
    for t, (x, y) in enumerate(data, start=1):
        w.requires_grad_(True)
        (g,) = torch.autograd.grad(_loss(w, x, y), w)
        w = w.detach()
        g = g @ free if early else g
        g = g * min(1.0, clip / (float(g.norm()) + 1e-6))
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        step = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        w = w + (-lr * step - lr * decay * w) @ free
    return w


def _ours(w0, rotation, data, *, clip, lr=0.05, decay=0.1):
    w = nn.Parameter(w0.clone())
    optimizer = RotatedAdamW([w], {w: rotation}, lr=lr, weight_decay=decay, max_grad_norm=clip)
    for x, y in data:
        _loss(w, x, y).backward()
        optimizer.step()
    return w, optimizer


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_the_trajectory_is_adamw_with_its_update_projected(early, clip):
    w0, u, data = _problem()
    w, _ = _ours(w0, Rotation(u, corrected=True, early=early), data, clip=clip)
    assert torch.allclose(w, _by_hand(w0, u, data, early=early, clip=clip), atol=1e-12)
    other = _by_hand(w0, u, data, early=not early, clip=clip)
    assert (w - other).abs().max() > 1e-3  # the two forms differ


@pytest.mark.parametrize("early", [True, False])
def test_the_answer_to_what_lies_in_the_span_never_changes(early):
    w0, u, data = _problem()
    w, optimizer = _ours(w0, Rotation(u, corrected=True, early=early), data, clip=1.0)
    inside = u @ torch.randn(u.shape[1], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(w @ inside, w0 @ inside, atol=1e-13)
    assert optimizer.frozen_drift({w: w0}) < 1e-14 and optimizer.moved_fraction({w: w0}) == 1
    assert optimizer.frozen_fraction() == pytest.approx(3 / 8)
    with torch.no_grad():
        w.add_(0.5 * torch.ones(5, 1, dtype=torch.float64) @ u[:, :1].T)  # what the measure must see
    assert optimizer.frozen_drift({w: w0}) == pytest.approx(0.5)


def test_all_directions_held_leaves_the_weight_where_it_is():
    w0, _, data = _problem()
    u, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    w, _ = _ours(w0, Rotation(u, corrected=True, early=True), data, clip=1.0)
    assert torch.allclose(w, w0, atol=1e-6)
