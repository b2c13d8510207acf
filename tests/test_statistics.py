"""The statistics module against scipy, and where naive formulas fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
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
    assert stats.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]), abs=1e-12)


def test_a_clear_difference_is_seen_and_equal_arms_are_not():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 120)) < 0.9, rng.random((3, 120)) < 0.4
    d = stats.paired_difference(a, b)
    assert d.low > 0.3 and d.effect == pytest.approx(a.mean() - b.mean()) and d.p < 1e-6
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


def test_minimum_detectable_effect():
    assert stats.minimum_detectable(520) == pytest.approx(0.0388, abs=1e-3)
