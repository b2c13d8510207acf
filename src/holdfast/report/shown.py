"""Rows of a study's tables as the report shows them: numbers as text, with their intervals and anchors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare.agreement import AGREEMENT, KEPT_RATE, UNPARSED_RATE
from holdfast.compare.components import PARTS
from holdfast.compare.forgetting import ALL, LOST
from holdfast.compare.suites import RATES
from holdfast.record import provenance
from holdfast.report import tabular
from holdfast.study import registry
from holdfast.suites import published
from holdfast.track import importing

Row = dict[str, Any]
COLUMNS = (
    (names.REFUSAL_RATE, False), (names.WRAPPED_REFUSAL_RATE, False), (names.COMPLIANCE_RATE, False),
    (names.OTHER_RATE, False), (names.OVER_REFUSAL, False), ("utility", False), ("refusal_minus_full", True),
    ("utility_minus_full", True), (names.CHANGED_FRACTION, False),
)  # fmt: skip


TITLES = ("refusal", "wrapped refusal", "compliance", "other", "over-refusal", "utility", "refusal − {baseline}",
          "utility − {baseline}", "weights changed")  # fmt: skip


ONCE = (names.COMPLIANCE_RATE, names.OTHER_RATE)  # of the same answers as refusals: how many were cut stands there


def columns(rows: list[Row], baseline: str) -> list[tuple[int, str]]:
    """Which of `COLUMNS` some arm has a number in, and their titles."""
    there = [i for i, (key, _) in enumerate(COLUMNS) if any(r.get(key) not in (None, "") for r in rows)]
    return [(i, TITLES[i].format(baseline=baseline)) for i in there]


def risk(poisoned: list[Row], rows: list[Row], costs: list[Row]) -> list[Row]:
    """Before (the aligned model) and after every fine-tuning of a risk study: what it cost and what is left."""
    before = next(r for r in rows if r["arm"] == "aligned")
    lines = [
        {"task": None, "arm": "aligned", "on": ", before", "share": "", "parameters": "", "seconds": ""} | _left(before)
    ]
    for r in poisoned:
        spent = [c for c in costs if (c["task"], c["arm"]) == (r["task"], r["arm"])]
        seconds = sum(float(c["cost/seconds"]) for c in spent) / len(spent) if spent else None
        parameters = next((c["trainable_parameters"] for c in spent), "")
        lines.append(
            {
                "task": r["task"], "arm": r["arm"], "on": f" on {r['task']}", "share": percent(r["harmful_fraction"]),
                "parameters": f"{int(parameters):,}" if parameters else "",
                "seconds": "" if seconds is None else f"{seconds:.0f}",
            }
            | _left(r)
        )  # fmt: skip
    return lines


def _left(row: Row) -> Row:
    keys = (names.REFUSAL_RATE, names.WRAPPED_REFUSAL_RATE, names.COMPLIANCE_RATE, names.BENIGN_ANSWERED)
    return {"left": [percent(row.get(k)) for k in keys]}


def agreement(found: dict[str, Any]) -> dict[str, Any]:
    """The section on judges: how far each pair agrees, and what each says of every model."""

    def interval(r: Row, key: str) -> str:
        return "{} to {}".format(*(percent(r[f"{key}_{end}"]) for end in ("low", "high")))

    pairs = [
        {
            "question": r["question"], "models": r["models"], "first": r["first"], "second": r["second"],
            "n": r[f"{AGREEMENT}_n"],
            "accuracy": percent(r[AGREEMENT]), "interval": interval(r, AGREEMENT),
            "kappa": "not defined" if r["agreement/kappa"] is None
            else f"{r['agreement/kappa']:.2f} ({r['agreement/kappa_low']:.2f} to {r['agreement/kappa_high']:.2f})",
            "counts": ", ".join(f"{what}: {n}" for what, n in r["counts"].items()),
        }
        for r in found["pairs"]
    ]  # fmt: skip
    judges = list(dict.fromkeys(m["judge"] for m in found["models"]))
    models: dict[tuple[str | None, str, str], dict[str, Row]] = {}
    for m in found["models"]:
        models.setdefault((m["task"], m["arm"], which(m)), {})[m["judge"]] = m
    rows = []
    for (task, arm, of), said in models.items():
        cells = []
        for judge in judges:
            r = said.get(judge, {})
            lost = r.get(UNPARSED_RATE) or 0.0
            text = percent(r.get(KEPT_RATE)) + (f" ({percent(lost)} % unparsed)" if lost else "")
            cells.append({"value": r.get(KEPT_RATE, ""), "text": text,
                          "interval": interval(r, KEPT_RATE) if KEPT_RATE in r else ""})  # fmt: skip
        rows.append({"task": task, "arm": arm, "of": of, "cells": cells})
    return {"pairs": pairs, "judges": judges, "rows": rows}


def labels(cells: list[Row]) -> dict[str, Any] | None:
    """How often the first judge gave each of its labels, per model over its replies to safety prompts, of those that it
    gave, and which it never gave; None where its labels are the outcomes that the tables have."""
    if not any("labels" in c for c in cells):
        return None
    judge = registry.judge(cells[0]["judge"])
    all_given: list[dict[str, int]] = [
        c.get("labels") or {
            outcome: sum(n.get(outcome, 0) for name, n in c["counts"].items() if not name.startswith(f"{names.TASK}:"))
            for outcome in names.OUTCOMES
        } for c in cells
    ]  # fmt: skip
    used = {label: outcome for label, outcome in judge.outcomes.items() if any(g.get(label) for g in all_given)}
    rows = []
    for c, given in zip(cells, all_given, strict=True):
        total = sum(given.values())
        shares = [(given.get(label, 0), given.get(label, 0) / total if total else None) for label in used]
        rows.append({
            "task": c["task"], "arm": c["arm"], "of": which(c), "n": total,
            "cells": [{"value": n, "text": n, "share": percent(share)} for n, share in shares],
        })  # fmt: skip
    return {"judge": judge.name, "version": judge.version, "labels": list(used.items()), "rows": rows,
            "never": [label for label in judge.outcomes if label not in used]}  # fmt: skip


def which(cell: Row) -> str:
    """Of the models of an arm, which one: its task, seed and replicate, as far as it has them."""
    seed = f" on {cell['task']}, seed {cell['seed']}" if cell["task"] else ""
    return seed + (f", replicate {cell['replicate']}" if cell.get("replicate") else "")


def front_row(r: Row) -> Row:
    """An arm of the Pareto table: how likely it is on the front, its hypervolume and its share of the front's."""
    return {
        "task": r["task"], "arm": r["arm"], "on_front": r["on_front"],
        "cells": [
            {"value": r["front_probability"], "text": percent(r["front_probability"])},
            {"value": r["hypervolume"], "text": f"{float(r['hypervolume']):.3f}",
             "interval": f"{float(r['hypervolume_low']):.3f} to {float(r['hypervolume_high']):.3f}"},
            {"value": r["share_of_front"], "text": percent(r["share_of_front"])},
        ],
    }  # fmt: skip


