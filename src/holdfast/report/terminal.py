"""A study as text in a terminal: its table when it is finished, its cost before it runs."""

from __future__ import annotations

from pathlib import Path

from holdfast import names
from holdfast.compare.power import power
from holdfast.model.shapes import Shape
from holdfast.record import files, jsonfiles, times
from holdfast.record.csvfiles import read_csv
from holdfast.report import tabular
from holdfast.study import requests, resolve, together
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


# Two spreads, to show what they cost; what a study's own arms have says its variance.csv.
SPREADS = (0.05, 0.15)


def visible(study: resolve.Resolved, hazards: int | None = None) -> str:
    """Which difference between two arms a study sees, in sentences."""
    one = power(study, hazards=hazards)
    seeds, units = len(study.study.seeds), len(study.folders)
    drawn = f"{seeds} seed(s)" + (f" in each of {units} replicates" if units > 1 else "")
    text = f"With {one.prompts} prompts per set and {drawn} a difference of "

    def points(share: float) -> str:
        return f"{100 * share:.0f} points" if share < 1 else "no size"

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


GPUS = (1, 2, 4, 8)  # that one training is planned on


def spread(study: resolve.Resolved, s: Shape, reached: float, bytes_of_gpu: float) -> list[str]:
    """What one safety training and one fine-tuning ask of each of several GPUs, and whether these hold it.

    Args:
        reached: FLOP/s of one device in training.
        bytes_of_gpu: memory of one device.
    """
    mine = study.study.resources.gpus
    holds: list[int] = []
    rows = [f"{'one on GPUs':14}{'memory of each':>16}{'time':>12}{'received a step':>17}"]
    for count in sorted({*GPUS, mine}):
        if count > 1 and together.why(study, count):
            continue
        families = stages(study, s, count)
        trained = [x for x in families if x.flops and x.name in ("aligned", "unaligned", "models, trained")]
        if not trained:
            return []
        memory, received = (max(getattr(x, k) for x in trained) for k in ("memory", "received"))
        took = max(x.flops / x.jobs for x in trained) / count / reached
        holds += [count] if memory <= bytes_of_gpu else []
        rows.append(
            f"{count:<4}{'this study' if count == mine else '':10}{files.shown(memory):>16}{times.rounded(took):>12}"
            f"{files.shown(received) if count > 1 else '':>17}{'' if count in holds else '  does not fit'}"
        )  # fmt: skip
    size = f"GPUs of {files.shown(bytes_of_gpu)}"
    if mine in holds:
        said = f"{mine} of the {size} hold the largest training of this study (resources.gpus)."
    else:
        said = f"The largest training of this study DOES NOT FIT on {mine} of the {size} (resources.gpus): " + (
            f"{min(n for n in holds if n > mine)} hold it." if any(n > mine for n in holds) else
            "activation_checkpointing, a smaller batch_size with more accumulation, or larger ones."
        )  # fmt: skip
    if why := together.why(study, 2):
        said += f" Several cannot train it: {why}."
    other = max((x for x in stages(study, s, 2) if x.processes == 1), key=lambda x: x.memory)
    if other.memory > bytes_of_gpu:
        said += f" All else has one GPU: {other.name} asks for {files.shown(other.memory)} of it, which does not fit."
    return [
        "",
        *rows,
        said,
        "Received: weights, gradients and bases that reach each of them; no time is counted for it",
    ]


def _parameters(count: int) -> str:
    """A number of parameters, as models are named.

    >>> _parameters(44_160), _parameters(134_515_008), _parameters(6_738_415_616)
    ('44.2 K', '135 M', '6.74 B')
    """
    size, unit = next(((x, u) for x, u in ((1e9, "B"), (1e6, "M")) if count >= x), (1e3, "K"))
    return f"{count / size:.3g} {unit}"


def plan(
    study: resolve.Resolved, s: Shape, rate: float, utilization: float, hazards: int | None = None, *,
    gpu: bool = False, bytes_of_gpu: float = 80e9,
) -> str:  # fmt: skip
    """The plan as lines of text.

    Args:
        hazards: how many there are to ask, where a file says it.
        gpu: what jobs ask of a scheduler, they ask beside a GPU.
        bytes_of_gpu: memory of one.
    """
    families, asked = stages(study, s), requests.of_stages(study, s, gpu=gpu, rate=rate, utilization=utilization)
    lines = [
        f"{study.name}: {_parameters(s.parameters)} parameters, {len(study.places)} cells", "",
        f"{'stage':18}{'jobs':>6}{'FLOPs':>11}{'time':>12}{'memory of one':>16}{'disk':>10}{'one asks for':>20}",
    ]  # fmt: skip
    total = Stage(
        "together", sum(x.jobs for x in families), sum(x.flops for x in families), max(x.memory for x in families),
        sum(x.disk for x in families),
    )  # fmt: skip
    for x in (*families, total):
        took = sum(y.flops / y.processes for y in (families if x is total else [x])) / (rate * utilization)
        one = asked.get(x.name)
        lasts = "?" if one is None or one.minutes is None else times.rounded(60 * one.minutes)
        request = f"{files.shown(1e6 * one.mem_mb)}, {lasts}" if one else ""
        lines.append(
            f"{x.name:18}{x.jobs:>6}{x.flops:>11.2e}{times.rounded(took):>12}{files.shown(x.memory):>16}"
            f"{files.shown(x.disk):>10}{request:>20}".rstrip()
        )
    lines += spread(study, s, rate * utilization, bytes_of_gpu) if gpu or study.study.resources.gpus > 1 else []
    lines += [
        "", "What one asks for: of a cluster (docs/cluster.md), " + ("beside a GPU." if gpu else "without a GPU."),
        f"Time: one device at {rate / 1e12:.3g} TFLOP/s, {utilization:.0%} of it reached"
        + (f", {study.study.resources.gpus} where they train together" if study.study.resources.gpus > 1 else "")
        + "; jobs also start and "
        "load, which a model of this size may not notice and a tiny one does.",
        visible(study, hazards),
    ]  # fmt: skip
    return "\n".join(lines)
