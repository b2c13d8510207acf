"""The statistics module against scipy, and where naive formulas fail."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import binomtest, t, ttest_1samp
from statsmodels.stats.multitest import multipletests

from holdfast import statistics as stats


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(case):
    k, n = case
    low, high = stats.wilson(k, n)
    reference = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert low == pytest.approx(reference.low, abs=1e-9)
    assert high == pytest.approx(reference.high, abs=1e-9)
    assert low <= k / n <= high and high - low > 0


def test_wilson_of_nothing():
    assert stats.wilson(0, 0) == (0.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(p):
    with mock.patch("gc.collect"):  # statsmodels does it in every call; after a thousand tests that takes half a second
        expected = list(multipletests(p, method="holm")[1])
    assert stats.holm(p) == pytest.approx(expected, abs=1e-12)


def test_a_clear_difference_is_seen_and_equal_arms_are_not():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 120)) < 0.9, rng.random((3, 120)) < 0.4
    d = stats.paired_difference(a, b)
    assert d.low > 0.3 and d.effect == pytest.approx(a.mean() - b.mean()) and d.p < 1e-3
    same = stats.paired_difference(a, a)
    assert same.effect == 0 and same.low < 0 < same.high and same.p == 1.0


def test_one_seed_bootstrap_matches_the_paired_standard_error():
    rng = np.random.default_rng(1)
    a, b = rng.random((1, 400)) < 0.6, rng.random((1, 400)) < 0.5
    d = stats.paired_difference(a, b)
    delta = a.astype(float) - b
    error = delta.std() / 20
    assert d.high - d.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_seeds_that_differ_widen_the_interval():
    prompts = np.arange(120)
    agree = np.tile(prompts < 60, (3, 1))
    differ = np.stack([prompts < 20, prompts < 60, prompts < 100])
    narrow, wide = stats.pooled_rate(agree), stats.pooled_rate(differ)
    assert narrow[0] == wide[0] == 0.5
    assert wide[2] - wide[1] > 2 * (narrow[2] - narrow[1])


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(2)
    base = np.repeat(rng.random(30) < 0.5, 4)[None, :]
    other = np.zeros_like(base)
    clusters = [str(i // 4) for i in range(120)]
    alone, grouped = stats.paired_difference(base, other), stats.paired_difference(base, other, clusters)
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_identical_outcomes_never_look_certain(value):
    rate, low, high = stats.pooled_rate(np.full((3, 50), value))
    assert rate == value and high - low > 0.05


def _arm(rng, seeds, difficulty, effect, spread):
    """Outcomes (seeds, prompts) of an arm whose seeds differ by `spread` in log odds."""
    logits = difficulty[None] + effect + rng.normal(0, spread, (seeds, 1))
    return rng.random((seeds, len(difficulty))) < 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (3, 0.5), (3, 1.5), (5, 1.0)])
def test_arms_that_are_equal_are_called_different_in_at_most_5_percent(seeds, spread):
    """Planted null studies, also ones whose seeds differ much more than their prompts."""
    rng, wrong, studies = np.random.default_rng(0), 0, 200
    for _ in range(studies):
        difficulty = rng.normal(0, 1.5, 120)
        a, b = (_arm(rng, seeds, difficulty, 0.0, spread) for _ in range(2))
        d = stats.paired_difference(a, b)
        wrong += d.p < 0.05 and (d.low > 0 or d.high < 0)
    # 5 % with two standard errors of the count
    assert wrong <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)


def test_a_large_effect_is_seen_with_three_seeds_that_differ():
    rng, found = np.random.default_rng(1), 0
    for _ in range(100):
        difficulty = rng.normal(0, 1.5, 120)
        d = stats.paired_difference(_arm(rng, 3, difficulty, 2.5, 0.3), _arm(rng, 3, difficulty, 0.0, 0.3))
        found += d.p < 0.05 and d.low > 0
    assert found >= 90


def test_prompts_that_share_a_base_count_once():
    """Eight wrappers of five base prompts: 40 discordant pairs are five, and five are not enough."""
    a, b, clusters = np.ones((1, 40)), np.zeros((1, 40)), [str(i // 8) for i in range(40)]
    assert stats.mcnemar(a - b) < 1e-10
    assert stats.mcnemar(a - b, clusters) == pytest.approx(2 / 2**5)
    assert stats.paired_difference(a, b, clusters).p == pytest.approx(2 / 2**5)


def test_the_two_way_error_is_the_clustered_one_of_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    delta = rng.integers(-1, 2, (1, 60)).astype(float)
    clusters = [str(i // 3) for i in range(60)]
    fit = sm.OLS(delta[0], np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(clusters).astype(int), "use_correction": False}
    )
    groups = 20
    d = stats.paired_difference((delta + 1) / 2, np.full((1, 60), 0.5), clusters)
    assert 2 * d.error == pytest.approx(fit.bse[0] * np.sqrt(groups / (groups - 1)), rel=1e-9)
    assert d.df == pytest.approx(groups - 1)


def test_non_inferiority_is_a_one_sided_t_test():
    rng = np.random.default_rng(4)
    a, b = rng.random((1, 300)) < 0.8, rng.random((1, 300)) < 0.8
    d = stats.paired_difference(a, b)
    assert d.p_above(-0.03) == pytest.approx(t.sf((d.effect + 0.03) / d.error, 299)) and d.p_above(-0.3) < 1e-6
    same = stats.paired_difference(a, a)
    assert same.p_above(-0.03) == pytest.approx(0.97**300) and same.error > 0
    few = stats.paired_difference(a[:, :50], a[:, :50])
    assert few.p_above(-0.03) == pytest.approx(0.97**50)  # fifty equal prompts establish nothing


def test_independent_rates_have_newcombes_interval():
    """The square-and-add form of Newcombe 1998 (method 10), from Wilson's limits of both rates."""
    for (x, n), (y, m) in (((9, 20), (14, 30)), ((0, 12), (11, 40)), ((50, 60), (20, 60))):
        (p, q), (low, high), (least, most) = (x / n, y / m), stats.wilson(x, n), stats.wilson(y, m)
        found = stats.independent_difference((p, n), (q, m))
        want = (p - q, p - q - np.hypot(p - low, most - q), p - q + np.hypot(high - p, q - least))
        assert found == pytest.approx(want, abs=1e-9)


