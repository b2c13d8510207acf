"""The constrained optimizer against the published forward form, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from holdfast.warp.basis import from_gram, random_orthogonal
from holdfast.warp.optimizer import RotatedAdamW, Rotation

torch.set_default_dtype(torch.float32)


def _problem(seed=0, m=7, n=9, batch=20):
    g = torch.Generator().manual_seed(seed)
    w0 = torch.randn(m, n, generator=g, dtype=torch.float64)
    b0 = torch.randn(m, generator=g, dtype=torch.float64)
    u = random_orthogonal(n, seed).double()
    u, _ = torch.linalg.qr(u)  # orthogonal to float64 precision
    frozen = torch.rand(m, n, generator=g) < 0.3
    data = [
        (
            torch.randn(batch, n, generator=g, dtype=torch.float64),
            torch.randn(batch, m, generator=g, dtype=torch.float64),
        )
        for _ in range(8)
    ]
    return w0, b0, u, frozen, data


class Published(nn.Module):
    """The published form: coefficients are the parameter, the weight is materialised in every forward."""

    def __init__(self, w0, b0, u, frozen):
        super().__init__()
        self.u, self.frozen = u, frozen
        self.c = nn.Parameter(w0 @ u)
        self.b = nn.Parameter(b0.clone())

    def forward(self, x):
        c = torch.where(self.frozen, self.c.detach(), self.c)
        return x @ (c @ self.u.T).T + self.b

    @property
    def weight(self):
        return self.c.detach() @ self.u.T


def _loss(y, target):
    return ((y.tanh() - target) ** 2).mean()


@pytest.mark.parametrize("clip", [None, 0.05])
def test_trajectory_equals_the_published_forward_form(clip):
    w0, b0, u, frozen, data = _problem()
    published = Published(w0, b0, u, frozen)
    # Frozen entries have zero gradient, zero moments and no decay: plain AdamW leaves them alone.
    reference = torch.optim.AdamW(published.parameters(), lr=0.02, weight_decay=0.0)
    w, b = nn.Parameter(w0.clone()), nn.Parameter(b0.clone())
    ours = RotatedAdamW([w, b], {w: Rotation(u, frozen)}, lr=0.02, max_grad_norm=clip)
    for x, target in itertools.islice(itertools.cycle(data), 40):
        reference.zero_grad()
        _loss(published(x), target).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(published.parameters(), clip)
        reference.step()
        ours.zero_grad()
        _loss(x @ w.T + b, target).backward()
        ours.step()
        assert torch.allclose(w, published.weight, atol=1e-12, rtol=0)
        assert torch.allclose(b, published.b, atol=1e-12, rtol=0)
    assert (w - w0).abs().max() > 0.1  # it did train


def test_gradient_accumulation_rotates_once_and_changes_nothing():
    w0, b0, u, frozen, data = _problem(1)
    published = Published(w0, b0, u, frozen)
    reference = torch.optim.AdamW(published.parameters(), lr=0.01, weight_decay=0.0)
    w, b = nn.Parameter(w0.clone()), nn.Parameter(b0.clone())
    ours = RotatedAdamW([w, b], {w: Rotation(u, frozen)}, lr=0.01)
    for start in range(0, 8, 4):
        for optimizer in (reference, ours):
            optimizer.zero_grad()
        for x, target in data[start : start + 4]:
            (_loss(published(x), target) / 4).backward()
            (_loss(x @ w.T + b, target) / 4).backward()
        reference.step()
        ours.step()
        assert torch.allclose(w, published.weight, atol=1e-12, rtol=0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("rotate", [True, False])
def test_frozen_coefficients_never_move(decay, rotate):
    w0, b0, u, frozen, data = _problem(2)
    w = nn.Parameter(w0.clone())
    rotation = Rotation(u if rotate else None, frozen)
    ours = RotatedAdamW([w], {w: rotation}, lr=0.05, weight_decay=decay)
    for x, target in itertools.islice(itertools.cycle(data), 200):
        ours.zero_grad()
        _loss(x @ w.T + b0, target).backward()
        ours.step()
    start, end = (w0 @ u, w @ u) if rotate else (w0, w)
    assert (end - start)[frozen].abs().max() < 1e-13
    assert (end - start)[~frozen].abs().min() > 0
    assert ours.frozen_drift({w: w0}) < 1e-13


def test_a_signed_permutation_of_the_outputs_changes_nothing():
    """The sanity arm: C = Vᵀ W U with V a signed permutation and the mask permuted alike is WaRP."""
    from holdfast.warp.basis import signed_permutation

    w0, b0, u, frozen, data = _problem(4)
    v = signed_permutation(w0.shape[0], 1).double()
    permuted = (v.T.abs() @ frozen.double()).bool()
    weights = []
    for rotation in (Rotation(u, frozen), Rotation(u, permuted, v)):
        w = nn.Parameter(w0.clone())
        ours = RotatedAdamW([w], {w: rotation}, lr=0.03, weight_decay=0.05, max_grad_norm=0.1)
        for x, target in itertools.islice(itertools.cycle(data), 40):
            ours.zero_grad()
            _loss(x @ w.T + b0, target).backward()
            ours.step()
        assert ours.frozen_drift({w: w0}) < 1e-12
        weights.append(w.detach())
    assert torch.allclose(*weights, atol=1e-12, rtol=0)


def test_an_output_rotation_freezes_output_directions():
    w0, b0, _, _, data = _problem(5)
    v, _ = torch.linalg.qr(torch.randn(w0.shape[0], w0.shape[0], dtype=torch.float64))
    frozen = torch.zeros_like(w0, dtype=torch.bool)
    frozen[:2] = True
    w = nn.Parameter(w0.clone())
    ours = RotatedAdamW([w], {w: Rotation(None, frozen, v)}, lr=0.03)
    for x, target in itertools.islice(itertools.cycle(data), 40):
        ours.zero_grad()
        _loss(x @ w.T + b0, target).backward()
        ours.step()
    moved = v.T @ (w.detach() - w0)
    assert moved[:2].abs().max() < 1e-12 and moved[2:].abs().min() > 0


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_truncated_form_keeps_frozen_coefficients_and_is_adamw_elsewhere(decay):
    """u holds 4 of 9 directions; the update of plain AdamW loses exactly its part on frozen coefficients."""
    w0, b0, u, _, data = _problem(7)
    u = u[:, :4].contiguous()
    frozen = torch.rand(w0.shape[0], 4, generator=torch.Generator().manual_seed(1)) < 0.5
    w, plain = nn.Parameter(w0.clone()), nn.Parameter(w0.clone())
    ours = RotatedAdamW([w], {w: Rotation(u, frozen, corrected=True)}, lr=0.03, weight_decay=decay)
    reference = torch.optim.AdamW([plain], lr=0.03, weight_decay=decay)
    x, target = data[0]
    for parameter, optimizer in ((w, ours), (plain, reference)):
        _loss(x @ parameter.T + b0, target).backward()
        optimizer.step()
    update = plain.detach() - w0
    expected = update - ((update @ u) * frozen) @ u.T
    assert torch.allclose(w - w0, expected, atol=1e-14, rtol=0)
    for x, target in itertools.islice(itertools.cycle(data), 200):
        ours.zero_grad()
        _loss(x @ w.T + b0, target).backward()
        ours.step()
    moved = (w.detach() - w0) @ u
    assert moved[frozen].abs().max() < 1e-12 < moved[~frozen].abs().min()
    assert ours.frozen_drift({w: w0}) < 1e-12
    assert ((w.detach() - w0) - moved @ u.T).abs().max() > 0.1  # the other directions are free


def test_frozen_coefficients_stay_in_float32_over_a_long_run():
    w0, b0, u, frozen, data = _problem(3, m=24, n=32)
    w = nn.Parameter(w0.float())
    ours = RotatedAdamW([w], {w: Rotation(u.float(), frozen)}, lr=1e-2)
    for x, target in itertools.islice(itertools.cycle(data), 500):
        ours.zero_grad()
        _loss(x.float() @ w.T + b0.float(), target.float()).backward()
        ours.step()
    assert ours.frozen_drift({w: w0.float()}) < 1e-5


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_no_mask_and_identity_basis_is_plain_adamw(decay):
    w0, b0, _, _, data = _problem(4)
    w, v = nn.Parameter(w0.clone()), nn.Parameter(w0.clone())
    ours = RotatedAdamW([w], {w: Rotation(torch.eye(9, dtype=torch.float64), None)}, lr=0.03, weight_decay=decay)
    plain = torch.optim.AdamW([v], lr=0.03, weight_decay=decay)
    for x, target in itertools.islice(itertools.cycle(data), 30):
        for parameter, optimizer in ((w, ours), (v, plain)):
            optimizer.zero_grad()
            _loss(x @ parameter.T + b0, target).backward()
            optimizer.step()
        assert torch.allclose(w, v, atol=1e-13, rtol=0)


def test_parameters_without_rotation_get_plain_adamw_and_count_in_the_norm():
    w0, b0, u, frozen, data = _problem(5)
    x, target = data[0]
    w, b = nn.Parameter(w0.clone()), nn.Parameter(b0.clone())
    ours = RotatedAdamW([w, b], {w: Rotation(u, frozen)}, lr=0.01, max_grad_norm=1e-3)
    _loss(x @ w.T + b, target).backward()
    expected = torch.sqrt(((w.grad @ u)[~frozen] ** 2).sum() + (b.grad**2).sum())
    ours.step()
    assert ours.grad_norm == pytest.approx(float(expected), rel=1e-12)


def test_everything_frozen_leaves_the_weights_bit_for_bit():
    w0, b0, u, _, data = _problem(6)
    w = nn.Parameter(w0.float())
    ours = RotatedAdamW([w], {w: Rotation(u.float(), torch.ones_like(w0, dtype=torch.bool))}, lr=0.1, weight_decay=0.1)
    for x, target in data:
        ours.zero_grad()
        _loss(x.float() @ w.T, target.float()).backward()
        ours.step()
    assert torch.equal(w, w0.float())


def test_bfloat16_weights_reproduce_the_published_stall():
    """Method spec 2.7: an update below half a unit in the last place of a bfloat16 coefficient is lost."""
    g = torch.Generator().manual_seed(0)
    w0, u = torch.randn(64, 64, generator=g) * 0.02, random_orthogonal(64, 0)
    frozen = torch.rand(64, 64, generator=g) < 0.1
    gradients = [torch.randn(64, 64, generator=g) for _ in range(200)]

    def ours(dtype, lr):
        w = nn.Parameter(w0.to(dtype))
        before = {w: w.detach().clone()}
        optimizer = RotatedAdamW([w], {w: Rotation(u.to(dtype), frozen)}, lr=lr)
        for gradient in gradients:
            w.grad = gradient.to(dtype)
            optimizer.step()
        if dtype == torch.bfloat16:
            kept, start = optimizer.state[w]["coefficients"], before[w] @ u.to(dtype)
            assert kept.dtype == w.dtype == torch.bfloat16
            assert torch.equal(kept[frozen], start[frozen]) and torch.equal(w, kept @ u.to(dtype).T)
        return optimizer.moved_fraction(before)

    def published(lr):
        c = nn.Parameter(w0.bfloat16() @ u.bfloat16())
        before, optimizer = c.detach().clone(), torch.optim.AdamW([c], lr=lr, weight_decay=0.0)
        for gradient in gradients:
            c.grad = (gradient.bfloat16() @ u.bfloat16()).masked_fill_(frozen, 0)
            optimizer.step()
        assert torch.equal(c[frozen], before[frozen])
        return float((c != before)[~frozen].float().mean())

    for lr, most in ((1e-6, 0.05), (1e-5, 0.25), (1e-4, 0.9)):
        assert ours(torch.float32, lr) > 0.999
        assert ours(torch.bfloat16, lr) < most
        assert abs(ours(torch.bfloat16, lr) - published(lr)) < 0.03
    assert ours(torch.bfloat16, 1e-6) < ours(torch.bfloat16, 1e-5) < ours(torch.bfloat16, 1e-4)


def test_bfloat16_decay_spares_frozen_coefficients():
    g = torch.Generator().manual_seed(0)
    w0, u = torch.randn(16, 16, generator=g), random_orthogonal(16, 0).bfloat16()
    frozen = torch.rand(16, 16, generator=g) < 0.3
    w = nn.Parameter(w0.bfloat16())
    start = w.detach() @ u
    optimizer = RotatedAdamW([w], {w: Rotation(u, frozen)}, lr=0.1, weight_decay=0.5)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    kept = optimizer.state[w]["coefficients"]
    assert torch.equal(kept[frozen], start[frozen])
    assert torch.allclose(kept[~frozen].float(), 0.95 * start[~frozen].float(), rtol=2e-2)


def test_state_survives_a_checkpoint():
    w0, b0, u, frozen, data = _problem(8)

    def run(split):
        w = nn.Parameter(w0.clone())
        optimizer = RotatedAdamW([w], {w: Rotation(u, frozen)}, lr=0.02)
        for i, (x, target) in enumerate(data):
            if i == split:
                kept, weights = optimizer.state_dict(), w.detach().clone()
                w = nn.Parameter(weights)
                optimizer = RotatedAdamW([w], {w: Rotation(u, frozen)}, lr=0.5)
                optimizer.load_state_dict(kept)
            optimizer.zero_grad()
            _loss(x @ w.T + b0, target).backward()
            optimizer.step()
        return w

    assert torch.equal(run(None), run(4))


def test_basis_of_a_gram_matrix_is_orthonormal_ordered_and_reproducible():
    g = torch.Generator().manual_seed(0)
    h = torch.randn(40, 200, generator=g)
    gram = h @ h.T
    u, values = from_gram(gram)
    assert (u.T @ u - torch.eye(40)).abs().max() < 1e-5
    assert (values[:-1] >= values[1:]).all()
    assert torch.allclose(u * values @ u.T, gram, rtol=1e-4, atol=1e-2)
    assert (u.gather(0, u.abs().argmax(dim=0, keepdim=True)) > 0).all()
    again, _ = from_gram(gram.clone())
    assert torch.equal(u, again)


def test_random_basis_is_orthogonal_and_seeded():
    a, b, c = random_orthogonal(16, 1), random_orthogonal(16, 1), random_orthogonal(16, 2)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert (a.T @ a - torch.eye(16)).abs().max() < 1e-5