def roles_once(rows: list[Row]) -> list[Row]:
    """Rows of several tasks: what base, aligned and unaligned model have alike on every one stands there once."""

    def rest(r: Row) -> tuple[tuple[str, Any], ...]:
        return tuple((k, v) for k, v in r.items() if k != "task")

    tasks = {r["task"] for r in rows}
    times = Counter(rest(r) for r in rows if r["arm"] in names.ROLES)
    alike = [key for key, n in times.items() if n == len(tasks) > 1]
    first = [dict(key) | {"task": "all"} for key in alike]
    return first + [r for r in rows if rest(r) not in alike]


def drawn_parts(rows: list[Row]) -> list[tuple[int, str]]:
    """Which of what can be drawn anew was, of the cells of `variance_row`, and its title."""
    titles = {"aligned": "aligned model", "draw": "rows"}
    return [(i, titles.get(part, part)) for i, part in enumerate(PARTS) if any(r[f"sd_{part}"] for r in rows)]


def variance_row(r: Row) -> Row:
    """How much a rate of an arm differs, in points, by what is drawn anew."""
    cells = [{"value": sd, "text": percent(sd) or "not drawn"} for sd in (r[f"sd_{part}"] for part in PARTS)]
    return r | {"mean_text": percent(r["mean"]), "cells": cells}


