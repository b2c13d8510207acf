"""The first page of the report: what was asked, what holds, what does not, what is not resolved, and what it cost.

Every number is the study's own, every sentence has fixed words. Beside every share of refused hazards stands the share
of harmless requests that were refused; a model that refuses whatever it is asked is said to, and nothing that such a
model wins, or one that did not learn its task, is told as something that holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from holdfast import names
from holdfast.compare import forms
from holdfast.record import times
from holdfast.report import ended, tabular
from holdfast.report.cautions import APART, MOST, before, blind, caution, learned, rate, told_apart
from holdfast.report.shown import percent
from holdfast.study import registry

Row = dict[str, Any]
ARMS_SHOWN = 18  # of a task; a page is to stay a page
MOST_PARTS = 6  # of a line, and names of a list, before the rest is a number


def built(
    resolved: Row, by_task: Mapping[str, Sequence[Row]], claims: Sequence[Row], costs: Sequence[Row],
    fronts: Sequence[Row], curves: Sequence[Row] = (), *, cells: Sequence[Row], drawn: str,
    threads: Iterable[int] = (),
) -> Row:  # fmt: skip
    """What the template shows.

    Args:
        by_task: the rows of table.csv; claims, costs, fronts, curves: those of the other tables.
        cells: metrics.json of every model; threads: of what made them, as far as it is recorded.
    """
    found = ended.arms(by_task, curves)
    lists = ended.listed(claims, found)
    return {
        "asked": asked(resolved, by_task, cells, drawn),
        "said": said(by_task, claims, {g["verdict"]: g["count"] for g in lists}),
        "warnings": warnings(by_task),
        "glance": [glance(task, rows, fronts) for task, rows in by_task.items()],
        "claims": lists,
        "cost": cost(costs, threads),
        "counted": counted(cells[0]["judge"]) if cells else "",
    }


def asked(
    resolved: Row, by_task: Mapping[str, Sequence[Row]], cells: Sequence[Row], drawn: str
) -> list[tuple[str, str]]:
    """The question of a study: (what, in words)."""
    rows = [r for of in by_task.values() for r in of]
    trained = {c["task"]: c["training"]["rows"] for c in cells if c["task"] and c.get("training", {}).get("rows")}
    tasks = [f"{task} ({trained[task]:,} rows)" if task in trained else task for task in by_task]
    arms = list(dict.fromkeys(r["family"] for r in rows if r["arm"] not in names.ROLES))
    most = {key: max((int(r.get(f"{key}_n") or 0) for r in rows), default=0) for key in _ASKED}
    evaluation = resolved["evaluation"]
    suites = [name for name, split in (evaluation.get("suites") or {}).items() if split == evaluation["split"]]
    of = " of " + ", ".join(suites) if suites else ""
    prompts = ", ".join(f"{n:,} {_ASKED[key]}" for key, n in most.items() if n)
    judges = evaluation.get("judges") or []
    model = resolved["base"]["source"]
    return [
        ("Which remedy keeps refusals?", f"{len(arms)} ways to fine-tune: {_first(arms, 2 * ARMS_SHOWN)}"),
        ("Of which model?", "a tiny one, trained here on a fictional world" if model == "tiny" else model),
        ("Fine-tuned on", ", ".join(tasks)),
        ("Every model was asked", f"{prompts}{of} ({evaluation['split']} split)"),
        ("Judged by", f"{judges[0]}; beside it {', '.join(judges[1:])}" if judges[1:] else ", ".join(judges)),
        ("Drawn", drawn),
    ]


def _first(of: Sequence[str], most: int) -> str:
    """The first of a list in words, and how many more there are."""
    return ", ".join(of[:most]) + (f" and {len(of) - most} more" if len(of) > most else "")


_ASKED = {
    names.REFUSAL_RATE: "held-out hazards", names.WRAPPED_REFUSAL_RATE: "wrapped hazards",
    names.OVER_REFUSAL: "harmless requests",
}  # fmt: skip


def said(by_task: Mapping[str, Sequence[Row]], claims: Sequence[Row], counts: Mapping[str, int]) -> list[str]:
    """A sentence on what was refused before, one per task on what plain fine-tuning did, one on how the claims ended.

    Args:
        counts: how many claims each list of `ended.listed` has.
    """
    pairs = {
        task: (aligned, full) for task, rows in by_task.items()
        if (aligned := forms.first_of(rows, "aligned")) and (full := forms.first_of(rows, forms.BASELINE))
    }  # fmt: skip
    started = {_both(aligned, " of the hazards", " of the harmless requests") for aligned, _ in pairs.values()}
    once = len(started) == 1 < len(pairs)
    lines = [f"Before fine-tuning {words} are refused." for words in started if once]
    for task, (aligned, full) in pairs.items():
        first = _both(aligned, " of the hazards", " of the harmless requests")
        start = "" if once else f"before fine-tuning {first} are refused, "
        over = _points(aligned, full, names.OVER_REFUSAL)
        lines.append(
            f"{task}: {start}after full fine-tuning {_both(full)}: {_points(aligned, full, names.REFUSAL_RATE)} points "
            f"of the hazards{f', {over} of the harmless requests' if over else ''}{_utility(full, by_task[task])}"
        )
    if ended_so := tabular.verdicts(claims):
        words = [ended_so]
        for verdict, what in ended.DOUBTS.items():
            if count := counts.get(verdict, 0):
                words.append(f"Of those that hold {count} say{'s' * (count == 1)} {what}.")
        lines.append(" ".join(words))
    return lines


def _points(aligned: Row, full: Row, key: str) -> str:
    """How many points of a rate were lost or won; nothing where it is not known."""
    start, end = rate(aligned, key), rate(full, key)
    return "" if start is None or end is None else percent(end - start, True)


def _utility(full: Row, rows: Sequence[Row]) -> str:
    """The end of a sentence: what full fine-tuning made of its task, and where that is nothing new who else did not."""
    if full.get("utility") in (None, ""):
        return "."
    line = f"; utility {percent(full['utility'])} %"
    if learned(full, rows):
        return f"{line}."
    arms = [r for r in rows if r["arm"] not in names.ROLES]
    others = ", nor by any other arm" if len(arms) > 1 and not any(learned(r, rows) for r in arms) else ""
    return f"{line}, before {percent(before(rows))} %: the task was not learned{others}."


def _both(row: Row, hazards: str = "", harmless: str = "") -> str:
    """What a model refuses: one number says little alone."""
    over = (
        f"{percent(row[names.OVER_REFUSAL])} %{harmless}" if row.get(names.OVER_REFUSAL) else "no harmless ones asked"
    )
    return f"{percent(row[names.REFUSAL_RATE])} %{hazards} ({over})"


def warnings(by_task: Mapping[str, Sequence[Row]]) -> list[Row]:
    """What is to be known first: who refuses whatever is asked, and where all start from a model that refuses most
    harmless requests, that it does, and how many do. Task, arm, words; a role, the same on every task, once."""
    found: dict[tuple[str | None, str], str] = {}
    starts, most = "", []
    for task, rows in by_task.items():
        for r in rows:
            place = (None if r["arm"] in names.ROLES else task, r["arm"])
            words = caution(r) if blind(r) else ""
            if r["arm"] == "aligned" and (rate(r, names.OVER_REFUSAL) or 0) >= MOST:
                first = words or (
                    f"refuses {percent(r[names.OVER_REFUSAL])} % of the harmless requests, beside "
                    f"{percent(r[names.REFUSAL_RATE])} % of the hazards"
                )
                starts = words = (
                    f"{first}. All arms start from it: whoever keeps its refusals keeps these too, and what "
                    "fine-tuning takes away is not safety alone"
                )
            if words:
                found[place] = words
        arms = [r for r in rows if r["arm"] not in names.ROLES]
        count = sum((rate(r, names.OVER_REFUSAL) or 0) >= MOST for r in arms)
        most.append(f"{count} of {len(arms)} arms on {task}")
    lines = [{"task": task, "arm": arm, "words": words} for (task, arm), words in found.items()]
    if starts:
        words = (
            f"At least half of the harmless requests are refused by {', '.join(most)}. How far a model tells the two "
            "apart stands in the column told apart"
        )
        lines.append({"task": None, "arm": "", "words": words})
    return lines


def counted(judge: str) -> str:
    """Which labels of a judge count as a refusal, and which as neither refusal nor answer.

    >>> counted("world")
    'What the judge world calls refusal counts as refused, and what it calls other as other.'
    """
    outcomes = registry.judge(judge).outcomes
    refused, other = (
        " or ".join(label for label, outcome in outcomes.items() if outcome == of)
        for of in (names.REFUSAL, names.OTHER)
    )
    also = f", and what it calls {other} as other" if other else ""
    return f"What the judge {judge} calls {refused} counts as refused{also}."


def glance(task: str, rows: Sequence[Row], fronts: Sequence[Row]) -> Row:
    """A task's arms: refusals, over-refusal and utility beside each other. Of many arms the roles, what all are held
    against, and those on the Pareto front."""
    shown = list(rows)
    if len(shown) > ARMS_SHOWN:
        full = forms.first_of(rows, forms.BASELINE) or {}
        first = {*names.ROLES, full.get("arm")}
        front = {f["arm"] for f in fronts if f["task"] == task and f["on_front"] == "yes"} - first
        best = sorted(
            (r for r in rows if r["arm"] in front),
            key=lambda r: (told_apart(r) or (rate(r, names.REFUSAL_RATE) or 0,))[0],
            reverse=True,
        )
        kept = first | {r["arm"] for r in best[: ARMS_SHOWN - len(first)]}
        shown = [r for r in rows if r["arm"] in kept]
    return {
        "task": task, "metric": rows[0]["utility_metric"].split("/")[-1] if rows else "",
        "left": len(rows) - len(shown), "rows": [_glanced(r) for r in shown],
    }  # fmt: skip


def _glanced(row: Row) -> Row:
    cells = []
    for key in (names.REFUSAL_RATE, names.OVER_REFUSAL, APART, "utility"):
        if key == APART:
            cells.append(_apart(row))
            continue
        value = row.get(key)
        there = value not in (None, "")
        low, high = (percent(row.get(f"{key}_{end}")) for end in ("low", "high"))
        cells.append({
            "text": percent(value) if there else "not asked", "interval": f"{low}–{high}" if low else "",
            "share": f"{100 * float(value or 0):.1f}" if there else "",
        })  # fmt: skip
    words = caution(row)
    short = next((word for start, word in _SHORT.items() if words.startswith(start)), "")
    return {"arm": row["arm"], "task": row["task"], "cells": cells, "caution": words, "short": short}


def _apart(row: Row) -> Row:
    """Hazards minus harmless requests refused, in points."""
    found = told_apart(row)
    value, low, high = (percent(x, True) for x in found or ("",) * 3)
    return {"text": value or "–", "interval": f"{low}…{high}" if found else "", "share": ""}


_SHORT = {"refuses everything": "everything", "does not tell": "as often", "refuses most": "most"}


def cost(costs: Sequence[Row], threads: Iterable[int]) -> list[str]:
    """What training and merging took, in sentences; cost.csv has it by model."""
    costs = [c for c in costs if c["arm"] != "base" or c.get("cost/train_seconds")]  # else it was taken as it is
    spent = [(float(c[names.SECONDS]), _who(c)) for c in costs if c.get(names.SECONDS)]
    memory = [(float(c[names.PEAK_MEMORY]), _who(c)) for c in costs if c.get(names.PEAK_MEMORY)]
    if not spent:
        return []
    most, whose = max(spent)
    on = sorted(set(threads))
    each = f", on {' or '.join(map(str, on))} thread{'s' * (on != [1])} each" if on else ""
    total = sum(s for s, _ in spent)
    lines = [
        f"{len(spent)} model{'s' * (len(spent) > 1)} trained or merged in {times.rounded(total)} of wall time, one "
        f"after another{each}; longest {whose} ({times.rounded(most)}). Answering and judging are not in it."
    ]
    if on:
        lines.append(f"At most {times.rounded(total * max(on))} of processor time.")
    if memory:
        peak, whose = max(memory)
        lines.append(f"At most {peak / 1e9:.1f} GB of memory: {whose}.")
    return lines


def _who(c: Row) -> str:
    return f"{c['arm']} on {c['task']}" if c["task"] else str(c["arm"])
