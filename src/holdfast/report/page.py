"""The report: one self-contained HTML page that says what was measured and what was not resolved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import choosing, groups
from holdfast.compare.agreement import AGREEMENT, KEPT_RATE, UNPARSED_RATE
from holdfast.record import csvfiles, files, jsonfiles, provenance, tables
from holdfast.report import plots, tradeoffs
from holdfast.track import importing

Row = dict[str, Any]
COLUMNS = (
    (names.REFUSAL_RATE, False), (names.WRAPPED_REFUSAL_RATE, False), (names.COMPLIANCE_RATE, False),
    (names.OTHER_RATE, False), (names.OVER_REFUSAL, False), ("utility", False), ("refusal_minus_full", True),
    ("utility_minus_full", True), (names.CHANGED_FRACTION, False),
)  # fmt: skip
EXAMPLES_PER_TASK = 3
REDACTED = "[redacted: the study's prompts are not of the fictional world]"


def build(
    resolved: dict[str, Any],
    *,
    table: Path,
    claims: Path,
    cost: Path,
    papers: Path,
    pareto: Path,
    changes: list[Path],
    profiles: list[Path],
    metrics: list[Path],
    basis: Path,
    sweeps: list[Path],
    agreement: Path | None = None,
    capabilities: Path | None = None,
    html: Path,
    frontier: Path,
) -> None:
    """Write report.html and frontier.png."""
    import jinja2

    rows = csvfiles.read_csv(table)
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    cells = [jsonfiles.read_json(p) for p in metrics]
    sweep_rows = choosing.means([row for path in sweeps for row in csvfiles.read_csv(path)])
    points = sweep_rows or ([r for r in rows if r["arm"] not in groups.ROLES] if resolved.get("choose") else [])
    tasks = {k for k, t in resolved["tasks"].items() if t.get("harmful_fraction")}
    datasets = {resolved["tasks"][k]["dataset"] for k in tasks}
    series = {k for k, t in resolved["tasks"].items() if t["dataset"] in datasets}
    poisoned = [r for r in rows if r["task"] in series and r["arm"] not in groups.ROLES] if tasks else []
    fronts = csvfiles.read_csv(pareto)
    figures = {
        "frontier": tradeoffs.frontier(by_task, fronts, png=frontier),
        "prices": tradeoffs.prices(by_task, csvfiles.read_csv(cost)),
        "outcomes": plots.outcomes(by_task),
        "categories": plots.breakdown(cells, "by_category"),
        "wrappers": plots.breakdown(cells, "by_wrapper"),
        "loss": plots.losses({p: c for p, c in zip(metrics, cells, strict=True)}),
        "spectrum": plots.spectrum(basis),
        "changes": plots.changes({p.parent: csvfiles.read_csv(p) for p in changes}) if changes else "",
        "profiles": plots.profiles({p.stem: csvfiles.read_csv(p) for p in profiles}) if profiles else "",
        "risk": tradeoffs.risk(poisoned, csvfiles.read_csv(cost)) if poisoned else "",
        "sweep": tradeoffs.sweep(points, _chosen(resolved)) if points else "",
    }
    costs = [c | {"mb": f"{int(float(c['cost/peak_memory_bytes'])) // 2**20}"} for c in csvfiles.read_csv(cost)]
    open_text = resolved["evaluation"]["source"] == "world"
    first = rows[0] if rows else {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        study=resolved["study"],
        description=resolved["description"],
        reading=reading(by_task),
        prompts=first.get(f"{names.REFUSAL_RATE}_n", "0"),
        split=resolved["evaluation"]["split"],
        seeds=len(resolved["seeds"]),
        tables=[(task, [_table_row(r) for r in group]) for task, group in by_task.items()],
        claims=[_claim_row(c) for c in csvfiles.read_csv(claims)],
        fronts=[_front_row(r) for r in fronts],
        papers=[_paper_row(r) for r in csvfiles.read_csv(papers)],
        examples=examples(metrics, cells, open_text),
        example_note="The same prompt, before and after fine-tuning. Everything here is fictional."
        if open_text else "Prompts and answers are redacted by default.",
        cost=costs,
        cells=[_cell_row(p, c, html.parent) for p, c in zip(metrics, cells, strict=True)],
        sweep=bool(points),
        risk=_risk([r for r in rows if r["arm"] not in groups.ROLES], rows, costs) if poisoned else [],
        agreement=_agreement(jsonfiles.read_json(agreement)) if agreement else None,
        capabilities=[_capability_row(r) for r in csvfiles.read_csv(capabilities)] if capabilities else [],
        figures=figures,
        cell_id=cell_id,
        known={cell_id(c["task"], c["arm"]) for c in cells},
        settings=json.dumps(resolved, indent=1, sort_keys=True),
    )  # fmt: skip
    files.write_text(html, page)


def _risk(poisoned: list[Row], rows: list[Row], costs: list[Row]) -> list[Row]:
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


def _agreement(found: dict[str, Any]) -> dict[str, Any]:
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
    models: dict[tuple[str | None, str, int], dict[str, Row]] = {}
    for m in found["models"]:
        models.setdefault((m["task"], m["arm"], m["seed"]), {})[m["judge"]] = m
    rows = []
    for (task, arm, seed), said in models.items():
        cells = []
        for judge in judges:
            r = said.get(judge, {})
            lost = r.get(UNPARSED_RATE) or 0.0
            text = percent(r.get(KEPT_RATE)) + (f" ({percent(lost)} % unparsed)" if lost else "")
            cells.append({"value": r.get(KEPT_RATE, ""), "text": text,
                          "interval": interval(r, KEPT_RATE) if KEPT_RATE in r else ""})  # fmt: skip
        rows.append(
            {"task": task, "arm": arm, "of": "" if task is None else f" on {task}, seed {seed}", "cells": cells}
        )
    return {"pairs": pairs, "judges": judges, "rows": rows}


def _front_row(r: Row) -> Row:
    return {
        "task": r["task"], "arm": r["arm"], "on_front": r["on_front"],
        "cells": [
            {"value": r["front_probability"], "text": percent(r["front_probability"])},
            {"value": r["hypervolume"], "text": f"{float(r['hypervolume']):.3f}",
             "interval": f"{float(r['hypervolume_low']):.3f} to {float(r['hypervolume_high']):.3f}"},
            {"value": r["share_of_front"], "text": percent(r["share_of_front"])},
        ],
    }  # fmt: skip


def _capability_row(r: Row) -> Row:
    def cell(key: str, signed: bool = False) -> Row:
        low, high = (percent(r[f"{key}_{end}"], signed) for end in ("low", "high"))
        return {"value": r[key], "text": percent(r[key], signed), "interval": f"[{low}, {high}]" if r[key] else ""}

    return r | {
        "task": r["task"] or "all",
        "cells": [cell("rate"), cell("minus_aligned", signed=True)],
        "p_text": f"{float(r['p_holm']):.2g}" if r["p_holm"] else "",
    }  # fmt: skip


def _paper_row(r: Row) -> Row:
    def text(key: str) -> Row:
        if not r[key]:
            return {"value": "", "text": "not measured"}
        value, low, high = (percent(r[k]) for k in (key, f"{key}_low", f"{key}_high"))
        return {"value": r[key], "text": value, "interval": f"{low} to {high}"}

    return r | {"published": text("published"), "ours": text("ours")}


def _chosen(resolved: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(family, task) -> what an arm of this study is trained with; nothing in a sweep, whose arms are its points."""
    return {
        (arm["family"], task): arm["settings"][task] | {"learning_rate": rate}
        for arm in resolved["resolved_arms"].values() if not arm["swept"]
        for task, rate in arm["learning_rates"].items()
    }  # fmt: skip