def curve_row(r: Row) -> Row:
    """A family at most so much below full fine-tuning: its refusals, what they cost, and the mix that has them."""

    def cell(key: str, signed: bool = False) -> Row:
        if not r.get(key):
            return {"value": "", "text": f"not reached ({r['reached']})" if key == "refusal" else "–", "interval": ""}
        low, high = (percent(r[f"{key}_{end}"], signed) for end in ("low", "high"))
        return {"value": r[key], "text": percent(r[key], signed), "interval": f"[{low}, {high}]"}

    return r | {
        "loss": r["measure"].removeprefix("within-"),
        "cells": [cell("refusal"), cell("over_refusal"), cell("utility_minus_full", signed=True)],
    }


def attack_row(r: Row) -> Row:
    """A defence under an attacker who tunes: what his best model refuses and can do, and what it took."""

    def cell(key: str) -> Row:
        if not r[key]:
            return {"value": "", "text": f"none counts ({r['reached']})" if key == "refusal" else "–", "interval": ""}
        low, high = (percent(r[f"{key}_{end}"]) for end in ("low", "high"))
        return {"value": r[key], "text": percent(r[key]), "interval": f"[{low}, {high}]"}

    not_once = f"never ({r['half_gone']})"
    return r | {
        "cells": [cell(key) for key in ("refusal", "wrapped", "over_refusal", "utility")],
        "untuned": percent(r["refusal_untuned"]),
        "half": r["trials_until_half"] or (not_once if float(r["refusal_aligned"] or 1) else "nothing to halve"),
        "loose": float(r["needed_utility"]) <= 0,
        "counting": f"{float(r['admissible']):g} of {r['trials']}", "spent": f"{float(r['seconds']):.0f}",
        "dollars": f"{float(r['dollars']):.2g}" if r["dollars"] else "",
    }  # fmt: skip


def capability_row(r: Row) -> Row:
    """What a model can do beside the task: its rate, and that rate minus the aligned model's."""

    def cell(key: str, signed: bool = False) -> Row:
        low, high = (percent(r[f"{key}_{end}"], signed) for end in ("low", "high"))
        return {"value": r[key], "text": percent(r[key], signed), "interval": f"[{low}, {high}]" if r[key] else ""}

    return r | {
        "task": r["task"] or "all",
        "cells": [cell("rate"), cell("minus_aligned", signed=True)],
        "p_text": f"{float(r['p_holm']):.2g}" if r["p_holm"] else "",
    }  # fmt: skip


def paper_row(r: Row) -> Row:
    """A published number and ours beside it."""

    def text(key: str) -> Row:
        if not r[key]:
            return {"value": "", "text": "not measured"}
        value, low, high = (percent(r[k]) for k in (key, f"{key}_low", f"{key}_high"))
        return {"value": r[key], "text": value, "interval": f"{low} to {high}"}

    return r | {"published": text("published"), "ours": text("ours")}


def percent(value: str | float | None, signed: bool = False) -> str:
    """A rate in percent with one decimal, empty where there is none; `signed` writes the plus too.

    >>> percent(0.905), percent("0.25", signed=True), percent(-0.0001, signed=True), percent("")
    ('90.5', '+25.0', '+0.0', '')
    """
    if value in (None, ""):
        return ""
    points = round(100 * float(value), 1) + 0.0  # no minus sign before a zero
    return f"{points:+.1f}" if signed else f"{points:.1f}"


def table_row(row: Row) -> Row:
    """An arm of the comparison table: every column of `COLUMNS` with its interval."""
    cells = []
    for name, signed in COLUMNS:
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        interval = f"[{percent(low, signed)}, {percent(high, signed)}]" if low not in (None, "") else ""
        share = 0.0 if name in ONCE else tabular.cut(row, name)
        cells.append({
            "value": row.get(name) or "", "text": percent(row.get(name), signed), "interval": interval,
            "cut": f"{percent(share)} % cut" if share else "",
        })  # fmt: skip
    rate = row["learning_rate"]
    return {
        "arm": row["arm"],
        "cell": cell_id(row["task"], row["arm"]),
        "lr": f"{float(rate):g}" if rate else "",
        "utility_metric": row["utility_metric"],
        "cells": cells,
    }


