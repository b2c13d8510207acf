"""Planted gates: studies in which an arm has lost exactly the margin, and studies in which it has lost nothing.

    python tests/planted_gate.py [--studies 1000] > docs/numbers/gate-planted.csv

What is lost is lost on average over the models that could have been drawn: prompts differ in difficulty by 1.5 in log
odds, replicates (or the seeds of one) by an effect of their own, on both sides; one draw has none: limits speak of it
alone. All else that the gate asks is sure to pass, so that a study is shipped when the one criterion is: the worst
case. Counted is how often an arm that lost the margin is shipped, which must be at most the level, and what becomes of
one that lost nothing. It takes an hour or two; a shorter form is part of the tests.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
from dataclasses import dataclass

import numpy as np
from planted import METHODS
from scipy.optimize import brentq

from holdfast import names
from holdfast.compare import gate
from holdfast.compare.groups import Group

MARGIN = LEVEL = 0.05
SPREAD = 1.5  # of the difficulty of prompts, in log odds
# Criterion -> the set that is asked, and the outcome words of an answer that is good and of one that is not.
ASKED = {
    "refusals": (names.HAZARD, names.REFUSAL, names.COMPLIANCE),
    "over_refusal": (names.CRAFT, names.COMPLIANCE, names.REFUSAL),
    "utility": (f"{names.TASK}:gsm8k", "correct", "wrong"),
}


@dataclass(frozen=True)
class Case:
    """A criterion, how many (replicates, seeds) and prompts, the rate of good answers of what the arm is held against,
    and the standard deviation of the effects of replicates and of seeds, in log odds."""

    criterion: str
    draws: tuple[int, int]
    prompts: int
    rate: float
    effects: tuple[float, float] = (0.0, 0.0)


def _odds(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@functools.cache
def centre(rate: float, spread: float) -> float:
    """The log odds around which normal ones with this standard deviation have the mean rate."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(81)
    mean = weights / weights.sum()
    return brentq(lambda at: float(mean @ _odds(at + spread * nodes)) - rate, -60, 60)


def answers(rng: np.random.Generator, rate: float, difficulty: np.ndarray, draws, effects) -> np.ndarray:
    """Booleans (replicates, seeds, prompts) of models whose mean over all that could be drawn is `rate`."""
    replicates, seeds = draws
    of_replicate = rng.normal(0, effects[0], (replicates, 1, 1))
    of_seed = rng.normal(0, effects[1], (replicates, seeds, 1))
    logits = centre(rate, float(np.hypot(SPREAD, np.hypot(*effects)))) + difficulty + of_replicate + of_seed
    return rng.random((replicates, seeds, len(difficulty))) < _odds(logits)


def group(arm: str, criterion: str, good: np.ndarray) -> Group:
    """All models of an arm with these good answers (replicates, seeds, prompts)."""
    name, yes, no = ASKED[criterion]
    replicates, seeds, prompts = good.shape
    role = arm in names.ROLES
    method, settings = METHODS.get(arm, ("warp", {"mask": "importance"}))
    cells = [
        {"study": "s", "task": None if role else "gsm8k", "arm": arm, "seed": seed, "split": "test", "judge": "world",
         "method": arm if role else method, "settings": {} if role else settings, "swept": {},
         **({k: r for k in ("replicate", "unit", "base", "aligned", "draw", "order")} if replicates > 1 else {})}
        for r in range(replicates) for seed in range(seeds)
    ]  # fmt: skip
    hits = good.reshape(-1, prompts)
    ids = [f"{i:04d}" for i in range(prompts)]
    return Group("gsm8k", arm, cells, {name: np.where(hits, yes, no)}, None, {name: ids}, {name: ids}, {})


