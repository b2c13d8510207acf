"""Which loss do a few answers still allow? One-sided limits of paired differences, for decisions by a margin.

The intervals of `statistics` say what was seen; a decision needs limits that keep their level where it is made: with
few prompts, few draws, and rates near 0 or 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

AIM = 0.8  # the power of what is planned
MOST_PROMPTS, MOST_UNITS = 1_000_000, 1000  # beyond which nobody is told how many would do


@dataclass(frozen=True)
class Limits:
    """A paired difference of rates a - b with its one-sided confidence limits.

    Over prompts: the limit of a bounded mean by Dirichlet weights with one prompt more at the worst end (Gaffke 2005;
    Learned-Miller and Thomas 2019, arXiv 1905.06208). Where answers are only lost it is that of Clopper and Pearson, so
    that n prompts without a loss leave one of 1 - level^(1/n) possible; that it keeps its level for all differences is
    a conjecture, which planted studies bear out. Over units: Student's t of their differences. Near 0 and 1 a few units
    that were lucky differ little as well, so what an arm varies by is taken to grow with r (1 - r), as effects on log
    odds do, from the rates that were seen to the one that is ruled out, and never to be less than what answers lost at
    random vary by. The distances of both are squared and added, as Newcombe does (Zou and Donner 2008).
    """

    effect: float
    prompts: int
    sums: np.ndarray  # of clusters of prompts: the sum of their differences, mean over units; alike ones stand once
    sizes: np.ndarray  # how many prompts such a cluster has
    counts: np.ndarray  # how many such clusters there are
    units: int
    rates: tuple[float, float]  # of a and of b
    seen: tuple[float, float]  # r (1 - r) of a and of b, mean over units, above 0
    spreads: tuple[float, float, float]  # variances of the means over units: of a - b, of a, of b
    luck: float  # how much of the first is the luck of single answers, less with more prompts

    def low(self, level: float) -> float:
        """The lower limit: the difference is below it in at most this share of studies."""
        return self._lowest(1, level)

    def high(self, level: float) -> float:
        """The upper limit: the difference is above it in at most this share of studies."""
        return -self._lowest(-1, level)

    def p_above(self, bound: float) -> float:
        """One-sided p of "the difference is not above `bound`": the level whose lower limit that is, at most 0.5."""
        return self._level(1, bound)

    def p_below(self, bound: float) -> float:
        """One-sided p of "the difference is not below `bound`", at most 0.5."""
        return self._level(-1, -bound)

    def power(self, bound: float, level: float) -> float:
        """In which share of such studies the lower limit is above `bound`, if the difference is truly this one."""
        room, error = self.low(level) - bound, self._error(1.0, self.units)
        return NormalDist(0.0, error).cdf(room) if error else float(room > 0)

    def needed(self, bound: float, level: float) -> tuple[int | None, int | None]:
        """(prompts, units) that tell the difference, if it is truly this one, from `bound` with power `AIM`: so many
        prompts with these units, or so many units with these prompts. None where no number does, or nobody knows,
        because one unit does not say what units differ by."""
        sign, z = (1 if self.effect > bound else -1), NormalDist().inv_cdf(AIM)

        def told(times: float, units: int) -> bool:
            return self._lowest(sign, level, times, units) - z * self._error(times, units) > sign * bound

        most = MOST_PROMPTS / self.prompts
        prompts = units = None
        if told(most, self.units):
            prompts = math.ceil(self.prompts * _first(lambda times: told(times, self.units), most))
        if self.units > 1 and told(1.0, MOST_UNITS):
            units = math.ceil(_first(lambda n: told(1.0, max(2, math.ceil(n))), MOST_UNITS))
        return prompts, units

    def _lowest(self, sign: int, level: float, times: float = 1.0, units: int | None = None) -> float:
        """The lower limit of sign * (a - b) with `times` as many prompts and other units, as much alike as these."""
        units = units or self.units
        effect, sums = sign * self.effect, sign * self.sums
        over_prompts = _mean_limit(sums, self.sizes, self.counts * times, level)
        if units == 1:
            return over_prompts
        from scipy.optimize import brentq
        from scipy.stats import t

        reach, (a, b) = float(t.isf(level, units - 1)) ** 2, (0, 1)[::sign]
        of, *own = self._spreads(times, units)
        shared = (own[0] + own[1] - of) / 2  # the covariance of both arms

        def grown(arm: int, rate: Any) -> Any:
            """What the variance of the difference gains where an arm has another rate: beyond 0 and 1 nothing."""
            growth = np.maximum(1.0, rate * (1 - rate) / self.seen[arm])
            return np.maximum(0.0, own[arm] * (growth**2 - 1) - 2 * shared * (growth - 1))

        def ruled_out(low: Any) -> Any:
            """Above zero for differences that are."""
            spread = of + grown(a, self.rates[b] + low) + grown(b, self.rates[a] - low)
            least = abs(low) * (1 - abs(low)) / (self.prompts * times * units)
            return (effect - low) ** 2 - (effect - over_prompts) ** 2 - reach * np.maximum(spread, least)

        # A line of differences, of which the lowest that is not ruled out is the limit.
        line = np.linspace(-1.0, effect, 2001)
        first = int(np.argmax(ruled_out(line) <= 0))
        return float(brentq(ruled_out, line[first - 1], line[first])) if first else -1.0

    def _level(self, sign: int, bound: float) -> float:
        from scipy.optimize import brentq

        def beyond(exponent: float) -> float:
            return self._lowest(sign, 10.0**exponent) - bound

        least, most = -12.0, math.log10(0.5)
        if beyond(most) <= 0:
            return 0.5
        return 10.0**least if beyond(least) > 0 else float(10.0 ** brentq(beyond, least, most, xtol=1e-4))

    def _spreads(self, times: float, units: int) -> tuple[float, float, float]:
        """`spreads` with `times` as many prompts and other units."""
        of, a, b = self.spreads
        share = self.units / units * ((of - self.luck + self.luck / times) / of if of else 1.0)
        return of * share, a * share, b * share

    def _error(self, times: float, units: int) -> float:
        """The standard error of the difference over prompts and units."""
        residuals, groups = self.sums - self.effect * self.sizes, float(self.counts.sum())
        over_prompts = groups / max(groups - 1, 1) * float((self.counts * residuals**2).sum()) / self.prompts**2
        return math.sqrt(over_prompts / times + self._spreads(times, units)[0])


def paired_limits(a: np.ndarray, b: np.ndarray, clusters: Sequence[str] | None = None) -> Limits:
    """`Limits` of a - b for outcomes (units, prompts) in [0, 1] of the same prompts and the same units; one side may be
    a single model that every unit of the other is held against."""
    a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
    delta = a - b
    units, prompts = delta.shape
    labels = np.arange(prompts) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums, sizes = np.bincount(labels, weights=delta.mean(axis=0)), np.bincount(labels).astype(float)
    alike, counts = np.unique(np.stack([sums, sizes]).round(12), axis=1, return_counts=True)
    # A prompt more on either side, shared among the units, so that no rate is 0 or 1.
    shares = [(x.sum(axis=1) + 1 / units) / (prompts + 2 / units) for x in (a, b)]
    means = [x.mean(axis=1) for x in (delta, a, b)]
    spreads = tuple(float(x.var(ddof=1)) / units if units > 1 else 0.0 for x in means)
    # The interaction of units and prompts in a two-way table.
    rest = delta - delta.mean(axis=0) - delta.mean(axis=1, keepdims=True) + delta.mean()
    luck = float((rest**2).sum()) / (max(units - 1, 1) * max(prompts - 1, 1)) / delta.size
    return Limits(
        float(delta.mean()), prompts, alike[0], alike[1], counts.astype(float), units,
        (float(shares[0].mean()), float(shares[1].mean())),
        (float((shares[0] * (1 - shares[0])).mean()), float((shares[1] * (1 - shares[1])).mean())),
        (spreads[0], spreads[1], spreads[2]), min(luck, spreads[0]),
    )  # fmt: skip


def limits_without_loss(prompts: int, *, discordant: float, units: int = 1) -> Limits:
    """`Limits` of a study in which nothing is lost: a share `discordant` of the prompts, above 0, is answered
    differently, half of them better and half worse, all others right; units differ by the luck of their answers only.
    """
    from scipy.stats import chi2

    answers, rate = prompts * units, 1 - discordant / 2
    moved = discordant / 2 * prompts / units  # a mean over units has the variance of so many
    counts = np.array([moved, prompts - 2 * moved, moved])
    # What a few units differ by is as often less as more.
    usual = float(chi2.median(units - 1)) / (units - 1) / answers if units > 1 else 0.0
    luck, own = usual * discordant, usual * rate * (1 - rate)
    rate = (rate * answers + 1) / (answers + 2)
    return Limits(
        0.0, prompts, np.array([-1.0, 0.0, 1.0]), np.ones(3), counts, units, (rate, rate), (rate * (1 - rate),) * 2,
        (luck, own, own), luck,
    )  # fmt: skip


def least_prompts(margin: float, level: float, units: int = 1) -> int:
    """How many prompts it takes `Limits` to rule out that `margin` is lost where not a single answer is."""
    least = math.ceil(math.log(level) / math.log1p(-margin))
    if units == 1:
        return least
    from scipy.stats import t

    # (1 - level^(1/n))^2 + reach / n below margin^2
    reach = float(t.isf(level, units - 1)) ** 2 * margin * (1 - margin) / units
    return next(n for n in itertools.count(least) if (1 - level ** (1 / n)) ** 2 + reach / n < margin**2)


def _mean_limit(sums: np.ndarray, sizes: np.ndarray, counts: np.ndarray, level: float) -> float:
    """The lower limit of a mean of values in [-1, 1], given as sums of clusters, `counts` of each: the quantile of
    their mean under Dirichlet weights with one more cluster of the mean size, in which all is lost."""
    from scipy.optimize import brentq

    worst = float((counts * sizes).sum() / counts.sum())
    sums, sizes, counts = np.append(sums, -worst), np.append(sizes, worst), np.append(counts, 1.0)
    mean = float((counts * sums).sum() / (counts * sizes).sum())

    def above_level(low: float) -> float:
        return _chance_below(sums - low * sizes, counts) - level

    least = -1 + 1e-12
    if mean <= least or above_level(least) >= 0:
        return -1.0
    return mean if above_level(mean) <= 0 else float(brentq(above_level, least, mean, xtol=1e-9))


def _chance_below(values: np.ndarray, counts: np.ndarray) -> float:
    """The chance that a sum of exponential variables times these values, `counts` of each, is below zero, by the
    saddlepoint (Lugannani and Rice 1980, in the form of Barndorff-Nielsen)."""
    from scipy.optimize import brentq

    low, high = float(values.min()), float(values.max())
    if low >= 0 or high <= 0:
        return float(high <= 0)
    edge = 1 - 1e-12

    def slope(s: float) -> float:
        return float((counts * values / (1 - s * values)).sum())

    s = float(brentq(slope, edge / low, edge / high, xtol=1e-15 / max(-low, high)))
    w = math.copysign(math.sqrt(max(2 * float((counts * np.log1p(-s * values)).sum()), 0.0)), s)
    u = s * math.sqrt(float((counts * (values / (1 - s * values)) ** 2).sum()))
    return NormalDist().cdf(w + math.log(u / w) / w) if abs(w) > 1e-4 else 0.5


def _first(told: Callable[[float], bool], most: float) -> float:
    """The smallest number from 1 on of which something is told, to a hundredth; it is told of `most`."""
    low, high = 1.0, 1.0 if told(1.0) else most
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if told(middle) else (middle, high)
    return high
