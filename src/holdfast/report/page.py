"""The report: one self-contained HTML page that says what was measured and what was not resolved."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from holdfast import names
from holdfast.compare import attacks, choosing, forms
from holdfast.record import csvfiles, jsonfiles
from holdfast.report import (
    answers,
    ended,
    plots,
    plotted,
    render,
    shown,
    stressed,
    summary,
    tabular,
    tradeoffs,
    verdicts,
)
from holdfast.report.shown import percent

Row = dict[str, Any]
FICTIONAL = "Everything here is fictional."
REDACTED = (
    "Its prompts are not of the fictional world, so that texts are left out: "
    "<code>holdfast answers {study} --texts</code> writes a page that has them, for whoever asks."
)


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
    forgetting: Path | None = None,
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
    spent, said = csvfiles.read_csv(cost), csvfiles.read_csv(claims)
    tradeoffs.frontier(by_task, fronts, png=frontier)
    figures = {
        "outcomes": plots.outcomes(by_task),
        "categories": [
            (name, plots.breakdown(cells, "by_category", of=name)) for name in (by_suite if len(by_suite) > 1 else [""])
        ],
        "wrappers": plots.breakdown(cells, "by_wrapper"),
        "loss": plots.losses({p: c for p, c in zip(metrics, cells, strict=True)}),
        "spectrum": plots.spectrum(basis),
        "changes": plots.changes({p.parent: csvfiles.read_csv(p) for p in changes}) if changes else "",
        "profiles": plots.profiles({p.stem: csvfiles.read_csv(p) for p in profiles}) if profiles else "",
        "risk": tradeoffs.risk(poisoned, spent) if poisoned else "",
        "variances": plots.variances(varied),
        "curves": tradeoffs.equal_utility(curves) if curves else "",
        "ranks": plots.ranks(csvfiles.read_csv(ranks)) if ranks else "",
        "stress": stressed.heat(
            stressed.gathered(
                csvfiles.read_csv(stress) if stress else [], csvfiles.read_csv(attack) if attack else [], rows
            )
        ),
        "attack": plots.attacks(attacks.gathered(trials)) if trials else "",
        "sweep": tradeoffs.sweep(points, _chosen(resolved)) if points else "",
    }
    costs = [c | {"mb": f"{int(float(c['cost/peak_memory_bytes'])) // 2**20}"} for c in spent]
    texts = answers.are_open(resolved)
    found = answers.gathered([(c, p.parent) for p, c in zip(metrics, cells, strict=True)], texts=texts)
    plot, about = plotted.data(by_task, spent, fronts), ended.arms(by_task, curves)
    render.write(
        html, "report.html", ("page.js", "plot.js", "answers.js"),
        study=resolved["study"],
        description=resolved["description"],
        summary=summary.built(
            resolved, by_task, said, spent, fronts, curves, cells=cells, drawn=drawn(resolved), threads=threads(metrics)
        ),
        most_parts=summary.MOST_PARTS,
        notes=[*drift(by_task), *cut_short(by_task, cells), *machines(metrics)],
        split=resolved["evaluation"]["split"],
        plot=plot,
        points=plotted.in_page(plot),
        draws=len(resolved["seeds"]) * len(resolved["replicates"]),
        replicates=len(resolved["replicates"]),
        tables=[(task, [shown.table_row(r) for r in group]) for task, group in by_task.items()],
        suites=shown.suites(by_suite) if len(by_suite) > 1 else [],
        forgotten=shown.forgotten(csvfiles.read_csv(forgetting)) if forgetting else [],
        claims=[shown.claim_row(c, ended.WHY.get(ended.doubt(c, about), "")) for c in said],
        variance=[shown.variance_row(r) for r in shown.roles_once(varied)],
        drawn_parts=shown.drawn_parts(varied),
        curves=[shown.curve_row(r) for r in curves if r["measure"] != "area"],
        fronts=[shown.front_row(r) for r in fronts],
        papers=[shown.paper_row(r) for r in csvfiles.read_csv(papers)],
        packed=answers.packed(found),
        first_judge=cells[0]["judge"] if cells else "",
        answers_note=FICTIONAL if texts else _redacted(resolved),
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
        to_beat=f"the arm {declared['baseline']}" if (declared := resolved.get("compare")) else "full fine-tuning",
        stressed=bool(stress),
        columns=shown.columns(rows, (resolved.get("compare") or {}).get("baseline", forms.BASELINE)),
        figures=figures,
        cell_id=shown.cell_id,
        known={shown.cell_id(c["task"], c["arm"]) for c in cells},
        settings=json.dumps(resolved, indent=1, sort_keys=True),
    )  # fmt: skip


def of_answers(
    resolved: dict[str, Any], models: list[tuple[Row, Path]], html: Path, *, texts: bool
) -> None:  # fmt: skip
    """Write the browser of answers as a page of its own.

    Args:
        models: metrics.json of every model, and its folder; texts: whether prompts and answers are in the page.
    """
    said = FICTIONAL if answers.are_open(resolved) else "Prompts and answers are in this file, whatever they say."
    note = said if texts else _redacted(resolved)
    render.write(
        html, "answers.html", ("page.js", "answers.js"), study=resolved["study"], description=resolved["description"],
        packed=answers.packed(answers.gathered(models, texts=texts), answers.PAGE_BYTES), answers_note=note,
        first_judge=models[0][0]["judge"] if models else "",
    )  # fmt: skip


def _redacted(resolved: dict[str, Any]) -> str:
    return Markup(REDACTED).format(study=resolved["study"])


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


def drift(by_task: dict[str, list[Row]]) -> list[str]:
    """A sentence on how far the models are from the aligned one where nothing was to change."""
    said = []
    for task, rows in by_task.items():
        moved = sorted((float(r[names.KL]), r["arm"]) for r in rows if r.get(names.KL))
        if moved:
            said.append(f"{task}: " + ", ".join(f"{arm} {kl:.3f}" for kl, arm in moved))
    what = "KL divergence from the aligned model, in nats per token of its answers to benign prompts"
    return [f"How far the models moved where nothing was to change ({what}). {'; '.join(said)}."] if said else []


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


def threads(metrics: list[Path]) -> set[int]:
    """With how many threads the models were made, as far as it is recorded."""
    records = (p.with_name("train.json") for p in metrics)
    return {m["threads"] for p in records if p.exists() and (m := jsonfiles.read_json(p).get("machine"))}


def cut_short(by_task: dict[str, list[Row]], cells: list[Row]) -> list[str]:
    """A sentence about answers that were cut, and one per task about training rows that were."""
    said, lines = [], []
    for task, rows in by_task.items():
        worst = max(rows, key=lambda r: tabular.cut(r, names.REFUSAL_RATE))
        if share := tabular.cut(worst, names.REFUSAL_RATE):
            count = sum(tabular.cut(r, names.REFUSAL_RATE) > 0 for r in rows)
            said.append(f"{task}: of {count} of {len(rows)} models, {worst['arm']} most ({percent(share)} %)")
        mine = [c["training"] for c in cells if c["task"] == task and c.get("training", {}).get("cut_rows")]
        if mine:
            most = max(mine, key=lambda t: t["cut_rows"])
            lines.append(f"{task}: {most['cut_rows']:,} of {most['rows']:,} training rows were cut at max_length.")
    if said:
        what = "What was judged is how they begin: a refusal that comes later, or harm, is not seen."
        lines.insert(0, f"Answers to hazards were cut before they ended. {'; '.join(said)}. {what}")
    return lines
