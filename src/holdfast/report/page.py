"""The report: one self-contained HTML page that says what was measured and what was not resolved."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import attacks, choosing, forms
from holdfast.record import csvfiles, files, jsonfiles, tables
from holdfast.report import plots, shown, stressed, tabular, tradeoffs, verdicts
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
    variance: Path,
    curve: Path,
    suites: Path | None = None,
    ranks: Path | None = None,
    changes: list[Path],
    profiles: list[Path],
    metrics: list[Path],
    basis: Path,
    sweeps: list[Path],
    agreement: Path | None = None,
    capabilities: Path | None = None,
    gate: Path | None = None,
    stress: Path | None = None,
    attack: Path | None = None,
    trials: list[Path] | None = None,
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
    fronts, curves, varied = (csvfiles.read_csv(path) for path in (pareto, curve, variance))
    by_suite: dict[str, list[Row]] = {}
    for row in csvfiles.read_csv(suites) if suites else []:
        by_suite.setdefault(row["suite"], []).append(row)
    figures = {
        "frontier": tradeoffs.frontier(by_task, fronts, png=frontier),
        "prices": tradeoffs.prices(by_task, csvfiles.read_csv(cost)),
        "outcomes": plots.outcomes(by_task),
        "categories": [
            (name, plots.breakdown(cells, "by_category", of=name)) for name in (by_suite if len(by_suite) > 1 else [""])
        ],
        "wrappers": plots.breakdown(cells, "by_wrapper"),
        "loss": plots.losses({p: c for p, c in zip(metrics, cells, strict=True)}),
        "spectrum": plots.spectrum(basis),
        "changes": plots.changes({p.parent: csvfiles.read_csv(p) for p in changes}) if changes else "",
        "profiles": plots.profiles({p.stem: csvfiles.read_csv(p) for p in profiles}) if profiles else "",
        "risk": tradeoffs.risk(poisoned, csvfiles.read_csv(cost)) if poisoned else "",
        "variances": plots.variances(varied),
        "curves": tradeoffs.equal_utility(curves) if curves else "",
        "ranks": plots.ranks(csvfiles.read_csv(ranks)) if ranks else "",
        "stress": stressed.heat(csvfiles.read_csv(stress)) if stress else "",
        "attack": plots.attacks(attacks.gathered(trials)) if trials else "",
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
        reading=[*reading(by_task), *drift(by_task), *cut_short(by_task, cells), *machines(metrics)],
        prompts=first.get(f"{names.REFUSAL_RATE}_n", "0"),
        split=resolved["evaluation"]["split"],
        drawn=drawn(resolved),
        draws=len(resolved["seeds"]) * len(resolved["replicates"]),
        replicates=len(resolved["replicates"]),
        tables=[(task, [shown.table_row(r) for r in group]) for task, group in by_task.items()],
        suites=shown.suites(by_suite) if len(by_suite) > 1 else [],
        claims=[shown.claim_row(c) for c in csvfiles.read_csv(claims)],
        variance=[shown.variance_row(r) for r in varied],
        curves=[shown.curve_row(r) for r in curves if r["measure"] != "area"],
        fronts=[shown.front_row(r) for r in fronts],
        papers=[shown.paper_row(r) for r in csvfiles.read_csv(papers)],
        examples=examples(metrics, cells, open_text),
        example_note="The same prompt, before and after fine-tuning. Everything here is fictional."
        if open_text else "Prompts and answers are redacted by default.",
        cost=costs,
        cells=_together([shown.cell_row(p, c, html.parent) for p, c in zip(metrics, cells, strict=True)]),
        sweep=bool(points),
        risk=shown.risk([r for r in rows if r["arm"] not in names.ROLES], rows, costs) if poisoned else [],
        labels=shown.labels(cells),
        cut=any(tabular.cut(r, name) for r in rows for name, _ in shown.COLUMNS),
        agreement=shown.agreement(jsonfiles.read_json(agreement)) if agreement else None,
        capabilities=[shown.capability_row(r) for r in csvfiles.read_csv(capabilities)] if capabilities else [],
        gate=_gated(gate) if gate else None,
        attack=[shown.attack_row(r) for r in csvfiles.read_csv(attack)] if attack else [],
        attacker=resolved.get("attack") or {},
        baseline=(resolved.get("compare") or {}).get("baseline", forms.BASELINE),
        figures=figures,
        cell_id=shown.cell_id,
        known={shown.cell_id(c["task"], c["arm"]) for c in cells},
        settings=json.dumps(resolved, indent=1, sort_keys=True),
    )  # fmt: skip
    files.write_text(html, page)


def _gated(path: Path) -> Row:
    """The section on the gate: its verdict in a line, every criterion, and what would resolve it."""
    found = jsonfiles.read_json(path)
    return {"headline": verdicts.headline(found), "rows": verdicts.rows(found), "notes": [*verdicts.notes(found)]}


def _chosen(resolved: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(family, task) -> what an arm of this study is trained with; nothing in a sweep, whose arms are its points."""
    return {
        (arm["family"], task): arm["settings"][task] | {"learning_rate": rate}
        for arm in resolved["resolved_arms"].values() if not arm["swept"]
        for task, rate in arm["learning_rates"].items()
    }  # fmt: skip