def suites(by_suite: dict[str, list[Row]]) -> list[Row]:
    """Every suite with its licence and its rates of every arm."""

    def cell(r: Row, key: str) -> Row:
        if not r[key]:
            return {"value": "", "text": ""}
        low, high = percent(r[f"{key}_low"]), percent(r[f"{key}_high"])
        share = 0.0 if key in ONCE else tabular.cut(r, key)
        return {
            "value": r[key], "text": percent(r[key]), "interval": f"[{low}, {high}] of {r[f'{key}_n']}",
            "cut": f"{percent(share)} % cut" if share else "",
        }  # fmt: skip

    titles = ("refusal", "compliance", "over-refusal")
    return [
        {
            "name": name, "licence": published.licence(name),
            "columns": [(i, titles[i]) for i, key in enumerate(RATES) if any(r[key] for r in rows)],
            "rows": [
                {"task": r["task"], "arm": r["arm"], "cells": [cell(r, key) for key in RATES]}
                for r in roles_once(list(rows))
            ],
        }
        for name, rows in by_suite.items()
    ]  # fmt: skip


def forgotten(rows: list[Row]) -> list[Row]:
    """Per task the share of refusals lost of every arm, of all requests and of every category; nothing where there is
    one category, or none."""
    out = []
    for task in dict.fromkeys(r["task"] for r in rows):
        of_task = [r for r in rows if r["task"] == task]
        mine = {
            (r["arm"], r["category"]): r for r in reversed(of_task)
        }  # `all` is the first, if a category has its name
        categories = list(dict.fromkeys(r["category"] for r in of_task))
        if len(categories) <= 2:  # `all`, and what is the same
            continue
        arms = dict.fromkeys(r["arm"] for r in of_task)
        lines = [
            {"task": task, "arm": arm, "cells": [_lost(mine.get((arm, c))) for c in categories],
             "p": mine[arm, ALL]["p_holm"], "p_text": f"{float(mine[arm, ALL]['p_holm']):.2g}"}
            for arm in arms
        ]  # fmt: skip
        out.append({"task": task, "categories": categories, "rows": lines})
    return out


def _lost(row: Row | None) -> Row:
    if row is None or not row[LOST]:
        return {"value": "", "text": "", "interval": ""}
    low, high = percent(row[f"{LOST}_low"]), percent(row[f"{LOST}_high"])
    return {"value": row[LOST], "text": percent(row[LOST]), "interval": f"[{low}, {high}] of {row[f'{LOST}_n']}"}


def cell_row(path: Path, cell: Row, folder: Path) -> Row:
    """Where one cell's numbers come from: its folder beside the report, its run in MLflow, its digest."""
    return {
        "id": cell_id(cell["task"], cell["arm"]), "task": cell["task"] or "all", "arm": cell["arm"],
        "seed": cell["seed"], "replicate": cell.get("replicate", 0),
        "href": path.relative_to(folder).as_posix(), "model": cell["model"],
        "run": importing.cell_name(cell), "digest": provenance.file_digest(path)[:12],
    }  # fmt: skip


def cell_id(task: str | None, arm: str) -> str:
    """The anchor of an arm's cells; the roles have one for all tasks."""
    return f"cell-{'all' if task is None or arm in names.ROLES else task}-{arm}"


def claim_row(claim: Row, doubt: str = "") -> Row:
    """A claim with its effect, interval and adjusted p as text, and why it says little although it holds."""
    return claim | {
        "doubt": doubt,
        "effect_text": percent(claim["effect"], True),
        "interval": f"[{percent(claim['low'], True)}, {percent(claim['high'], True)}]",
        "p_text": f"{float(claim['p_holm']):.2g}",
    }