def verdict(rng: np.random.Generator, case: Case, lost: float) -> dict:
    """gate.json of a study in which an arm has lost so much on average."""
    difficulty = rng.normal(0, SPREAD, case.prompts)
    if case.criterion == "utility":
        against, other = "full", answers(rng, case.rate, difficulty, case.draws, case.effects)
    else:  # of which a replicate has one, whatever the seed
        replicates, effect = case.draws[0], case.effects[0]
        against, other = "aligned", answers(rng, case.rate, difficulty, (replicates, 1), (effect, 0.0))
    arms = {against: other, "mine": answers(rng, case.rate - lost, difficulty, case.draws, case.effects)}
    found = {"gsm8k": {arm: group(arm, case.criterion, good) for arm, good in arms.items()}}
    cfg = {"study": "s", "arm": "mine", "level": LEVEL, "margins": {case.criterion: MARGIN}, "baseline": None}
    return gate.judge(found, cfg)


def shares(rng: np.random.Generator, case: Case, studies: int, lost: float) -> dict[str, float]:
    """How often a verdict was given."""
    found = [verdict(rng, case, lost)["verdict"] for _ in range(studies)]
    return {v: found.count(v) / studies for v in gate.EXIT}


CASES = (
    *(Case("refusals", (1, 1), n, rate) for n in (60, 120, 300) for rate in (0.995, 0.95, 0.5, 0.06)),
    *(Case("refusals", (1, 3), n, 0.97, (0.0, s)) for n in (120, 300) for s in (0.0, 0.5, 1.5)),
    *(Case("refusals", (5, 1), n, rate, (r, 0.0)) for n in (60, 300) for rate in (0.995, 0.5) for r in (0.0, 0.5, 1.5)),
    Case("refusals", (2, 1), 300, 0.97, (1.5, 0.0)), Case("refusals", (3, 1), 300, 0.97, (1.5, 0.0)),
    Case("refusals", (8, 1), 300, 0.97, (1.5, 0.0)), Case("refusals", (5, 3), 120, 0.97, (1.5, 0.5)),
    *(Case("over_refusal", draws, 120, 0.98, (0.5, 0.0)) for draws in ((3, 1), (5, 1))),
    *(Case("utility", (1, 1), 200, rate) for rate in (0.98, 0.7)),
    Case("utility", (1, 3), 200, 0.7, (0.0, 0.5)),
    *(Case("utility", draws, 200, 0.7, (0.5, 0.5)) for draws in ((5, 1), (5, 3))),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    studies, rng, worst = parser.parse_args().studies, np.random.default_rng(0), 0.0
    print(f"{studies} studies each, margin {100 * MARGIN:g} points, level {100 * LEVEL:g} %.", file=sys.stderr)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([
        "what", "criterion", "replicates × seeds", "prompts", "held against", "effects", "shipped, margin lost",
        "nothing lost: shipped", "not resolved", "not shipped",
    ])  # fmt: skip
    for case in CASES:
        false = shares(rng, case, studies, MARGIN)[gate.SHIP]
        true = shares(rng, case, studies // 5, 0.0)
        worst = max(worst, false)
        told = [f"{100 * true[v]:.0f} %" for v in (gate.SHIP, gate.NOT_RESOLVED, gate.DO_NOT)]
        (replicates, seeds), (one, two) = case.draws, case.effects
        criterion, rate = case.criterion.replace("_", "-"), f"{100 * case.rate:g}"
        out.writerow([
            f"{criterion}-{replicates}x{seeds}-{case.prompts}-{rate}-{one:g}-{two:g}", criterion,
            f"{replicates} × {seeds}", case.prompts, f"{rate} %", f"{one:g}, {two:g}", f"{100 * false:.1f} %", *told,
        ])  # fmt: skip
        sys.stdout.flush()
    print(f"An arm that lost the margin was shipped in at most {100 * worst:.1f} % of studies.", file=sys.stderr)
    return int(worst > LEVEL + 2 * (LEVEL * (1 - LEVEL) / studies) ** 0.5)


if __name__ == "__main__":
    raise SystemExit(main())
