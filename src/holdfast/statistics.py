"""The one statistics module: intervals for rates, paired differences, corrections. scipy and numpy.

Facts it stands on: Miller 2024 (arXiv 2411.00640) for clustered and paired comparison of evaluations;
Wilson's interval for rates, which is never of zero width, also at 0 of n and n of n.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000
HELD = 0.15  # how far rates are drawn towards one half before their log odds are compared


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate; (0, 1) when nothing was observed.

    >>> [round(x, 3) for x in wilson(9, 10)]
    [0.596, 0.982]

    Written out because importing scipy costs more than judging a cell; tests compare it with
    `scipy.stats.binomtest(...).proportion_ci(method="wilson")`.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if successes <= 0 else low), (1.0 if successes >= n else high)


def independent_difference(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, float, float]:
    """(difference, low, high) of two rates (share, n) of different prompts: Newcombe's 95 % interval."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    (x, n), (y, m) = a, b
    low, high = confint_proportions_2indep(round(x * n), n, round(y * m), m, method="newcomb")
    return x - y, float(low), float(high)


def rates_apart(
    a: tuple[float, float, float], b: tuple[float, float, float]
) -> tuple[float, float, float]:  # fmt: skip
    """(difference, low, high) of two rates (value, low, high) of different prompts: the 95 % interval that follows from
    their own (Zou and Donner 2008); of Wilson's it is Newcombe's."""
    (p, low, high), (q, under, above) = a, b
    return p - q, p - q - math.hypot(p - low, above - q), p - q + math.hypot(high - p, q - under)


def kappa(matrix: Sequence[Sequence[float]]) -> tuple[float | None, float | None, float | None]:
    """Cohen's kappa of a square table of counts (rows: one rater, columns: the other) with its 95 % interval;
    None where it is not defined, because a rater used one label only or there are no counts."""
    from statsmodels.stats.inter_rater import cohens_kappa

    counts = np.asarray(matrix, dtype=float)
    if min((counts.sum(0) > 0).sum(), (counts.sum(1) > 0).sum()) < 2:
        return None, None, None
    used = (counts.sum(0) > 0) | (counts.sum(1) > 0)
    found = cohens_kappa(counts[np.ix_(used, used)], return_results=True)
    low, high = (float(np.clip(x, -1.0, 1.0)) for x in (found.kappa_low, found.kappa_upp))
    return float(found.kappa), low, high


