"""A study as text in a terminal: its table when it is finished, its cost before it runs."""

from __future__ import annotations

from pathlib import Path

from holdfast import names
from holdfast.compare.power import power
from holdfast.model.shapes import Shape
from holdfast.record import files, jsonfiles
from holdfast.record.csvfiles import read_csv
from holdfast.report import tabular
from holdfast.study import requests, resolve
from holdfast.study.costs import Stage, stages

COLUMNS = (
    ("refusal", names.REFUSAL_RATE), ("wrapped", names.WRAPPED_REFUSAL_RATE), ("compliance", names.COMPLIANCE_RATE),
    ("over-refusal", names.OVER_REFUSAL), ("utility", "utility"),
)  # fmt: skip


def table(folder: Path) -> str:
    """The table of results/<study> as text: percent, 95 % intervals in brackets; share of weights that changed, and
    seconds of a cell, which stand in cost.csv because table.csv does not depend on the clock."""
    rows = read_csv(folder / "table.csv")
    width = max(len(r["arm"]) for r in rows)
    costs: dict[tuple[str, str], list[float]] = {}
    for c in read_csv(folder / "cost.csv") if (folder / "cost.csv").exists() else []:
        costs.setdefault((c["task"], c["arm"]), []).append(float(c["cost/seconds"]))
    lines = []
    for task in dict.fromkeys(r["task"] for r in rows):
        lines += ["", f"{task:<{width}}" + "".join(f"{title:>22}" for title, _ in COLUMNS) + "   changed   seconds"]
        for r in (r for r in rows if r["task"] == task):
            cells = ""
            for _, key in COLUMNS:
                if r.get(key):
                    rate, low, high = (100 * float(r[k]) for k in (key, f"{key}_low", f"{key}_high"))
                mark = "†" if tabular.cut(r, key) else " "
                cells += (f"{rate:>9.1f}{mark} [{low:4.1f}, {high:4.1f}]" if r.get(key) else "–").rjust(22)
            spent = costs.get((task, r["arm"]))
            cells += f"{100 * float(r[names.CHANGED_FRACTION]):>10.1f}"
            cells += f"{sum(spent) / len(spent):>10.0f}" if spent else ""
            lines.append(f"{r['arm']:<{width}}" + cells)
    lines += _by_suite(folder / "suites.csv")
    lines += _equal_utility(folder / "curves.csv")
    first = rows[0]
    draws = [
        f"{most} {what}(s)" for what in ("seed", "replicate") if (most := max(int(r.get(f"{what}s", 1)) for r in rows))
    ]
    lines += ["", f"percent, 95 % intervals; {first['split']} split, {', '.join(draws)}"]
    if any(tabular.cut(r, key) for r in rows for _, key in COLUMNS):
        lines.append(f"† {tabular.NOTE}")
    lines.append(f"report: {(folder / 'report.html').resolve()}")
    if (folder / "mlflow.json").exists():
        view = jsonfiles.read_json(folder / "mlflow.json").get("view")
        lines += [f"MLflow: make ui, then {view}"] if view else []
    return "\n".join(lines)


def _by_suite(file: Path) -> list[str]:
    """Of a study that asks several suites, what every arm refuses of each: of its hazards and of its harmless prompts,
    and of how many."""
    rows = read_csv(file) if file.exists() else []
    if len({r["suite"] for r in rows}) < 2:
        return []
    columns = (("refusal", names.REFUSAL_RATE), ("over-refusal", names.OVER_REFUSAL))
    arms = max(len(r["arm"]) for r in rows)
    titles = {task: f"{task}: every suite by itself" for task in dict.fromkeys(r["task"] for r in rows)}
    width = max(*map(len, titles.values()), arms + 2 + max(len(r["suite"]) for r in rows))
    lines = []
    for task, title in titles.items():
        lines += ["", f"{title:<{width}}" + "".join(f"{name:>30}" for name, _ in columns)]
        for r in (r for r in rows if r["task"] == task):
            cells = ""
            for _, key in columns:
                text = "–"
                if r[key]:
                    rate, low, high = (100 * float(r[f"{key}{end}"]) for end in ("", "_low", "_high"))
                    mark = "†" if tabular.cut(r, key) else " "
                    text = f"{rate:.1f}{mark} [{low:4.1f}, {high:4.1f}] of {r[f'{key}_n']:>4}"
                cells += text.rjust(30)
            lines.append(f"{r['arm']:<{arms}}  {r['suite']}".ljust(width) + cells)
    return lines