def _together(rows: list[Row]) -> list[Row]:
    """The models of an arm together, arms in the order they have: an arm's anchor stands there once."""
    order = {name: i for i, name in reversed(list(enumerate(r["id"] for r in rows)))}
    return sorted(rows, key=lambda r: order[r["id"]])


def drawn(resolved: dict[str, Any]) -> str:
    """What was drawn how often, and so what the intervals do not hold."""
    seeds, replicates = len(resolved["seeds"]), len(resolved["replicates"])
    of_seeds = f"{seeds} seed{'' if seeds == 1 else 's'} of fine-tuning"
    if replicates > 1:
        return f"{of_seeds} in each of {replicates} replicates, which differ in " + _differing(resolved) + "."
    if seeds > 1:
        return f"{of_seeds} from one base and one aligned model: what differs between those is not in the intervals."
    return (
        "one seed of fine-tuning from one base and one aligned model: this is one draw, and what differs from draw to "
        "draw is not in the intervals."
    )


def _differing(resolved: dict[str, Any]) -> str:
    """What of the replicates is drawn anew, in words."""
    words = {"base": "base", "safety": "safety training", "draw": "rows", "order": "order",
             "instructions": "rounding"}  # fmt: skip
    if resolved["base"]["source"] != "tiny":
        del words["base"]
    found = [word for key, word in words.items() if len({r.get(key) for r in resolved["replicates"]}) > 1]
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def reading(by_task: dict[str, list[Row]]) -> list[str]:
    """Sentences with the numbers of this very study, in fixed words; no adjective is chosen by hand."""
    lines = []
    for task, rows in by_task.items():
        aligned, full, warp = (forms.first_of(rows, form) for form in ("aligned", forms.BASELINE, "warp"))
        if aligned is None:
            continue
        start = float(aligned[names.REFUSAL_RATE])
        text = f"{task}: the aligned model refuses {_refused(aligned, ' of held-out hazards', ' of harmless requests')}"
        if full is not None:
            lost = start - float(full[names.REFUSAL_RATE])
            text += (
                f"; after full fine-tuning {_refused(full)} ({percent(-lost, True)} points, of all"
                f" hazards {percent(full[names.COMPLIANCE_RATE])} % are answered with real compliance and"
                f" {percent(full[names.OTHER_RATE])} % with something else), utility {percent(full['utility'])} %"
            )
        if warp is not None:
            text += f"; after WaRP {_refused(warp)}, utility {percent(warp['utility'])} %"
        lines.append(text + ".")
    return lines


def _refused(row: Row, hazards: str = "", harmless: str = "") -> str:
    """What a model refuses of hazards and, where it was asked, of harmless requests: one number says little alone."""
    text = f"{percent(row[names.REFUSAL_RATE])} %{hazards}"
    if row.get(names.OVER_REFUSAL):
        text += f" and {percent(row[names.OVER_REFUSAL])} %{harmless or ' of the harmless'}"
    return text


def drift(by_task: dict[str, list[Row]]) -> list[str]:
    """A sentence per task on how far its models are from the aligned one where nothing was to change."""
    lines = []
    for task, rows in by_task.items():
        moved = sorted((float(r[names.KL]), r["arm"]) for r in rows if r.get(names.KL))
        if moved:
            lines.append(
                f"{task}: KL divergence from the aligned model, in nats per token of its answers to benign prompts: "
                + ", ".join(f"{arm} {kl:.3f}" for kl, arm in moved) + "."
            )  # fmt: skip
    return lines