def by_unit(values: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """Values (models, prompts) as what is drawn independently: where there are several units, the mean of the models
    of each (units, prompts), else the models themselves, which then are seeds.

    What differs between the means of units already holds what differs between the seeds inside them, so that a third
    level needs no more than that (Cameron, Gelbach and Miller 2011: clusters are those of the top level).
    """
    values, labels = np.asarray(values, dtype=float), np.asarray(units)
    distinct = np.unique(labels)
    if len(distinct) < 2:
        return values
    return np.stack([values[labels == unit].mean(axis=0) for unit in distinct])


def by_draw(values: np.ndarray, cells: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Values of models (models, ...) as what is drawn independently, by their records: of models that differ in
    rounding alone the mean comes first, since no draw lies between them; then `by_unit`."""
    keys = ("base", "aligned", "draw", "order")
    drawn = [(*(c.get(key, c.get("replicate", 0)) for key in keys), c["seed"]) for c in cells]
    first = np.array([drawn.index(d) for d in drawn])
    kept = np.unique(first)
    means = np.stack([np.asarray(values, dtype=float)[first == k].mean(axis=0) for k in kept])
    return by_unit(means, [cells[k].get("unit", 0) for k in kept])


def pooled_rate(
    hits: np.ndarray, clusters: Sequence[str] | None = None, *, graded: bool = False
) -> tuple[float, float, float]:  # fmt: skip
    """(rate, low, high) of hits (units, prompts) in [0, 1]; units are replicates, or the seeds of one.

    Args:
        clusters: of every prompt, which ones are wordings of the same: their answers are not independent.
        graded: the answers were not right or wrong but scored in between, so that the rate is a mean, of which as many
            prompts know more: its interval is Wilson's for as many right or wrong ones as have its variance.

    Units are a level of their own: prompts and units are resampled together, and because few units are too few to
    resample, the interval is at least Student's with the variance of both levels (`_two_way`). It is never narrower
    than Wilson's for one unit's prompts, so identical outcomes do not look certain; of prompts in clusters, for as many
    independent ones as have the variance of the clusters, at least one of each.
    """
    hits = np.asarray(hits, dtype=float)
    rate = float(hits.mean())
    sizes = _cluster_sums(np.ones_like(hits), clusters)
    residuals = _cluster_sums(hits, clusters) - rate * sizes
    prompts = _independent(rate, residuals.mean(axis=0), hits.shape[1], most=math.inf if graded else hits.shape[1])
    low, high = wilson(rate * prompts, prompts)
    if hits.shape[0] > 1:
        draws = two_level(hits, clusters)
        a, b = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        error, df = _two_way(residuals, hits.size)
        half = student(df) * error
        low, high = max(min(low, float(a), rate - half), 0.0), min(max(high, float(b), rate + half), 1.0)
    return rate, min(low, rate), max(high, rate)


def _independent(rate: float, residuals: np.ndarray, prompts: int, most: float) -> float:
    """How many independent prompts know a rate as well as these clusters do, from their residual sums (Kish 1965), at
    least one of each cluster and at `most` so many."""
    groups = len(residuals)
    if (groups == prompts and most == prompts) or not 0 < rate < 1:
        return float(groups)
    variance = groups / max(groups - 1, 1) * float((residuals**2).sum()) / prompts**2
    varies = variance * prompts > 1e-12  # and is not what floating point leaves of equal ones
    return float(np.clip(rate * (1 - rate) / variance if varies else prompts, groups, most))


def student(df: float) -> float:
    """How many standard errors the 95 % interval of Student's t reaches to each side."""
    from scipy.stats import t

    return float(t.isf((1 - CONFIDENCE) / 2, df))


@functools.lru_cache(maxsize=8)
def _draws(seeds: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed and each group is drawn, all resamples at once."""
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    return rows, rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)


def two_level(values: np.ndarray, clusters: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """Bootstrap means of values (seeds, items): seeds drawn with replacement, then items (or whole
    clusters of items), the same items for every drawn seed."""
    sums, sizes = _cluster_sums(values, clusters), _cluster_sums(np.ones((1, values.shape[1])), clusters)[0]
    seeds, groups = sums.shape
    rows, columns = _draws(seeds, groups, seed)
    means: np.ndarray = (rows @ sums * columns).sum(axis=1) / (seeds * (columns @ sizes))
    return means


@dataclass(frozen=True)
class Difference:
    """A paired difference of rates a - b: interval, p-value, and standard error with its degrees of freedom."""

    effect: float
    low: float
    high: float
    p: float
    n: int
    error: float
    df: float
    groups: int

    def p_above(self, bound: float) -> float:
        """One-sided p of "the difference is not above `bound`" (below zero), for statements of at most so much worse.

        Never smaller than the chance that as many prompts show no loss where the share -bound of them is lost: without
        a single loss the standard error knows nothing.
        """
        from scipy.stats import t

        return max(float(t.sf((self.effect - bound) / self.error, self.df)), (1 + min(bound, 0.0)) ** self.groups)


def paired_difference(a: np.ndarray, b: np.ndarray, clusters: Sequence[str] | None = None) -> Difference:
    """The difference a - b for outcomes (seeds, prompts) in [0, 1] of the same prompts and the same seeds; of a study
    with replicates these stand where seeds stand here (`by_unit`). One side may be a single model that every seed of
    the other is held against.

    The interval is a two-level bootstrap over seeds and clusters of prompts, never narrower than what
    zero discordant pairs in that many clusters allow (half of Wilson's upper end). p is the exact sign test over
    prompts (`mcnemar`). A few seeds are too few to resample, and a sign test over prompts does not see them: with
    several, both are also at least those of Student's t with the variance of both levels (`_two_way`), the interval
    with the degrees of freedom of the seeds, because a few seeds may look alike by luck, p with the harmonic mean of
    these and Satterthwaite's; and p is at least that of the log odds (`_p_of_log_odds`).
    """
    from scipy.stats import t

    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    delta = a - b
    effect = float(delta.mean())
    draws = two_level(delta, clusters)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    sums = _cluster_sums(delta, clusters)
    floor = wilson(0, sums.shape[1])[1] / 2
    error, df = _two_way(sums - effect * _cluster_sums(np.ones_like(delta), clusters), delta.size)
    error, p = max(error, floor / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)), mcnemar(delta, clusters)
    half = floor
    if len(delta) > 1:
        half = max(half, student(len(delta) - 1) * error)
        df = min(df, 2 / (1 / df + 1 / (len(delta) - 1)))
        p = max(p, float(2 * t.sf(abs(effect) / error, df)), _p_of_log_odds(a, b, clusters))
    low, high = min(float(low), effect - half), max(float(high), effect + half)
    return Difference(effect, max(low, -1.0), min(high, 1.0), p, delta.shape[1], error, df, sums.shape[1])


def _p_of_log_odds(a: np.ndarray, b: np.ndarray, clusters: Sequence[str] | None) -> float:
    """Two-sided p of Student's t for the difference of the log odds of a and b (seeds, prompts), with the variance of
    both levels, that of prompts by linearisation; 0 where nothing varies.

    Rates are bounded, so that those of a few seeds differ less than a normal variable would, and t finds too much;
    their log odds are not. Rates are drawn towards one half by `HELD` first, because log odds near 0 and 1 are noise.
    """
    from scipy.stats import t

    rates = [HELD / 2 + (1 - HELD) * x.mean(axis=1, keepdims=True) for x in (a, b)]
    gains = np.log(rates[0] / (1 - rates[0])) - np.log(rates[1] / (1 - rates[1]))
    moves = [
        (1 - HELD) * (x - x.mean(axis=1, keepdims=True)) / (rate * (1 - rate))
        for x, rate in zip((a, b), rates, strict=True)
    ]
    effect = float(gains.mean())
    error, df = _two_way(_cluster_sums(moves[0] - moves[1] + gains - effect, clusters), a.size)
    return float(2 * t.sf(abs(effect) / error, df)) if error else 0.0


def _cluster_sums(values: np.ndarray, clusters: Sequence[str] | None) -> np.ndarray:
    """(seeds, clusters) sums of values (seeds, items); without clusters every item is its own."""
    if clusters is None:
        return values
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((values.shape[0], index.max() + 1))
    np.add.at(sums.T, index, values.T)
    return sums


def _two_way(residuals: np.ndarray, n: int) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a mean of n crossed outcomes from the residual sums (seeds, clusters).

    Variance over clusters plus what the seeds have beyond it (Cameron, Gelbach and Miller 2011, never below the
    former); degrees of freedom after Satterthwaite.
    """
    seeds, groups = residuals.shape
    over_clusters = groups / max(groups - 1, 1) * float((residuals.sum(0) ** 2).sum()) / n**2
    over_seeds = seeds / max(seeds - 1, 1) * float((residuals.sum(1) ** 2).sum()) / n**2
    beyond = max(0.0, over_seeds - float((residuals**2).sum()) / n**2) if seeds > 1 else 0.0
    variance = over_clusters + beyond
    if variance == 0:
        return 0.0, float(max(groups - 1, 1))
    spread = over_clusters**2 / max(groups - 1, 1) + (over_seeds**2 / (seeds - 1) if beyond else 0.0)
    return math.sqrt(variance), variance**2 / spread


def mcnemar(delta: np.ndarray, clusters: Sequence[str] | None = None) -> float:
    """Exact two-sided McNemar p of paired outcomes (seeds, prompts); with several seeds, or several prompts of one
    cluster, on the sign of the cluster's mean, because its answers are not independent."""
    from scipy.stats import binomtest

    # Means of seeds, and mixes, are no whole numbers: what cancels out must be nothing, not 1e-17.
    signs = np.sign(_cluster_sums(np.asarray(delta, dtype=float), clusters).sum(axis=0).round(9))
    up, down = int((signs > 0).sum()), int((signs < 0).sum())
    return 1.0 if up + down == 0 else float(binomtest(up, up + down).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def power(
    difference: float, prompts: int, *, discordant: float = 0.2, comparisons: int = 1, units: int = 1,
    spread: float = 0.0,
) -> float:  # fmt: skip
    """How often a study of `prompts` sees a difference of two rates, as `paired_difference` does at 5 % two-sided.

    Args:
        difference: of the rates, as a share.
        discordant: share of prompts on which the two models differ, at least `difference`.
        comparisons: of the family; the first step of Holm's procedure divides 5 % by it.
        units: replicates, or the seeds of one.
        spread: standard deviation of the difference from unit to unit.

    One unit is seen by McNemar's exact test. Several must be seen by that and by Student's t; how often both do is at
    least the sum of their powers minus one, and t has at least the degrees of freedom of the units: so much is
    promised, and units that happen to agree see more.
    """
    from scipy.stats import binom, nct, t

    discordant = max(discordant, difference)
    pairs = np.arange(prompts + 1)
    # The smallest number of wins among so many discordant pairs whose two-sided p is below the level.
    needed = binom.isf((1 - CONFIDENCE) / comparisons / 2, pairs, 0.5) + 1
    seen = binom.sf(needed - 1, pairs, (discordant + difference) / (2 * discordant))
    by_prompts = float((binom.pmf(pairs, prompts, discordant) * seen).sum())
    if units == 1:
        return by_prompts
    error = math.sqrt((discordant - difference**2) / prompts + spread**2 / units)
    if error == 0:
        return by_prompts
    needed_t = t.isf((1 - CONFIDENCE) / comparisons / 2, units - 1)
    by_units = float(np.nan_to_num(nct.sf(needed_t, units - 1, difference / error), nan=1.0))  # it is one, far out
    return max(0.0, by_prompts + by_units - 1)


def smallest_difference(
    prompts: int, *, discordant: float = 0.2, aim: float = 0.8, comparisons: int = 1, units: int = 1,
    spread: float = 0.0,
) -> float:  # fmt: skip
    """The smallest difference of two rates on the same prompts that a study sees with power `aim` (see `power`), as a
    share; 1.0 where there is none.

    Answers of several seeds to one prompt are not independent, so seeds do not count as prompts.
    """

    def seen(difference: float) -> bool:
        share = power(
            difference, prompts, discordant=discordant, comparisons=comparisons, units=units, spread=spread
        )  # fmt: skip
        return share >= aim

    low, high = 0.0, 1.0
    if not seen(high):
        return 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high