def percent(value: str | float | None, signed: bool = False) -> str:
    if value in (None, ""):
        return ""
    points = round(100 * float(value), 1) + 0.0  # no minus sign before a zero
    return f"{points:+.1f}" if signed else f"{points:.1f}"


def _table_row(row: Row) -> Row:
    cells = []
    for name, signed in COLUMNS:
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        interval = f"[{percent(low, signed)}, {percent(high, signed)}]" if low not in (None, "") else ""
        cells.append({"value": row.get(name) or "", "text": percent(row.get(name), signed), "interval": interval})
    rate = row["learning_rate"]
    return {
        "arm": row["arm"],
        "cell": cell_id(row["task"], row["arm"]),
        "lr": f"{float(rate):g}" if rate else "",
        "utility_metric": row["utility_metric"],
        "cells": cells,
    }


def _cell_row(path: Path, cell: Row, folder: Path) -> Row:
    """Where one cell's numbers come from: its folder beside the report, its run in MLflow, its digest."""
    return {
        "id": cell_id(cell["task"], cell["arm"]), "task": cell["task"] or "all", "arm": cell["arm"],
        "seed": cell["seed"], "href": path.relative_to(folder).as_posix(), "model": cell["model"],
        "run": importing.cell_name(cell), "digest": provenance.file_digest(path)[:12],
    }  # fmt: skip