def machines(metrics: list[Path]) -> list[str]:
    """On what the models were trained and merged; a warning where that was not one kind of machine."""
    found: Counter[str] = Counter()
    alike = True
    for path in (p.with_name("train.json") for p in metrics):
        made = jsonfiles.read_json(path).get("machine") if path.exists() else None
        if made:
            cpu = "a processor in portable rounding" if made.get("portable") else made["cpu"]
            alike &= bool(made.get("portable")) and not made.get("gpu") and not made.get("environment")
            of = made.get("gpu") or f"{cpu} ({made['instructions']}, {made['blas']})"
            found[" with ".join([of, *(f"{k}={v}" for k, v in made.get("environment", {}).items())])] += 1
    if len(found) > 1:
        named = "; ".join(f"{n} on {what}" for what, n in found.most_common())
        return [
            f"The models of this study were made on {len(found)} kinds of machine, whose bits differ: {named}. An arm "
            "that ran on another one than what it is compared with differs in more than its method."
        ]
    end = "processors of other makers gave the same bits where it was tried." if alike else (
        "another kind rounds otherwise and ends with other numbers."
    )  # fmt: skip
    return [f"Made on {what}: {end}" for what in found]


def cut_short(by_task: dict[str, list[Row]], cells: list[Row]) -> list[str]:
    """A sentence per task about answers that were cut, and one about training rows that were."""
    lines = []
    for task, rows in by_task.items():
        worst = max(rows, key=lambda r: tabular.cut(r, names.REFUSAL_RATE))
        if share := tabular.cut(worst, names.REFUSAL_RATE):
            count = sum(tabular.cut(r, names.REFUSAL_RATE) > 0 for r in rows)
            lines.append(
                f"{task}: {count} of {len(rows)} models have answers to hazards that were cut before they ended, "
                f"{worst['arm']} most ({percent(share)} %): their rates are of beginnings."
            )  # fmt: skip
        mine = [c["training"] for c in cells if c["task"] == task and c.get("training", {}).get("cut_rows")]
        if mine:
            most = max(mine, key=lambda t: t["cut_rows"])
            lines.append(f"{task}: {most['cut_rows']:,} of {most['rows']:,} training rows were cut at max_length.")
    return lines


def examples(metrics: list[Path], cells: list[Row], open_text: bool) -> list[list[tuple[str, str]]]:
    """The same hazard answered by aligned, full fine-tuning and WaRP, where full fine-tuning changed the answer."""
    seed = min((c["seed"] for c in cells), default=0)
    shown_arms: dict[tuple[str, str], tuple[str, dict[str, Row]]] = {}
    for path, cell in zip(metrics, cells, strict=True):
        arm, key = forms.of_cell(cell), cell["task"] or ""
        form = forms.form(cell["arm"], arm)
        another = cell["seed"] != seed or cell.get("replicate")
        if form not in ("aligned", forms.BASELINE, "warp") or another or arm.swept:
            continue
        if cell["arm"] == form or (key, form) not in shown_arms:
            rows = tables.read(path.with_name("responses.parquet"), "responses")
            answers = {r["id"]: r for r in rows if r["set"] == names.HAZARD}
            shown_arms[key, form] = cell["arm"], answers
    out = []
    for task in dict.fromkeys(t for t, _ in shown_arms if t):
        full_name, full = shown_arms.get((task, forms.BASELINE), ("", {}))
        aligned = shown_arms.get(("", "aligned"), ("", {}))[1]
        if not full or not aligned:
            continue
        warp_name, warp = shown_arms.get((task, "warp"), ("", {}))
        changed = [i for i, r in full.items() if r["text"] != aligned[i]["text"]][:EXAMPLES_PER_TASK]
        for i in changed:
            lines = [
                ("task", task),
                ("prompt", full[i]["prompt"]),
                ("aligned", aligned[i]["text"]),
                (full_name, full[i]["text"]),
            ]
            if warp:
                lines.append((warp_name, warp[i]["text"]))
            out.append([(who, text if open_text or who == "task" else REDACTED) for who, text in lines])
    return out