def test_kappa_is_cohens_with_its_own_interval():
    table = [[30, 5, 0], [4, 20, 3], [1, 2, 35]]
    share = np.array(table) / 100
    chance = float(share.sum(0) @ share.sum(1))
    kappa, low, high = stats.kappa(table)
    assert kappa == pytest.approx((np.trace(share) - chance) / (1 - chance))
    assert -1 <= low < kappa < high <= 1 and high - kappa == pytest.approx(kappa - low)
    assert stats.kappa([[5, 0], [3, 0]]) == stats.kappa([[0, 0], [0, 0]]) == (None, None, None)


@pytest.mark.parametrize(("difference", "discordant", "comparisons"), [(0.25, 0.4, 1), (0.2, 0.2, 1), (0.3, 0.1, 4)])
def test_power_counts_the_outcomes_that_mcnemar_calls_different(difference, discordant, comparisons):
    """Every number of discordant prompts and every number of wins among them, one by one."""
    from math import comb

    n, share = 24, max(discordant, difference)
    win, seen = (share + difference) / (2 * share), 0.0
    for pairs in range(n + 1):
        for wins in range(pairs + 1):
            if 2 * wins > pairs and binomtest(wins, pairs).pvalue <= 0.05 / comparisons:
                chance = comb(n, pairs) * share**pairs * (1 - share) ** (n - pairs)
                seen += chance * comb(pairs, wins) * win**wins * (1 - win) ** (pairs - wins)
    found = stats.power(difference, n, discordant=discordant, comparisons=comparisons)
    assert found == pytest.approx(seen, abs=1e-9) and found > 0.05


