"""Tables of pages that are another view of a result file than the tables of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from holdfast import names

Row = dict[str, Any]
TASKS = {"agnews": "headlines", "gsm8k": "stories", "crafts": "crafts"}  # of the fictional world, in words
SPREADS = {"base": "sd_base", "aligned": "sd_aligned", "rows": "sd_draw", "order": "sd_order",
           "rounding": "sd_rounding", "prompts": "sd_prompts"}  # fmt: skip
RATES = {names.REFUSAL_RATE: "refusals", "utility": "utility"}
SHARES = "harmful-"
ABLATION = {
    "aligned": "before fine-tuning", "full": "every weight, plain AdamW",
    "targets-only": "the weights that WaRP trains, plain AdamW", "warp": "safety basis and mask",
    "warp-nomask": "safety basis, no mask", "warp-original": "the mask without the basis",
    "warp-random": "a random basis", "warp-randmask": "safety basis, a random mask (at its own rate, twice as high)",
    "warp-permuted": "a signed permutation of the outputs", "warp-freeze.freeze-0.2": "20 % frozen",
    "warp-freeze.freeze-0.3": "30 % frozen", "warp-freeze.freeze-0.5": "50 % frozen",
    "warp-seven": "all seven modules rotated", "targets-seven": "all seven modules, plain AdamW",
}  # fmt: skip
MAIN = ("base", "aligned", "full", "safety-mix", "warp", "lora", "safe-lora", "safe-delta")
LEAD = ("safety-mix", "warp", "lead", "lead-update", "lead-mix", "lead-merge", "full")
# Of `demo-all`: those that demo.yaml leaves out, and three to compare them with.
MORE = ("full", "safety-mix", "warp", "kl-safety", "constrained-sft", "lisa", "panacea", "derta", "asft", "salora",
        "ptst", "soup", "task-arithmetic", "ties", "lssf", "nlsr")  # fmt: skip
LEAD_REAL = ("aligned", "full", "warp", "lead", "lead-merge")


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1, right: Sequence[bool] | None = None
) -> str:
    """A Markdown table; all but the first `words` columns are numbers, or those that `right` says."""
    right = [i >= words for i in range(len(titles))] if right is None else right
    rule = "".join("|--:" if r else "|---" for r in right) + "|"
    return "\n".join(["", f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _percent(row: Row, key: str, digits: int = 0, *, ends: bool = False) -> str:
    if not row.get(key):
        return "–"
    value, *around = (f"{100 * float(row[k]):.{digits}f}" for k in (key, f"{key}_low", f"{key}_high") if row.get(k))
    return f"{value} <sub>{'–'.join(around)}</sub>" if ends and around else value


def targets(makefile: str) -> str:
    """The targets of a Makefile and what it says of each."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)$", makefile, re.M)
    return table(["target", "what it does"], [[f"`make {name}`", what] for name, what in found], words=2)


def plain(rows: Sequence[Row], arms: dict[str, str], task: str) -> str:
    """Refusals and utility of some arms of one task, each with what it is."""
    found = {r["arm"]: r for r in rows if r["task"] == task}
    return table(
        ["arm", "what it is", "refused", "utility"],
        [[f"`{a}`", what, *(_percent(found[a], key, ends=True) for key in RATES)] for a, what in arms.items()],
        words=2,
    )


def shares(rows: Sequence[Row]) -> str:
    """Refusals of every arm that was trained on rows of which a growing share is harmful; most of them first."""
    tasks = sorted({r["task"] for r in rows if r["task"].startswith(SHARES)}, key=lambda t: int(t.removeprefix(SHARES)))
    found = {(r["arm"], r["task"]): r for r in rows if r["harmful_fraction"]}
    arms = sorted(
        dict.fromkeys(a for a, t in found if t in tasks), key=lambda a: -sum(_rate(found[a, t]) for t in tasks)
    )
    return table(
        ["arm", *(f"{t.removeprefix(SHARES)} % harmful" for t in tasks)],
        [[f"`{a}`", *(_percent(found[a, t], names.REFUSAL_RATE) for t in tasks)] for a in arms],
    )


def _rate(row: Row) -> float:
    return float(row[names.REFUSAL_RATE])


def spreads(rows: Sequence[Row]) -> str:
    """variance.csv for reading: standard deviations in points, of refusals and utility."""
    first = next(r for r in rows if r["arm"] == "aligned" and r["rate"] == names.REFUSAL_RATE)
    shown = [r for r in rows if r["arm"] not in names.ROLES and r["rate"] in RATES]
    out = []
    for r in [first, *shown]:
        task = "" if r is first else TASKS[r["task"]]
        sizes = (_percent(r, key, 1) for key in ("mean", *SPREADS.values()))
        out.append([task, f"`{r['arm']}`", RATES[r["rate"]], *sizes])
    return table(["task", "arm", "rate", "mean %", *SPREADS], out, words=3)


def mixes(rows: Sequence[Row]) -> str:
    """What safety trainings of the real model taught, by what they were made of: refused of what must be refused, and
    of what must not."""
    of, suites = ("hazards", "benign", "benign_prompts", "learning_rate"), dict.fromkeys(r["suite"] for r in rows)
    found = {(*(r[k] for k in of), r["suite"]): r for r in rows}
    return table(
        ["refusals", "answers", "their requests", "rate",
         *(f"{suite}: {what}" for suite in suites for what in ("refused", "over-refusal"))],
        [[hazards, benign, asked, f"{float(rate):g}",
          *(_percent(found.get((hazards, benign, asked, rate, suite), {}), key, ends=True)
            for suite in suites for key in ("refused", "over_refusal"))]
         for hazards, benign, asked, rate in dict.fromkeys(tuple(r[k] for k in of) for r in rows)],
        words=3,
    )  # fmt: skip


def truncated(rows: Sequence[Row]) -> str:
    """Refusals and utility of WaRP, exact and with the leading directions alone, by task."""
    arms = {"warp": "exact", **{f"warp-truncated.rank-fraction-{k}": f"k = {k} n" for k in ("0.6", "0.35")}}
    found = {(r["task"], r["arm"]): r for r in rows}
    return table(
        ["", *(f"{rate}: {what}" for rate in RATES.values() for what in arms.values())],
        [[t, *(_percent(found[t, a], key, ends=True) for key in RATES for a in arms)] for t in TASKS],
    )


def areas(rows: Sequence[Row], families: Sequence[str]) -> str:
    """Of some families of curves.csv: refusals over all utilities by task, and over-refusal within three points of full
    fine-tuning's utility on headlines."""
    found = {(r["task"], r["family"], r["measure"]): r for r in rows}
    over = "over_refusal"
    return table(
        ["", *TASKS.values(), "over-refusal (headlines)"],
        [[f"`{f}`", *(_percent(found[t, f, "area"], "refusal", ends=True) for t in TASKS),
          _percent(found["agnews", f, "within-3"], over)] for f in families],
    )  # fmt: skip


def attacked(rows: Sequence[Row]) -> str:
    """attack.csv for reading: every defence before and after an attacker tuned it, and how long that took him."""
    return table(
        ["defence", "refused", "utility", "refused, attacked", "utility, attacked", "trials that count",
         "until half are gone"],
        [[f"`{r['arm']}`", _percent(r, "refusal_untuned"), _percent(r, "utility_untuned"),
          _percent(r, "refusal", ends=True), _percent(r, "utility", ends=True), f"{float(r['admissible']):g}",
          f"{float(r['trials_until_half']):g}" if r["trials_until_half"] else "never"] for r in rows],
    )  # fmt: skip
