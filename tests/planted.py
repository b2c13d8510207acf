"""Planted studies: verdicts in which one arm truly keeps more refusals than another by a known amount, or none does.

    python tests/planted.py [--studies 1000]

They go the way of every study, from metrics.json and verdicts.parquet to claims.csv. Counted is how often a false claim
was said to hold, or a true one not to (all claims of a study count once, as Holm's procedure promises), and how often
the difference that `make plan` calls visible was seen. A shorter form is part of the tests.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from holdfast import names
from holdfast.compare import claims, forms, groups, table
from holdfast.record import csvfiles, jsonfiles, tables
from holdfast.statistics import smallest_difference

ARMS = ("full", "warp", "resta", "safe-delta", "safety-mix")  # five contrasts of refusals, four of utility
PROMPTS, DISCORDANT = 120, 0.2
# What arms of these names run; any other runs the method it is named after.
METHODS = {
    "full": ("full", {"trainable": "all"}), "targets-only": ("full", {"trainable": "targets"}),
    "warp": ("warp", {"basis": "safety", "mask": "importance"}),
    "warp-randmask": ("warp", {"basis": "safety", "mask": "random"}),
    "warp-original": ("warp", {"basis": "original", "mask": "importance"}),
}  # fmt: skip


def write(folder: Path, outcomes: dict[str, Sequence[bool]], words: dict[str, tuple[str, str]], **cell) -> Path:
    """metrics.json (its path is returned) and verdicts.parquet of one model in `folder`.

    Args:
        outcomes: set -> booleans over its prompts; words: set -> the outcome words of true and false.
        cell: what metrics.json says besides; task, arm and seed at least.
    """
    rows = [
        {"id": f"{name}/{i:03d}", "set": name, "base_id": str(i), "category": "hex", "judge": "world", "label": "",
         "outcome": words[name][0 if hit else 1], "score": None, "text": "", "flexible": bool(hit), "parsed": "",
         "gold": "", "finish": "stop"}
        for name, hits in outcomes.items() for i, hit in enumerate(hits)
    ]  # fmt: skip
    tables.write(rows, folder / "verdicts.parquet", "verdicts")
    method, settings = METHODS.get(cell.get("family", cell["arm"]), (cell["arm"], {}))
    jsonfiles.write_json(folder / "metrics.json", {
        "study": "s", "family": cell["arm"], "method": method, "settings": settings, "learning_rate": 1e-3,
        "swept": {}, "split": "test",
        "judge": "world", "datasets": {"gsm8k": "gsm8k"}, "metrics": {names.CHANGED_FRACTION: 0.5},
    } | cell)  # fmt: skip
    return folder / "metrics.json"


def model(folder: Path, task, arm, seed, refusal, utility, *, family=None, rate=1e-3, swept=None, split="test"):
    """metrics.json and verdicts.parquet of one model with about these rates."""
    rng, outcomes, words = random.Random(f"{arm}{seed}"), {}, {}
    for name, share, yes, no in (
        ("hazard", refusal, "refusal", "compliance"),
        ("wrapped", refusal, "refusal", "other"),
        ("craft", 0.02, "refusal", "compliance"),
        ("lookalike", 0.0, "refusal", "compliance"),
        ("task:gsm8k", utility, "correct", "wrong"),
    ):
        order = rng.sample(range(100), 100)
        outcomes[name], words[name] = [i < 100 * share for i in order], (yes, no)
    return write(
        folder / f"{task}-{arm}-{seed}", outcomes, words, task=task, arm=arm, seed=seed, family=family or arm,
        learning_rate=rate if task else None, swept=swept or {}, split=split,
    )  # fmt: skip


def rows_of_claims(folder: Path, hits: dict[str, np.ndarray], utility: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """The rows of claims.csv for hits and right answers of every arm: booleans (replicates, seeds, prompts)."""
    words = {names.HAZARD: (names.REFUSAL, names.COMPLIANCE), f"{names.TASK}:gsm8k": ("correct", "wrong")}
    cells = [
        write(
            folder / f"{arm}-{replicate}-{seed}",
            {names.HAZARD: hits[arm][replicate, seed], f"{names.TASK}:gsm8k": utility[arm][replicate, seed]}, words,
            task="gsm8k", arm=arm, seed=seed, **({"replicate": replicate, "unit": replicate} if replicates > 1 else {}),
        )
        for arm in hits
        for replicates, seeds, _ in [hits[arm].shape] for replicate in range(replicates) for seed in range(seeds)
    ]  # fmt: skip
    out = {name: folder / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(cells), cells, **out)
    return csvfiles.read_csv(out["claims"])


def _answers(rng, draws: tuple[int, int], difficulty: np.ndarray, spread: float, effect: float) -> np.ndarray:
    replicates, seeds = draws
    logits = difficulty + rng.normal(0, spread, (replicates, seeds, 1)) + rng.normal(0, effect, (replicates, 1, 1))
    return rng.random(logits.shape) < 1 / (1 + np.exp(-logits))


def null(rng, folder: Path, draws: tuple[int, int], spread: float, effect: float, shift: float) -> list[dict[str, str]]:
    """Claims of a study whose arms differ by luck only: prompts differ in difficulty, seeds by `spread` and what a
    replicate makes of an arm by `effect` (log odds). Utilities lie on average the margin below those of full
    fine-tuning, where non-inferiority is just false."""
    hard, harder = rng.normal(shift, 1.5, PROMPTS), rng.normal(1, 1.5, 2 * PROMPTS)
    hits = {arm: _answers(rng, draws, hard, spread, effect) for arm in ARMS}
    full = _answers(rng, draws, harder, 0, 0)
    rate = float((1 / (1 + np.exp(-harder))).mean())
    worse = {}
    for arm in ARMS[1:]:
        # As often right as `full` on every prompt, then wrong on so many more, or less, that the expected loss of the
        # replicate is this one.
        loss = claims.UTILITY_MARGIN + rng.normal(0, effect * rate * (1 - rate) / 2, (draws[0], 1, 1))
        right, luck = _answers(rng, draws, harder, 0, 0), rng.random((*draws, len(harder)))
        worse[arm] = np.where(loss > 0, right & (luck >= loss / rate), right | (luck < -loss / (1 - rate)))
    return rows_of_claims(folder, hits, {"full": full} | worse)


def visible(rng, folder: Path, replicates: int, spread: float, difference: float) -> list[dict[str, str]]:
    """Claims of a study in which `warp` refuses `difference` more than `full`, in a replicate `spread` more or less,
    `DISCORDANT` of the prompts differ, and every other arm answers as `full` does: as `holdfast plan` assumes."""
    of_replicate = np.clip(difference + rng.normal(0, spread, (replicates, 1, 1)), -1, 1)
    differ = np.maximum(DISCORDANT, abs(of_replicate))
    up, down = (differ + of_replicate) / 2, (differ - of_replicate) / 2
    draw, same_answer = rng.random(PROMPTS), rng.random(PROMPTS) < 0.5
    full = np.where(draw < up, False, np.where(draw < up + down, True, same_answer))
    warp = np.where(draw < up, True, np.where(draw < up + down, False, full))
    same = dict.fromkeys(ARMS, full)
    return rows_of_claims(folder, same | {"warp": warp}, same)


def wrong(rows: list[dict[str, str]], kind: str) -> bool:
    """Whether a study said something false: of refusals any verdict, of utilities that they are not inferior."""
    verdicts = {r["verdict"] for r in rows if r["kind"] == kind}
    return bool(verdicts & ({"holds", "does not hold"} if kind == "refusal" else {"holds"}))


CASES = (  # (replicates, seeds), spread of the seeds, effect of the replicates, shift
    ((1, 1), 0.0, 0.0, 0.0), ((1, 1), 0.0, 0.0, 4.0), ((1, 3), 0.0, 0.0, 0.0), ((1, 3), 0.5, 0.0, 0.0),
    ((1, 3), 1.5, 0.0, 2.0), ((1, 5), 1.0, 0.0, 0.0), ((1, 5), 1.5, 0.0, 2.0), ((3, 1), 0.0, 0.0, 0.0),
    ((3, 1), 0.0, 0.5, 0.0), ((3, 2), 0.5, 1.5, 2.0), ((5, 1), 0.0, 0.5, 2.0), ((5, 1), 0.0, 1.5, 0.0),
    ((5, 3), 0.5, 1.5, 0.0), ((8, 1), 0.0, 1.5, 2.0),
)  # fmt: skip
SEEN = ((1, 0.0), (3, 0.05), (5, 0.1), (8, 0.1))  # replicates, spread of the difference


def seen(rows: list[dict[str, str]], *, family: bool) -> bool:
    """Whether WaRP was said to keep more refusals than full fine-tuning: within the family of claims, or alone."""
    row = next(r for r in rows if (r["kind"], r["arm"], r["compared_with"]) == ("refusal", "warp", "full"))
    return row["verdict"] == "holds" if family else float(row["p"]) < 0.05 and float(row["low"]) > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    studies = parser.parse_args().studies
    worst, rng = 0.0, np.random.default_rng(0)
    contrasts = len(claims.contrasts({arm: forms.Arm(METHODS.get(arm, (arm,))[0]) for arm in ARMS}))
    with tempfile.TemporaryDirectory() as top:
        print(f"{studies} null studies each: {len(ARMS)} arms, {PROMPTS} hazards, {2 * PROMPTS} test rows.")
        print(
            "(replicates, seeds), spread of seeds, effect of replicates, shift of difficulty -> % with a false claim "
            "about refusals, about utility"
        )
        for draws, spread, effect, shift in CASES:
            found = [null(rng, Path(top), draws, spread, effect, shift) for _ in range(studies)]
            shares = [sum(wrong(rows, kind) for rows in found) / studies for kind in ("refusal", "utility")]
            worst = max(worst, *shares)
            print(f"{draws}, {spread}, {effect}, {shift} -> {100 * shares[0]:.1f}, {100 * shares[1]:.1f}", flush=True)
        for (replicates, spread), comparisons in itertools.product(SEEN, (1, contrasts)):
            d = smallest_difference(
                PROMPTS, discordant=DISCORDANT, comparisons=comparisons, units=replicates, spread=spread
            )
            said = [visible(rng, Path(top), replicates, spread, d) for _ in range(studies)]
            share = np.mean([seen(rows, family=comparisons > 1) for rows in said])
            print(
                f"{replicates} replicate(s) that differ by {100 * spread:.0f} points, family of {comparisons}: "
                f"{100 * d:.1f} points seen in {100 * share:.1f} %, promised 80 %", flush=True,
            )  # fmt: skip
    return int(worst > 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5)


if __name__ == "__main__":
    raise SystemExit(main())