def test_the_smallest_difference_has_the_power_it_aims_at():
    found = stats.smallest_difference(120, aim=0.8)
    assert stats.power(found, 120) == pytest.approx(0.8, abs=1e-3)
    assert stats.smallest_difference(120, aim=0.9) > found > stats.smallest_difference(240, aim=0.8)
    assert stats.smallest_difference(4) == 1.0


def test_seeds_that_differ_weigh_in_by_students_t():
    """Gains of 95, 60 and 25 % in three seeds: a sign test over prompts sees certainty, three seeds do not."""
    a = np.stack([np.arange(40) < k for k in (38, 24, 10)]).astype(float)
    rest = a - a.mean()
    over_prompts = 40 / 39 * (rest.sum(0) ** 2).sum() / 120**2
    over_seeds = 3 / 2 * (rest.sum(1) ** 2).sum() / 120**2
    beyond = over_seeds - (rest**2).sum() / 120**2
    error = np.sqrt(over_prompts + beyond)
    satterthwaite = error**4 / (over_prompts**2 / 39 + over_seeds**2 / 2)
    df = 2 / (1 / satterthwaite + 1 / 2)
    d = stats.paired_difference(a, np.zeros_like(a))
    assert d.error == pytest.approx(error) and d.df == pytest.approx(df)
    assert d.p == pytest.approx(2 * t.sf(a.mean() / error, df)) and d.p > 1000 * stats.mcnemar(a)
    assert d.low == pytest.approx(a.mean() - t.isf(0.025, 2) * error) and d.high == 1


def _held(rate):
    """Log odds of a rate drawn towards one half by 15 %."""
    return logit(0.075 + 0.85 * rate)


def test_rates_near_their_bounds_are_compared_by_their_log_odds_too():
    """With units whose prompts all agree, p is that of the plain t-test of held log odds, which doubts more."""
    a, b = np.array([0.99, 0.9, 0.8]), np.array([0.3, 0.3, 0.3])
    d = stats.paired_difference(np.repeat(a[:, None], 1000, 1), np.repeat(b[:, None], 1000, 1))
    assert d.p == pytest.approx(ttest_1samp(_held(a) - _held(b), 0).pvalue, rel=5e-3)
    assert d.p > 1.1 * ttest_1samp(a - b, 0).pvalue


