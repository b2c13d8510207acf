"""The one statistics module: intervals for rates, paired differences, corrections. scipy and numpy.

Facts it stands on: Miller 2024 (arXiv 2411.00640) for clustered and paired comparison of evaluations;
Wilson's interval for rates, which is never of zero width, also at 0 of n and n of n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate; (0, 1) when nothing was observed.

    Written out because importing scipy costs more than judging a cell; tests compare it with
    `scipy.stats.binomtest(...).proportion_ci(method="wilson")`.
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def kappa(matrix: Sequence[Sequence[int]]) -> tuple[float | None, float | None, float | None]:
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


def pooled_rate(hits: np.ndarray) -> tuple[float, float, float]:
    """(rate, low, high) of hits (seeds, prompts) in {0, 1}.

    Seeds are a level of their own: prompts and seeds are resampled together. The interval is never
    narrower than Wilson's for one seed's prompts, so identical outcomes do not look certain.
    """
    hits = np.asarray(hits, dtype=float)
    rate = float(hits.mean())
    prompts = hits.shape[1]
    low, high = wilson(round(rate * prompts), prompts)
    if hits.shape[0] > 1:
        draws = _two_level(hits)
        a, b = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        low, high = min(low, float(a)), max(high, float(b))
    return rate, min(low, rate), max(high, rate)


def _two_level(values: np.ndarray, clusters: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """Bootstrap means of values (seeds, items): seeds drawn with replacement, then items (or whole
    clusters of items), the same items for every drawn seed."""
    rng = np.random.default_rng(seed)
    if clusters is not None:
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.zeros((values.shape[0], index.max() + 1))
        np.add.at(sums.T, index, values.T)
        sizes = np.bincount(index).astype(float)
    else:
        sums, sizes = values, np.ones(values.shape[1])
    seeds, groups = sums.shape
    # How often each seed and each group is drawn, all resamples at once.
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    columns = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    return (rows @ sums * columns).sum(axis=1) / (seeds * (columns @ sizes))


@dataclass(frozen=True)
class Difference:
    """A paired difference of rates a - b with its interval, and an exact p-value."""

    effect: float
    low: float
    high: float
    p: float
    n: int


def paired_difference(a: np.ndarray, b: np.ndarray, clusters: Sequence[str] | None = None) -> Difference:
    """a - b for outcomes (seeds, prompts) in {0, 1} of the same prompts and the same seeds.

    The interval is a two-level bootstrap over seeds and clusters of prompts, never narrower than what
    zero discordant pairs in that many clusters allow (half of Wilson's upper end). p is `mcnemar`.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    delta = a - b
    effect = float(delta.mean())
    draws = _two_level(delta, clusters)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    groups = len(set(clusters)) if clusters is not None else delta.shape[1]
    floor = wilson(0, groups)[1] / 2
    low, high = min(float(low), effect - floor), max(float(high), effect + floor)
    return Difference(effect, max(low, -1.0), min(high, 1.0), mcnemar(delta), delta.shape[1])


def mcnemar(delta: np.ndarray) -> float:
    """Exact two-sided McNemar p of paired outcomes; with several seeds, on each prompt's mean sign."""
    from scipy.stats import binomtest

    signs = np.sign(np.asarray(delta).mean(axis=0))
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


def minimum_detectable(n: int, discordance: float = 0.1) -> float:
    """Smallest paired difference of rates seen with 80 % power at n prompts: 2.8 sqrt(d / n)."""
    return 2.8 * math.sqrt(discordance / n)


def smallest_difference(prompts: int, discordant: float = 0.2, power: float = 0.8) -> float:
    """The difference of two rates on the same prompts that a study can see, as a share.

    Paired comparison (McNemar): where two models differ on a share `discordant` of the prompts, the
    difference has standard error sqrt(discordant / prompts); 5 % two-sided. Answers of several seeds to one
    prompt are not independent, so seeds do not count as prompts.
    """
    normal = NormalDist()
    z = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(power)
    return min(1.0, z * math.sqrt(discordant / prompts))
