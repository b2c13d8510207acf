"""The report: one self-contained HTML page that says what was measured and what was not resolved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import choosing
from holdfast.record import csvfiles, files, jsonfiles, tables
from holdfast.report import plots, shown, tradeoffs
from holdfast.report.shown import percent

Row = dict[str, Any]
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
    points = sweep_rows or ([r for r in rows if r["arm"] not in names.ROLES] if resolved.get("choose") else [])
    tasks = {k for k, t in resolved["tasks"].items() if t.get("harmful_fraction")}
    datasets = {resolved["tasks"][k]["dataset"] for k in tasks}
    series = {k for k, t in resolved["tasks"].items() if t["dataset"] in datasets}
    poisoned = [r for r in rows if r["task"] in series and r["arm"] not in names.ROLES] if tasks else []
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
        tables=[(task, [shown.table_row(r) for r in group]) for task, group in by_task.items()],
        claims=[shown.claim_row(c) for c in csvfiles.read_csv(claims)],
        fronts=[shown.front_row(r) for r in fronts],
        papers=[shown.paper_row(r) for r in csvfiles.read_csv(papers)],
        examples=examples(metrics, cells, open_text),
        example_note="The same prompt, before and after fine-tuning. Everything here is fictional."
        if open_text else "Prompts and answers are redacted by default.",
        cost=costs,
        cells=[shown.cell_row(p, c, html.parent) for p, c in zip(metrics, cells, strict=True)],
        sweep=bool(points),
        risk=shown.risk([r for r in rows if r["arm"] not in names.ROLES], rows, costs) if poisoned else [],
        labels=shown.labels(cells),
        agreement=shown.agreement(jsonfiles.read_json(agreement)) if agreement else None,
        capabilities=[shown.capability_row(r) for r in csvfiles.read_csv(capabilities)] if capabilities else [],
        figures=figures,
        cell_id=shown.cell_id,
        known={shown.cell_id(c["task"], c["arm"]) for c in cells},
        settings=json.dumps(resolved, indent=1, sort_keys=True),
    )  # fmt: skip
    files.write_text(html, page)


def _chosen(resolved: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(family, task) -> what an arm of this study is trained with; nothing in a sweep, whose arms are its points."""
    return {
        (arm["family"], task): arm["settings"][task] | {"learning_rate": rate}
        for arm in resolved["resolved_arms"].values() if not arm["swept"]
        for task, rate in arm["learning_rates"].items()
    }  # fmt: skip


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