def _equal_utility(file: Path) -> list[str]:
    """Of a sweep with curves, what every family refuses at equal utility."""
    rows = read_csv(file) if file.exists() else []
    lines = []
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        measures = list(dict.fromkeys(r["measure"] for r in mine))
        width = max(len(r["family"]) for r in mine)
        titles = "".join(("area" if m == "area" else f"at most {m[7:]} below full").rjust(22) for m in measures)
        lines += ["", f"{task}: refusals at equal utility", " " * width + titles]
        for family in dict.fromkeys(r["family"] for r in mine):
            cells = ""
            for r in (r for r in mine if r["family"] == family):
                rate, low, high = (100 * float(r[f"refusal{end}"] or 0) for end in ("", "_low", "_high"))
                cells += (f"{rate:.1f} [{low:4.1f}, {high:4.1f}]" if r["refusal"] else "not reached").rjust(22)
            lines.append(f"{family:<{width}}" + cells)
    return lines


def _minutes(count: int | None) -> str:
    """A time in words.

    >>> _minutes(11), _minutes(1500)
    ('11 min', '25 h')
    """
    return "?" if count is None else f"{count} min" if count < 120 else f"{count / 60:.0f} h"


# Two spreads, to show what they cost; what a study's own arms have says its variance.csv.
SPREADS = (0.05, 0.15)


def visible(study: resolve.Resolved, hazards: int | None = None) -> str:
    """Which difference between two arms a study sees, in sentences."""
    one = power(study, hazards=hazards)
    seeds, units = len(study.study.seeds), len(study.folders)
    drawn = f"{seeds} seed(s)" + (f" in each of {units} replicates" if units > 1 else "")
    text = f"With {one.prompts} prompts per set and {drawn} a difference of "

    def points(share: float) -> str:
        return f"{100 * share:.0f} points" if share < 1 else "no points at all"

    if one.draws == 1:
        return text + (
            f"{points(one.alone)} between the refusals of two arms is seen with 80 % power as the only claim, of "
            f"{points(one.among)} among the {one.family} of this study (Holm; paired, a fifth of the prompts answered "
            "differently). It is one draw: what differs between bases and seeds is not in it."
        )
    less, more = (power(study, spread, hazards) for spread in SPREADS)
    return text + (
        f"{points(less.alone)} between the refusals of two arms is seen with 80 % power as the only claim, of "
        f"{points(less.among)} among the {less.family} of this study (Holm; paired, a fifth of the prompts answered "
        f"differently), if it varies by {100 * less.spread:.0f} points from draw to draw; of {points(more.alone)} and "
        f"{points(more.among)} if it varies by {100 * more.spread:.0f} points."
    )


def plan(
    study: resolve.Resolved, s: Shape, rate: float, utilization: float, hazards: int | None = None, *, gpu: bool = False
) -> str:  # fmt: skip
    """The plan as lines of text.

    Args:
        hazards: how many there are to ask, where a file says it.
        gpu: what jobs ask of a scheduler, they ask beside a GPU.
    """
    families, asked = stages(study, s), requests.of_stages(study, s, gpu=gpu, rate=rate, utilization=utilization)
    lines = [
        f"{study.name}: {s.parameters / 1e9:.3g} B parameters, {len(study.places)} cells", "",
        f"{'stage':18}{'jobs':>6}{'FLOPs':>11}{'hours':>9}{'memory of one':>16}{'disk':>10}{'one asks for':>20}",
    ]  # fmt: skip
    total = Stage(
        "together", sum(x.jobs for x in families), sum(x.flops for x in families), max(x.memory for x in families),
        sum(x.disk for x in families),
    )  # fmt: skip
    for x in (*families, total):
        hours = x.flops / (rate * utilization) / 3600
        one = asked.get(x.name)
        request = f"{files.shown(1e6 * one.mem_mb)}, {_minutes(one.minutes)}" if one else ""
        lines.append(
            f"{x.name:18}{x.jobs:>6}{x.flops:>11.2e}{hours:>9.3g}{files.shown(x.memory):>16}{files.shown(x.disk):>10}{request:>20}".rstrip()
        )  # fmt: skip
    lines += [
        "", "What one asks for: of a cluster (docs/cluster.md), " + ("beside a GPU." if gpu else "without a GPU."),
        f"Hours: one device at {rate / 1e12:.3g} TFLOP/s, {utilization:.0%} of it reached; jobs also start and "
        "load, which a model of this size may not notice and a tiny one does.",
        visible(study, hazards),
    ]  # fmt: skip
    return "\n".join(lines)
