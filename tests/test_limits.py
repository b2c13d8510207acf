"""Limits for decisions: against exact ones, draws of their definition, textbook formulas, and simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import limits
from holdfast.limits import paired_limits


def lost(n, k, units=1):
    """Outcomes of an arm that loses its first k of n prompts, in every unit, and of what it is held against."""
    a = np.ones((units, n))
    a[:, :k] = 0
    return a, np.ones((units, n))


@pytest.mark.parametrize(("n", "k"), [(59, 0), (20, 3), (120, 0), (120, 7), (300, 1), (300, 150), (5, 5)])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_limit_of_losses_alone_is_clopper_and_pearsons(n, k, level):
    from scipy.stats import beta

    exact = 1.0 if k == n else beta.isf(level, k + 1, n - k)
    assert limits.paired_limits(*lost(n, k)).low(level) == pytest.approx(-exact, rel=0.01)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_limit_is_the_quantile_of_weighted_means_with_a_prompt_more(clustered):
    """By a hundred thousand draws of Dirichlet weights; clusters are weighted whole, one more is of their mean size."""
    rng = np.random.default_rng(5)
    delta = rng.choice([-1.0, 0.0, 1.0], 90, p=[0.12, 0.8, 0.08])
    a, b = (delta > 0) * 1.0, (delta < 0) * 1.0
    labels = np.sort(rng.integers(0, 30, 90)) if clustered else np.arange(90)
    sums, sizes = (np.array([x[labels == g].sum() for g in np.unique(labels)]) for x in (delta, np.ones(90)))
    weights = rng.exponential(size=(100_000, len(sums) + 1))
    sums, sizes = np.append(sums, -sizes.mean()), np.append(sizes, sizes.mean())
    drawn = (weights @ sums) / (weights @ sizes)
    found = limits.paired_limits(a[None], b[None], [f"{g}" for g in labels])
    for level in (0.05, 0.01):
        assert (drawn < found.low(level)).mean() == pytest.approx(level, rel=0.08)


ANSWERS = st.tuples(st.integers(1, 4), st.integers(2, 30), st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))


def drawn(case):
    units, prompts, seed, p, q = case
    rng = np.random.default_rng(seed)
    return (rng.random((units, prompts)) < p).astype(float), (rng.random((units, prompts)) < q).astype(float)


@settings(deadline=None)
@given(ANSWERS)
def test_limits_lie_on_both_sides_and_exchange_with_the_arms(case):
    a, b = drawn(case)
    one, other = limits.paired_limits(a, b), limits.paired_limits(b, a)
    assert -1 <= one.low(0.05) <= one.effect <= one.high(0.05) <= 1 and one.high(0.05) - one.low(0.05) > 0.001
    assert one.low(0.05) == pytest.approx(-other.high(0.05), abs=1e-6)
    assert one.low(0.01) <= one.low(0.05) + 1e-9 and one.high(0.01) >= one.high(0.05) - 1e-9


@settings(deadline=None)
@given(ANSWERS)
def test_an_answer_more_that_is_lost_never_raises_the_limit_of_one_draw(case):
    a, b = drawn((1, *case[1:]))
    worse = a.copy()
    worse[0, np.argmax(a[0])] = 0
    assert limits.paired_limits(worse, b).low(0.05) <= limits.paired_limits(a, b).low(0.05) + 1e-6


@settings(max_examples=50, deadline=None)
@given(ANSWERS, st.floats(-0.6, 0.3))
def test_p_is_the_level_whose_limit_is_the_bound(case, bound):
    of = limits.paired_limits(*drawn(case))
    p, q = of.p_above(bound), of.p_below(bound)
    assert 0 < p <= 0.5 and 0 < q <= 0.5 and max(p, q) > 0.3
    for found, limit, sign in ((p, of.low, 1), (q, of.high, -1)):
        if 1e-10 < found < 0.49:  # of several units limits may jump: what is not ruled out need not hang together
            assert sign * limit(0.99 * found) <= sign * bound + 1e-6
            assert sign * limit(1.01 * found) >= sign * bound - 1e-6


def test_units_count_by_students_t_beside_the_prompts():
    """Three units at rates around one half, where no other rate would vary much more: distances squared and added."""
    from scipy.stats import t

    rates = (0.42, 0.5, 0.58)
    a = np.stack([np.arange(200) < 200 * r for r in rates]).astype(float)
    b = np.tile(np.arange(200) < 100, (3, 1)).astype(float)
    of = limits.paired_limits(a, b)
    over_prompts = limits.paired_limits(a.mean(0, keepdims=True), b[:1])
    over_units = t.isf(0.05, 2) * np.std(rates, ddof=1) / 3**0.5
    distance = np.hypot(over_prompts.effect - over_prompts.low(0.05), over_units)
    assert of.low(0.05) == pytest.approx(of.effect - distance, rel=0.02)


def test_units_near_a_bound_vary_more_where_they_lose():
    """Three units that keep 99, 98 and 100 of 100: at the rate that is ruled out they would differ more."""
    from scipy.stats import t

    a = np.stack([np.arange(300) < n for n in (297, 294, 300)]).astype(float)
    b = np.ones((3, 300))
    of = limits.paired_limits(a, b)
    low = of.low(0.05)
    shares = np.array([(n + 1 / 3) / (300 + 2 / 3) for n in (297, 294, 300)])
    rate = (300 + 1 / 3) / (300 + 2 / 3) + low
    growth = rate * (1 - rate) / (shares * (1 - shares)).mean()
    spread = np.var([0.99, 0.98, 1.0], ddof=1) / 3
    over_prompts = of.effect - limits.paired_limits(a.mean(0, keepdims=True), b[:1]).low(0.05)
    assert growth > 3
    assert (of.effect - low) ** 2 == pytest.approx(over_prompts**2 + t.isf(0.05, 2) ** 2 * spread * growth**2, rel=0.01)
    plain = of.effect - np.hypot(over_prompts, t.isf(0.05, 2) * spread**0.5)
    assert low < plain - 0.01


def test_units_that_change_together_are_compared_as_pairs():
    """Rates from 40 to 60 % in both arms alike say nothing of their difference."""
    together = np.stack([np.arange(300) < n for n in (120, 150, 180)]).astype(float)
    alone = np.hypot(1 - 0.05 ** (1 / 300), 2.92 * (0.02 * 0.98 / 900) ** 0.5)
    assert -1.3 * alone < limits.paired_limits(together, together).low(0.05) < -0.01
    assert limits.paired_limits(together, together[[1, 2, 0]]).low(0.05) < -0.15


@pytest.mark.parametrize("units", [1, 2, 3, 5])
@pytest.mark.parametrize("margin", [0.05, 0.1])
def test_fewer_prompts_than_the_least_rule_out_nothing(units, margin):
    least = limits.least_prompts(margin, 0.05, units)
    assert limits.paired_limits(*lost(least - 1, 0, units)).low(0.05) <= -margin
    assert limits.paired_limits(*lost(least + 3, 0, units)).low(0.05) > -margin


def test_the_least_prompts_of_one_draw_are_those_of_a_binomial():
    for margin, level in ((0.05, 0.05), (0.02, 0.05), (0.1, 0.01)):
        n = limits.least_prompts(margin, level)
        assert (1 - margin) ** n <= level < (1 - margin) ** (n - 1)


@pytest.mark.parametrize(
    ("prompts", "units", "discordant"), [(120, 1, 0.05), (300, 1, 0.2), (300, 5, 0.2), (120, 8, 0.05)]
)
def test_the_power_of_a_gate_is_what_simulated_studies_have(prompts, units, discordant):
    rng, passed, studies = np.random.default_rng(6), 0, 150
    for _ in range(studies):
        u = rng.random((units, prompts))
        a, b = (u > discordant / 2) * 1.0, ((u < discordant / 2) | (u > discordant)) * 1.0
        passed += limits.paired_limits(a, b).low(0.05) > -0.05
    found = limits.limits_without_loss(prompts, discordant=discordant, units=units)
    assert found.power(-0.05, 0.05) == pytest.approx(passed / studies, abs=0.13)


def test_as_many_prompts_as_are_needed_have_the_power_that_is_aimed_at():
    few = limits.limits_without_loss(120, discordant=0.2)
    prompts, units = few.needed(-0.05, 0.05)
    assert units is None and 400 < prompts < 700
    enough = limits.limits_without_loss(prompts, discordant=0.2)
    assert enough.power(-0.05, 0.05) == pytest.approx(limits.AIM, abs=0.03)
    # At the bound no number is enough; below it the difference is told from the other side.
    at = limits.paired_limits(*lost(100, 5))
    assert at.needed(-0.05, 0.05) == (None, None)
    below = limits.paired_limits(*lost(100, 8))
    more = below.needed(-0.05, 0.05)[0]
    assert more > 100 and limits.paired_limits(*lost(more, round(0.08 * more))).high(0.05) < -0.05


def test_one_model_beside_several_is_the_same_model_each_time():
    """A model that is given has no seeds, what it is held against may."""
    rng = np.random.default_rng(5)
    one, several = rng.random((1, 80)) < 0.9, rng.random((3, 80)) < 0.95
    for a, b in ((one, several), (several, one)):
        found, wanted = (
            paired_limits(a, b),
            paired_limits(np.repeat(a, 4 - len(a), 0)[:3], np.repeat(b, 4 - len(b), 0)[:3]),
        )
        assert (found.units, found.spreads, found.low(0.05)) == (wanted.units, wanted.spreads, wanted.low(0.05))
        assert np.isfinite(found.spreads).all() and -1 < found.low(0.05) < found.effect < found.high(0.05) < 1