def test_log_odds_know_as_little_of_the_prompts_as_a_bootstrap_does():
    rng = np.random.default_rng(5)
    one, other = (np.repeat(rng.random(300) < share, 2).astype(float) for share in (0.9, 0.82))
    clusters = [str(i // 2) for i in range(600)]
    drawn = [rng.integers(0, 300, 300) for _ in range(4000)]
    gains = [_held(one[::2][i].mean()) - _held(other[::2][i].mean()) for i in drawn]
    p = stats._p_of_log_odds(np.stack([one, one]), np.stack([other, other]), clusters)
    assert t.isf(p / 2, 299) == pytest.approx((_held(one.mean()) - _held(other.mean())) / np.std(gains), rel=0.05)


@pytest.mark.parametrize(("units", "seeds", "effect", "shift"), [(3, 1, 0.5, 0.0), (3, 2, 1.5, 2.0), (5, 1, 1.5, 0.0)])
def test_a_family_of_equal_arms_has_a_false_claim_in_at_most_5_percent(units, seeds, effect, shift, monkeypatch):
    """Fourteen arms beside one: with Satterthwaite's degrees of freedom and rates alone it was 14 % of the first."""
    monkeypatch.setattr(stats, "two_level", lambda delta, clusters: delta.mean(keepdims=True))  # Student's is wider
    rng, wrong, studies = np.random.default_rng(6), 0, 150
    for _ in range(studies):
        hard = rng.normal(shift, 1.5, 120)
        full, *arms = (
            _arm(rng, units * seeds, hard, np.repeat(rng.normal(0, effect, units), seeds)[:, None], 0.5 * (seeds > 1))
            for _ in range(15)
        )
        cells = np.repeat(np.arange(units), seeds)
        found = [stats.paired_difference(stats.by_unit(a, cells), stats.by_unit(full, cells)) for a in arms]
        wrong += any(
            p < 0.05 and (d.low > 0 or d.high < 0) for p, d in zip(stats.holm([d.p for d in found]), found, strict=True)
        )
    assert wrong <= 0.05 * studies + 2 * np.sqrt(0.05 * 0.95 * studies)


def test_one_model_beside_several_is_as_many_alike():
    """What is there once is held against every seed of the other, in whichever order."""
    stream = np.random.default_rng(0)
    one, several = stream.random((1, 120)) < 0.75, stream.random((3, 120)) < 0.6
    found, other = stats.paired_difference(one, several), stats.paired_difference(several, one)
    assert found == stats.paired_difference(np.repeat(one, 3, axis=0), several)
    assert other.p == found.p and other.effect == -found.effect


def test_units_are_means_of_their_models():
    values = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert stats.by_unit(values, [0, 0, 5]).tolist() == [[0.5, 0.0], [1.0, 1.0]]
    assert stats.by_unit(values, [3, 3, 3]).tolist() == values.tolist()  # one unit: its models are seeds


def test_models_that_differ_in_rounding_alone_are_one_draw():
    """By their records: two seeds rounded in two ways, and two bases of which one has two roundings."""
    same = {"base": 0, "aligned": 0, "draw": 0, "order": 0, "unit": 0}
    seeds = [same | {"seed": s, "instructions": i} for s in (0, 1) for i in ("native", "common")]
    assert stats.by_draw(np.array([[0.0], [1.0], [1.0], [1.0]]), seeds).tolist() == [[0.5], [1.0]]
    bases = [same | {"seed": 0}, same | {"seed": 0, "instructions": "common"},
             {"base": 2, "aligned": 2, "draw": 2, "order": 2, "unit": 2, "seed": 0}]  # fmt: skip
    assert stats.by_draw(np.array([[0.0], [1.0], [0.2]]), bases).tolist() == [[0.5], [0.2]]
    assert stats.by_draw(np.array([[0.0], [1.0]]), [{"seed": 0}, {"seed": 1}]).tolist() == [[0.0], [1.0]]
    several = [same | {"base": u, "aligned": u, "unit": u, "seed": s} for u in (0, 1) for s in (0, 1)]
    assert stats.by_draw(np.array([[0.0], [1.0], [0.2], [0.4]]), several).flatten() == pytest.approx([0.5, 0.3])


def test_what_cancels_out_in_thirds_is_no_sign():
    """Two replicates of three seeds: 0 against 1, and 3 against 2, of 3. As floats the sum is 5.6e-17, not 0."""
    thirds = np.array([[0.0], [1.0]]) - np.array([[1 / 3], [2 / 3]])
    assert thirds.sum() != 0
    up = np.array([[1 / 3], [1 / 3]])
    assert stats.mcnemar(np.hstack([thirds] * 9 + [up])) == 1.0  # one prompt says something, nine say nothing


def test_units_are_drawn_again_in_the_bootstrap():
    """Three units that answer all prompts alike: their mean has the spread of three draws of them."""
    draws = stats.two_level(np.repeat([[0.1], [0.5], [0.9]], 50, axis=1))
    assert draws.std() == pytest.approx(np.std([0.1, 0.5, 0.9]) / 3**0.5, rel=0.05)


def test_the_interval_of_a_rate_is_students_over_few_units():
    """Three units, 400 prompts answered alike within a unit: variance over units as the textbook has it."""
    rates = np.array([0.45, 0.5, 0.55])
    hits = np.stack([np.arange(400) < n for n in (180, 200, 220)])
    rate, low, high = stats.pooled_rate(hits)
    half = t.isf(0.025, 2) * rates.std(ddof=1) / 3**0.5
    assert rate == pytest.approx(0.5) and high - low > 2 * half * 0.75
    assert stats.pooled_rate(hits[1:2])[2] - 0.5 < (high - low) / 2 < 0.3


def test_wordings_of_one_prompt_count_as_one_where_they_are_answered_alike():
    alike = np.repeat(np.arange(20) < 8, 6)[None, :]
    clusters = [str(i // 6) for i in range(120)]
    assert stats.pooled_rate(alike, clusters)[1:] == pytest.approx(stats.wilson(8, 20), abs=0.01)
    apart = np.tile(np.arange(6) < 3, 20)[None, :]  # as different within a prompt as can be
    assert stats.pooled_rate(apart, clusters)[1:] == pytest.approx(stats.wilson(60, 120), abs=1e-9)


def test_the_power_of_several_units_is_that_of_both_tests_together():
    from scipy.stats import nct

    n, units, spread, d = 120, 5, 0.1, 0.25
    error = ((0.25 - d**2) / n + spread**2 / units) ** 0.5  # a fifth of the prompts differ, or as many as must
    by_units = nct.sf(t.isf(0.025, units - 1), units - 1, d / error)
    by_prompts = stats.power(d, n, discordant=0.25)
    expected = by_units + by_prompts - 1
    assert stats.power(d, n, discordant=0.25, units=units, spread=spread) == pytest.approx(expected, abs=1e-9)


def test_a_mean_of_grades_is_known_as_well_as_their_spread_says():
    """Wilson's interval for as many right or wrong answers as have the standard error of this mean."""
    values = np.random.default_rng(5).beta(8, 12, 150)
    rate, low, high = stats.pooled_rate(values[None], graded=True)
    error = values.std(ddof=1) / math.sqrt(len(values))
    n = rate * (1 - rate) / error**2
    assert (rate, low, high) == pytest.approx((values.mean(), *stats.wilson(rate * n, n)))
    assert (low, high) == pytest.approx((rate - 1.96 * error, rate + 1.96 * error), abs=0.1 * error)
    draws = stats.two_level(values[None])
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.15 * error)
    _, a, b = stats.pooled_rate(values[None])
    assert a < low and high < b, "as right or wrong answers they would know less"


def test_grades_that_are_right_or_wrong_are_a_rate():
    hits = np.arange(120)[None] % 3 == 0
    assert stats.pooled_rate(hits, graded=True) == pytest.approx(stats.pooled_rate(hits), abs=1e-3)
    for same in (np.zeros((1, 50)), np.ones((1, 50)), np.full((1, 50), 0.4)):
        assert stats.pooled_rate(same, graded=True) == pytest.approx(stats.pooled_rate(same))


def test_a_mean_of_grades_is_in_its_interval():
    rng, inside = np.random.default_rng(6), 0
    for _ in range(400):
        _, low, high = stats.pooled_rate(rng.beta(0.6, 2.4, (1, 60)), graded=True)
        inside += low <= 0.2 <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_grades_of_several_seeds_and_of_wordings_are_known_less():
    rng = np.random.default_rng(7)
    base = rng.beta(4, 4, 100)
    apart = np.clip(base + np.array([[-0.2], [0.0], [0.2]]), 0, 1)
    wide, narrow = (stats.pooled_rate(v, graded=True) for v in (apart, apart[1:2]))
    assert wide[2] - wide[1] > 2 * (narrow[2] - narrow[1])
    clusters = [str(i % 10) for i in range(100)]
    alike = np.repeat(rng.beta(4, 4, 10)[None], 10, axis=0).reshape(1, -1)
    low, high = stats.pooled_rate(alike, clusters, graded=True)[1:]
    ten = stats.pooled_rate(alike[:, :10], graded=True)[1:]
    assert (low, high) == pytest.approx(ten, abs=0.01)
