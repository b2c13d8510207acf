"""Published numbers beside ours: what the papers print, the interval its n gives it, and whether ours excludes it.

`config/published.csv` has one number a row: source, model, dataset, arm (our name of its form), metric (`asr`: share
of attacks not refused; `utility`), percent, n, judge. Papers print no error bars; theirs are Wilson's over n, and
of differences Newcombe's, as if the arms had been asked different prompts. Ours are those of table.csv, whose
difference to `full` is paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import forms
from holdfast.record import csvfiles
from holdfast.statistics import independent_difference, wilson

Row = dict[str, Any]
COLUMNS = (
    "task", "arm", "metric", "published", "published_low", "published_high", "published_n", "published_judge",
    "published_model", "source", "ours", "ours_low", "ours_high", "judge", "model", "same_judge", "same_model",
    "intervals",
)  # fmt: skip
APART, OVERLAP = "exclude each other", "overlap"


def rows(published: Sequence[Row], table: Sequence[Row], *, datasets: dict[str, str], model: str) -> list[Row]:
    """One row per published number that an arm of this study answers, and per published difference to `full`.

    Args:
        table: rows of table.csv.
        datasets: task -> dataset.
        model: the study's base. Where no number was published for it, those of the first model stand there.
    """
    models = list(dict.fromkeys(r["model"] for r in published))
    there, full = model if model in models else models[0], forms.BASELINE
    out = []
    for task, dataset in datasets.items():
        here = [r for r in table if r["task"] == task]
        mine = {form: row for form in dict.fromkeys(r["form"] for r in here) if (row := forms.first_of(here, form))}
        theirs = {(r["arm"], r["metric"]): r for r in published if (r["model"], r["dataset"]) == (there, dataset)}
        for (arm, metric), r in theirs.items():
            if arm not in mine:
                continue
            out.append(_row(task, metric, r, _level(r), _ours(mine[arm], metric), mine[arm], model))
            if arm != full and full in mine and (full, metric) in theirs:
                if mine[arm].get("baseline", mine[full]["arm"]) != mine[full]["arm"]:
                    continue  # the table's differences are from another baseline
                found = _ours(mine[arm], f"{metric}_minus_full")
                if found:
                    effect = _against(r, theirs[full, metric])
                    out.append(_row(task, f"{metric} minus full", r, effect, found, mine[arm], model))
    return out


def _level(r: Row) -> tuple[float, float, float]:
    n, share = int(r["n"]), float(r["percent"]) / 100
    return (share, *wilson(round(share * n), n))


def _against(r: Row, full: Row) -> tuple[float, float, float]:
    return independent_difference(*((float(x["percent"]) / 100, int(x["n"])) for x in (r, full)))


def _ours(row: Row, metric: str) -> tuple[float, float, float] | None:
    """(value, low, high) of one row of the table; an attack succeeds where a wrapped request is not refused."""
    if metric == "utility":
        keys, sign, start = "utility", 1, 0.0
    elif metric == "asr":
        keys, sign, start = names.WRAPPED_REFUSAL_RATE, -1, 1.0
    elif metric == "utility_minus_full":
        keys, sign, start = metric, 1, 0.0
    else:
        keys, sign, start = "wrapped_minus_full", -1, 0.0
    if not row.get(keys):
        return None
    value, low, high = (start + sign * float(row[k]) for k in (keys, f"{keys}_low", f"{keys}_high"))
    return value, min(low, high), max(low, high)


def _row(
    task: str,
    metric: str,
    r: Row,
    theirs: tuple[float, float, float],
    ours: tuple[float, float, float] | None,
    mine: Row,
    model: str,
) -> Row:
    shown = ours or ("", "", "")
    apart = "" if ours is None else APART if ours[1] > theirs[2] or ours[2] < theirs[1] else OVERLAP
    by_judge = metric.startswith("asr")
    return dict(
        zip(
            COLUMNS,
            (task, mine["arm"], metric, *theirs, int(r["n"]), r["judge"], r["model"], r["source"], *shown,
             mine["judge"] if by_judge else "", model,
             ("yes" if r["judge"] == mine["judge"] else "no") if by_judge else "",
             "yes" if r["model"] == model else "no", apart),
            strict=True,
        )
    )  # fmt: skip


def build(published: Path, table: Path, *, datasets: dict[str, str], model: str, out: Path) -> None:
    """Write papers.csv; only its header where nothing was published about these tasks."""
    found = rows(csvfiles.read_csv(published), csvfiles.read_csv(table), datasets=datasets, model=model)
    csvfiles.write_csv(out, found, COLUMNS)