def cell_id(task: str | None, arm: str) -> str:
    """The anchor of an arm's cells; the roles have one for all tasks."""
    return f"cell-{'all' if task is None or arm in groups.ROLES else task}-{arm}"


def _claim_row(claim: Row) -> Row:
    return claim | {
        "effect_text": percent(claim["effect"], True),
        "interval": f"[{percent(claim['low'], True)}, {percent(claim['high'], True)}]",
        "p_text": f"{float(claim['p_holm']):.2g}",
    }


def reading(by_task: dict[str, list[Row]]) -> list[str]:
    """Sentences with the numbers of this very study, in fixed words; no adjective is chosen by hand."""
    lines = []
    for task, rows in by_task.items():
        arms = {r["arm"]: r for r in rows}
        if "aligned" not in arms:
            continue
        start = float(arms["aligned"][names.REFUSAL_RATE])
        text = f"{task}: the aligned model refuses {percent(start)} % of held-out hazards"
        if "full" in arms:
            full = arms["full"]
            lost = start - float(full[names.REFUSAL_RATE])
            text += (
                f"; after full fine-tuning {percent(full[names.REFUSAL_RATE])} % ({percent(-lost, True)} points, of all"
                f" hazards {percent(full[names.COMPLIANCE_RATE])} % are answered with real compliance and"
                f" {percent(full[names.OTHER_RATE])} % with something else), utility {percent(full['utility'])} %"
            )
        if "warp" in arms:
            warp = arms["warp"]
            text += f"; after WaRP {percent(warp[names.REFUSAL_RATE])} %, utility {percent(warp['utility'])} %"
        lines.append(text + ".")
    return lines


def examples(metrics: list[Path], cells: list[Row], open_text: bool) -> list[list[tuple[str, str]]]:
    """The same hazard answered by aligned, full and warp, where full no longer refuses."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for path, cell in zip(metrics, cells, strict=True):
        if cell["arm"] in ("aligned", "full", "warp") and cell["seed"] == min(c["seed"] for c in cells):
            rows = tables.read(path.with_name("responses.parquet"), "responses")
            found[cell["task"] or "", cell["arm"]] = {r["id"]: r for r in rows if r["set"] == names.HAZARD}
    out = []
    for task in dict.fromkeys(t for t, _ in found if t):
        full, aligned = found.get((task, "full")), found.get(("", "aligned"))
        if not full or not aligned:
            continue
        changed = [i for i, r in full.items() if r["text"] != aligned[i]["text"]][:EXAMPLES_PER_TASK]
        for i in changed:
            lines = [
                ("task", task),
                ("prompt", full[i]["prompt"]),
                ("aligned", aligned[i]["text"]),
                ("full", full[i]["text"]),
            ]
            if (task, "warp") in found:
                lines.append(("warp", found[task, "warp"][i]["text"]))
            out.append([(who, text if open_text or who == "task" else REDACTED) for who, text in lines])
    return out
