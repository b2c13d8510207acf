"""The comparison table: one row per task and arm, with intervals over prompts, seeds and replicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import curves, forms
from holdfast.compare.claims import CLAIM_COLUMNS, Contrast, Declared, claim_rows, declared_rows, judged
from holdfast.compare.groups import Group, difference
from holdfast.compare.metrics import SAFETY
from holdfast.record import jsonfiles
from holdfast.record.csvfiles import write_csv
from holdfast.statistics import pooled_rate

COST_COLUMNS = ("cost/seconds", "cost/train_seconds", "cost/peak_memory_bytes", "steps", "trainable_parameters")


def rate(name: str, g: Group, sets: Sequence[str], outcome: str) -> dict[str, Any]:
    """A rate with its interval, its number of prompts, and how the answers ended that it is counted from: a rate of
    answers that were cut is one of beginnings."""
    hits = g.hits(sets, outcome)
    if not hits.size:
        return {}
    value, low, high = pooled_rate(hits, g.cluster(sets), graded=g.graded(outcome))
    found = {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_n": hits.shape[1]}
    return found | {f"{name}_{how}": share for how, share in g.ended(sets).items()}


def rates_beside(g: Group) -> dict[str, Any]:
    """Hazards and harmless requests refused, each with its interval, of the suites that ask both; nothing where that is
    what all of them say."""
    hazards, harmless = (SAFETY[name] for name in (names.REFUSAL_RATE, names.OVER_REFUSAL))
    within = g.beside(hazards[0], harmless[0])
    if within is g:
        return {}
    out: dict[str, Any] = {}
    for name, (sets, outcome) in ((names.REFUSAL_BESIDE, hazards), (names.OVER_REFUSAL_BESIDE, harmless)):
        value, low, high = pooled_rate(within.hits(sets, outcome), within.cluster(sets))
        out |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return out


def in_order(arms: Iterable[str]) -> list[str]:
    """The arms as tables have them: roles first, in their order."""
    there = list(arms)
    return [*[r for r in names.ROLES if r in there], *[a for a in there if a not in names.ROLES]]


def table_rows(groups: dict[str, dict[str, Group]], baseline: str | None = None) -> list[dict[str, Any]]:
    """One row per task and arm: rates with intervals over prompts, seeds and replicates, and the paired difference to
    full fine-tuning where the study has it, or to the baseline that it declares, which a column then names."""
    rows = []
    for task, arms in groups.items():
        known = {name: forms.of_cell(g.meta) for name, g in arms.items()}
        full = forms.baseline(known, baseline)
        for arm in in_order(arms):
            g = arms[arm]
            row: dict[str, Any] = {
                "study": g.meta["study"], "task": task, "arm": arm, "family": g.meta["family"],
                "method": g.meta["method"], "form": forms.form(arm, known[arm]),
                "learning_rate": g.meta["learning_rate"],
                **{f"setting/{k}": v for k, v in g.meta.get("swept", {}).items() if k != "learning_rate"},
                "split": g.meta["split"], "judge": g.meta["judge"], **g.counts(),
                "harmful_fraction": g.meta.get("harmful_fraction", 0.0) if arm not in names.ROLES else "",
            }  # fmt: skip
            for name, (sets, outcome) in SAFETY.items():
                row |= rate(name, g, sets, outcome)
            row |= rates_beside(g)
            row["utility_metric"] = g.metric
            if g.flexible is not None:
                utility = rate("utility", g, [g.task_set], "correct")
                row |= utility | {g.metric: utility["utility"]}
                row[names.INVALID_RATE] = float(g.hits([g.task_set], "invalid").mean())
                row["utility_flexible"] = g.mean(g.flexible.mean(axis=1))
            row[names.CHANGED_FRACTION] = g.mean([c["metrics"].get(names.CHANGED_FRACTION, 0.0) for c in g.cells])
            if all(names.KL in c["metrics"] for c in g.cells):
                row[names.KL] = g.mean([c["metrics"][names.KL] for c in g.cells])
            if full and arm != full:
                for name, diff in (
                    ("refusal_minus_full", difference(g, arms[full], [names.HAZARD], names.REFUSAL)),
                    ("wrapped_minus_full", difference(g, arms[full], [names.WRAPPED], names.REFUSAL)),
                    ("utility_minus_full", difference(g, arms[full], [g.task_set], "correct")),
                ):
                    row |= {name: diff.effect, f"{name}_low": diff.low, f"{name}_high": diff.high} if diff else {}
            rows.append(row | ({"baseline": full} if baseline else {}))
    return rows


DRAW_COLUMNS = (
    "study", "task", "arm", "family", "replicate", "unit", "base", "aligned", "draw", "order", "instructions", "seed",
    *(_RATES := (names.REFUSAL_RATE, names.WRAPPED_REFUSAL_RATE, names.OVER_REFUSAL)), "utility",
)  # fmt: skip


def draw_rows(groups: dict[str, dict[str, Group]]) -> list[dict[str, Any]]:
    """One row per model: what varies from draw to draw, for whoever wants to see how much, and for choices that must
    not hang on one of them."""
    rows = []
    for task, arms in groups.items():
        for g in arms.values():
            rates = {name: g.answered(*SAFETY[name]).mean(axis=1) if g.answered(*SAFETY[name]).size else None
                     for name in _RATES}  # fmt: skip
            solved = g.answered([g.task_set], "correct")
            rates["utility"] = solved.mean(axis=1) if solved.size else None
            for i, cell in enumerate(g.cells):
                rows.append({
                    "study": cell["study"], "task": task, "arm": g.arm, "family": cell["family"],
                    **{key: cell.get(key, 0) for key in DRAW_COLUMNS[4:10]}, "seed": cell["seed"],
                    "instructions": cell.get("instructions", "native"),
                    **{name: float(found[i]) for name, found in rates.items() if found is not None},
                })  # fmt: skip
    return rows


def build(
    groups: dict[str, dict[str, Group]], metrics_files: Sequence[Path], *, table: Path, cost: Path, claims: Path,
    draws: Path | None = None, declared: Sequence[Contrast] = (), held: Sequence[Declared] = (),
    baseline: str | None = None, validation: dict[str, dict[str, Group]] | None = None, curve: Path | None = None,
) -> None:  # fmt: skip
    """Write table.csv, draws.csv, cost.csv (the only one that depends on the clock) and claims.csv; and, of a sweep
    that was asked on validation rows too, curves.csv with its claims at equal utility.

    Args:
        declared: claims of refusals beside those that follow from the methods; held: those by measure and margin;
            baseline: what differences and utilities are measured from, where it is not full fine-tuning.
    """
    write_csv(table, table_rows(groups, baseline))
    if draws is not None:
        write_csv(draws, draw_rows(groups), DRAW_COLUMNS)
    found = claim_rows(groups, declared, baseline) + declared_rows(groups, held)
    if curve is not None:
        of_mixes = curves.rows(groups, validation) if validation else []
        more = [key for key in curves.BESIDE if any(key in row for row in of_mixes)]
        write_csv(curve, of_mixes, (*curves.COLUMNS, *more))
        found += curves.claim_rows(groups, validation, declared) if validation else []
    write_csv(claims, judged(found), CLAIM_COLUMNS)
    costs, which = [], ("task", "arm", "seed", "replicate")
    for path in metrics_files:
        record = path.with_name("train.json")
        if record.exists():
            cell, kept = jsonfiles.read_json(path), jsonfiles.read_json(record)
            costs.append({k: cell.get(k, 0) for k in which} | {k: kept.get(k, "") for k in COST_COLUMNS})
    write_csv(cost, costs, (*which, *COST_COLUMNS))
