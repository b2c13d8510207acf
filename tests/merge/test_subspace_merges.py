"""LSSF and NLSR against forms written out here in float64, from activations themselves and not from Gram matrices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_merging import family, gram_file, merge  # noqa: F401 - fixtures

from holdfast.merge import fusion, single, subspace
from holdfast.methods import lssf
from holdfast.model import chat, folders
from holdfast.model.layers import of_weight
from holdfast.names import GRAMS
from holdfast.study import registry


def _float64(family):  # noqa: F811
    return {role: {k: v.double().numpy() for k, v in load_file(path).items()} for role, path in family.items()}


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def refusals(world, tmp_path):
    rows = [{"prompt": r["prompt"], "response": r["response"]} for r in world.safety(12, 0)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return rows, tmp_path / "rows.jsonl"


@pytest.fixture
def realigned(family, refusals, tmp_path):  # noqa: F811
    """realigned(method, settings, roles) -> (weights, record): one merge without a study, on rows of a file."""

    def run(name, settings, roles=("unaligned",), out="new", needs=True, **given):
        models = {r: given.get(r, family[r].parent) for r in ("aligned", "finetuned", *roles)}
        rows = refusals[1] if needs else None
        record = single.realign(name, models, tmp_path / out, settings=settings, refusals=rows, seed=5)
        return load_file(tmp_path / out / "model.safetensors"), record

    return run


def _inputs(folder, rows, answers=False):
    """Weight name -> its inputs (tokens, n) on every row alone, in float64; of answers alone where asked."""
    model, tokenizer = folders.load(folder)
    model = model.double()
    seen, found = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in name:
            module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0][0].detach()))
    for row in rows:
        ids = chat.encode(tokenizer, row["prompt"], row["response"])
        model(input_ids=torch.tensor([ids["input_ids"]]))
        keep = torch.tensor([not answers or label != chat.IGNORE for label in ids["labels"]])
        for name, h in seen.items():
            found.setdefault(f"{name}.weight", []).append(h[keep].numpy())
    return {k: np.concatenate(v) for k, v in found.items()}


def test_a_gram_matrix_is_enough_for_what_a_module_writes():
    for m, n, t in ((7, 5, 40), (5, 9, 40), (6, 6, 4)):
        w, h = _random(m, n), _random(n, t, seed=1)
        u, s = subspace.left(w, h @ h.T)
        want_u, want_s, _ = np.linalg.svd((w @ h).numpy(), full_matrices=False)
        k = min(m, n, t)  # what there is of either
        assert np.allclose(s.numpy()[:k], want_s[:k]) and np.allclose(s.numpy()[k:], 0, atol=1e-6)
        assert np.allclose(np.abs((u[:, :k].T.numpy() @ want_u[:, :k]).diagonal()), 1, atol=1e-6)
    u, s = subspace.left(w)
    assert np.allclose(s.numpy(), np.linalg.svd(w.numpy())[1]) and torch.allclose(u.T @ u, torch.eye(6).double())


@given(st.integers(1, 7), st.integers(2, 9), st.integers(1, 6), st.integers(0, 99))
def test_what_only_rounding_makes_is_no_direction(m, n, rank, seed):
    """A module that sees one direction, or whose safety vector has one, has one; and a merge keeps no more."""
    rank = min(m, n, rank)
    w, h = _random(m, n, seed=seed), _random(n, rank, seed=seed + 1)
    thin = _random(m, rank, seed=seed) @ _random(rank, n, seed=seed + 1)
    single = h.float() @ h.float().T  # as a capture sums it up
    for _, s in (subspace.left(w, h @ h.T), subspace.left(w, single), subspace.left(thin)):
        assert int(s.count_nonzero()) == rank
        assert lssf.rank(s, 1.0) == rank
    assert subspace.left(torch.zeros(m, n))[1].eq(0).all()


# ---- LSSF -----------------------------------------------------------------------------------------


def _rank(s, entropy):
    p = s**2 / (s**2).sum()
    h = [-sum(x * np.log(x) for x in p[: k + 1] if x > 0) for k in range(len(p))]
    return next(k + 1 for k in range(len(p)) if h[k] >= entropy * h[-1])


def _projector(z, entropy, first, power):
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    r = _rank(s, entropy)
    a = 1 + (first - 1) * (s[:r] - s[r - 1]) / (s[0] - s[r - 1]) if r > 1 else np.ones(1)
    return u[:, :r] @ np.diag(a**power) @ u[:, :r].T, r


@pytest.mark.parametrize(
    "options", [{"emphasis": 3.0}, {"emphasis": 2.0, "power": 1, "vector": "base", "entropy": 0.6}],
    ids=["a squared", "a, of the base"],
)  # fmt: skip
def test_lssf_is_the_published_rule_on_activations_of_refusals(options, realigned, family, refusals):  # noqa: F811
    options = {"strength": 0.7, "entropy": 0.8} | options
    vector = options.get("vector", "unaligned")
    out, record = realigned("lssf", options, (vector,))
    of, x, shares = _float64(family), _inputs(family["aligned"].parent, refusals[0]), []
    for name, w in of["aligned"].items():
        if name not in x:
            assert np.array_equal(out[name].double().numpy(), of["finetuned"][name])
            continue
        unit = x[name] / np.linalg.norm(x[name], axis=1, keepdims=True)
        p, r = _projector(w @ unit.T, options["entropy"], options["emphasis"], options.get("power", 2))
        delta = w - of[vector][name]
        assert np.abs(out[name].double().numpy() - of["finetuned"][name] - 0.7 * p @ delta).max() < 1e-5, name
        shares.append(r / min(w.shape))
    assert len(shares) == 14 and record["rank_share"] == pytest.approx(np.mean(shares)) and 0.1 < min(shares) < 1


def test_lssf_without_data_takes_the_directions_of_the_safety_vector(realigned, family):  # noqa: F811
    out, _ = realigned("lssf", {"subspace": "vector", "entropy": 0.5, "emphasis": 2}, needs=False)
    of = _float64(family)
    for name in (k for k in of["aligned"] if of_weight(k)):
        delta = of["aligned"][name] - of["unaligned"][name]
        want = of["finetuned"][name] + _projector(delta, 0.5, 2, 2)[0] @ delta
        assert np.abs(out[name].double().numpy() - want).max() < 1e-5, name


def test_the_rank_keeps_the_asked_share_of_the_entropy():
    lssf, s = registry.load("lssf"), torch.linspace(3, 0.1, 20, dtype=torch.float64)
    ranks = [lssf.rank(s, x / 10) for x in range(1, 11)]
    assert ranks == sorted(ranks) and ranks[-1] == 20 and ranks[0] < 4
    assert ranks == [_rank(s.numpy(), x / 10) for x in range(1, 11)]
    flat = torch.ones(8, dtype=torch.float64)  # equal values: equal shares
    assert [lssf.rank(flat, x) for x in (0.12, 0.49, 0.99)] == [1, 4, 8]
    assert lssf.rank(torch.tensor([2.0, 0.0, 0.0]), 0.9) == 1  # one direction has no entropy


def test_leading_directions_are_emphasised_between_one_and_the_first():
    lssf = registry.load("lssf")
    assert torch.allclose(lssf.emphases(torch.tensor([5.0, 3.0, 1.0]), 3.0), torch.tensor([3.0, 2.0, 1.0]))
    for equal in (torch.tensor([2.0, 2.0]), torch.tensor([2.0])):
        assert torch.equal(lssf.emphases(equal, 3.0), torch.ones(len(equal)))
    w = _random(6, 5)
    u, a = lssf.directions(w, None, lssf.Settings(entropy=0.6, emphasis=2))
    _, once = lssf.directions(w, None, lssf.Settings(entropy=0.6, emphasis=2, power=1))
    assert torch.allclose(a, once**2) and float(a[0]) == pytest.approx(4) and u.shape == (6, len(a))


def test_lssf_without_emphasis_projects_and_with_all_entropy_is_resta(realigned, merge, family):  # noqa: F811
    lssf = registry.load("lssf")
    u, a = lssf.directions(_random(8, 6), _random(6, 40, seed=1) @ _random(6, 40, seed=1).T, lssf.Settings(entropy=0.7))
    p = (u * a) @ u.T
    assert torch.allclose(p @ p, p) and torch.allclose(p, p.T) and u.shape[1] < 6
    out, _ = realigned("lssf", {"entropy": 1, "strength": 0.4, "subspace": "vector"}, needs=False)
    resta, _ = merge("resta", {"gamma": 0.4})
    finetuned = load_file(family["finetuned"])
    for name in out:
        assert torch.allclose(out[name], resta[name] if of_weight(name) else finetuned[name], atol=1e-6), name


def test_lssf_asks_for_what_its_settings_need():
    lssf = registry.load("lssf").Settings
    assert lssf().artifacts() == {"roles": ["unaligned"], "gram": "unit"} and "unit" in GRAMS
    assert lssf(vector="base", subspace="vector").artifacts() == {"roles": ["base"], "gram": None}
    assert lssf().unread() == {"power"} and lssf(emphasis=2).unread() == set()


# ---- NLSR -----------------------------------------------------------------------------------------


def _critical(x, delta, rank_share, share):
    """M by the singular vectors of X Dᵀ themselves."""
    v = np.linalg.svd(x @ delta.T, full_matrices=False)[2].T[:, : int(rank_share * min(delta.shape))]
    size = np.abs(v @ v.T @ delta)
    return size >= np.sort(size.ravel())[-round(share * size.size)]


def test_nlsr_finds_what_writes_the_leading_directions_on_refusals():
    nlsr, delta = registry.load("nlsr"), _random(9, 7, seed=1)
    x = _random(50, 7) * torch.linspace(3, 0.1, 7).double()
    for rank_share, share in ((0.3, 0.2), (0.8, 0.5), (1.0, 0.1)):
        settings = nlsr.Settings(rank_share=rank_share, critical=share)
        mask = nlsr.critical(delta, x.T @ x, settings)
        assert np.array_equal(mask.numpy(), _critical(x.numpy(), delta.numpy(), rank_share, share))
        assert int(mask.sum()) == round(share * 63)


def test_nlsr_restores_likelier_what_strays_or_as_the_code_does_what_does_not():
    nlsr, cosines = registry.load("nlsr"), {"a": 0.9, "b": -0.2, "c": 0.4, "d": 0.5, "e": 0.1}
    paper = nlsr.chances(cosines, nlsr.Settings())
    assert paper == pytest.approx({"b": 0.7, "e": 0.6, "c": 0.5, "d": 0.4, "a": 0.3})
    code = nlsr.chances(cosines, nlsr.Settings(chance="code"))
    assert code == pytest.approx({"b": 0.3, "e": 0.4, "c": 0.5, "d": 0.6, "a": 0.7})
    wide = nlsr.chances(cosines, nlsr.Settings(probability=0.9, spread=0.3))
    assert wide["b"] == 1 and wide["a"] == pytest.approx(0.6)


@pytest.mark.parametrize("options", [{}, {"chance": "code", "weak": "unaligned", "amplify": 0.5, "critical": 0.4}])
def test_nlsr_is_the_published_rule_on_whole_updates(options, realigned, family, refusals):  # noqa: F811
    out, record = realigned("nlsr", options, (options.get("weak", "base"),))
    of, x = _float64(family), _inputs(family["aligned"].parent, refusals[0], answers=True)
    weak, aligned, finetuned = of[options.get("weak", "base")], of["aligned"], of["finetuned"]
    reference, masks, cosines = {}, {}, {}
    for name in x:
        reference[name] = aligned[name] + options.get("amplify", 0.9) * (aligned[name] - weak[name])
        masks[name] = _critical(x[name], reference[name] - weak[name], 0.8, options.get("critical", 0.2))
        a, b = ((masks[name] * (w[name] - weak[name])).ravel() for w in (finetuned, reference))
        cosines[name] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    ranked = sorted(cosines, key=cosines.get, reverse="chance" not in options)
    restored = 0
    for i, name in enumerate(ranked):
        draw = float(torch.rand((), generator=fusion.generator(5, "nlsr", name)))
        want = finetuned[name]
        if draw < 0.3 + 0.4 * i / (len(ranked) - 1):
            restored += 1
            want = np.where(masks[name], reference[name], want)
        assert (np.abs(out[name].double().numpy() - want) < 1e-6).mean() > 0.998, name  # a tie at the last entry kept
    assert 0 < restored < len(ranked) == record["modules"] and record["modules_restored"] == restored
    assert all(np.array_equal(out[k].double().numpy(), finetuned[k]) for k in out if k not in x)


def test_nlsr_restores_nothing_or_everything_at_its_limits(realigned, family):  # noqa: F811
    finetuned, of = load_file(family["finetuned"]), _float64(family)
    for roles in ({}, {"finetuned": family["aligned"].parent}):
        settings = {"probability": 0, "spread": 0} if not roles else {"probability": 1, "spread": 0, "amplify": 0}
        out, record = realigned("nlsr", settings, ("base",), out=f"limit{len(roles)}", **roles)
        want = finetuned if not roles else load_file(family["aligned"])
        assert all(torch.equal(out[k], want[k]) for k in out)
        assert record["modules_restored"] == (14 if roles else 0)
    out, record = realigned("nlsr", {"probability": 1, "spread": 0}, ("base",))
    assert record["modules_restored"] == 14
    for name in (k for k in out if of_weight(k)):
        got, reference = out[name].double().numpy(), 1.9 * of["aligned"][name] - 0.9 * of["base"][name]
        back = np.abs(got - reference) < 1e-6
        assert back.mean() == pytest.approx(0.2, abs=0.002)
        assert np.array_equal(got[~back], of["finetuned"][name][~back])


def test_nlsr_asks_for_what_its_settings_need():
    nlsr = registry.load("nlsr").Settings
    assert nlsr().artifacts() == {"roles": ["base"], "gram": "response"} and "response" in GRAMS
    assert nlsr(weak="unaligned").artifacts()["roles"] == ["unaligned"] and nlsr(spread=0).unread() == {"chance"}


def test_nlsr_keeps_one_direction_at_least():
    nlsr, delta, x = registry.load("nlsr"), _random(9, 7, seed=1), _random(50, 7)
    mask = nlsr.critical(delta, x.T @ x, nlsr.Settings(rank_share=0.01, critical=0.2))
    assert torch.equal(mask, nlsr.critical(delta, x.T @ x, nlsr.Settings(rank_share=1 / 7 + 1e-9, critical=0.2)))
    assert int(mask.sum()) == round(0.2 * 63)


def test_lssf_counts_the_ranks_of_modules_that_have_a_safety_vector(realigned, family):  # noqa: F811
    out, record = realigned("lssf", {"subspace": "vector"}, needs=False, unaligned=family["aligned"].parent)
    assert all(torch.equal(out[k], v) for k, v in load_file(family["finetuned"]).items()) and "rank_share" not in record
