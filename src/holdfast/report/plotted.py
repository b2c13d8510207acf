"""What the plot of the report knows: every arm with all it can be placed by, the axes there are, a look per family."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import names
from holdfast.report.cautions import APART, told_apart
from holdfast.report.drawing import COLOURS, looks
from holdfast.report.shown import cell_id

Row = dict[str, Any]
# Key of a table -> words, of what is no share also unit and factor; in the order of the choice.
RATES = {
    names.REFUSAL_RATE: "hazards refused", names.OVER_REFUSAL: "harmless requests refused", "utility": "utility",
    names.WRAPPED_REFUSAL_RATE: "wrapped hazards refused", names.COMPLIANCE_RATE: "hazards answered",
    names.OTHER_RATE: "hazards answered with something else", names.BENIGN_ANSWERED: "harmless requests answered",
    names.CHANGED_FRACTION: "weights changed",
}  # fmt: skip
OTHERS = {
    APART: ("hazards minus harmless requests refused", "points", 100.0),
    names.SECONDS: ("seconds of a cell", "s", 1.0), names.PEAK_MEMORY: ("peak memory", "GB", 1e-9),
    names.KL: ("KL from the aligned model", "nats a token", 1.0), "learning_rate": ("learning rate", "", 1.0),
}  # fmt: skip
LOGARITHMIC = (names.SECONDS, "learning_rate")


def data(by_task: Mapping[str, Sequence[Row]], costs: Sequence[Row], fronts: Sequence[Row]) -> Row:
    """What the script of the plot reads.

    Returns:
        axes (key, label, unit, log); points, each with `values`: key -> [value, low, high], the ends null where there
        is no interval; families with their colour, the number of their shape, and whether they are a role.
    """
    spent: dict[tuple[str, str], list[Row]] = {}
    for c in costs:
        spent.setdefault((c["task"], c["arm"]), []).append(c)
    front = {(f["task"], f["arm"]): f for f in fronts}
    found = []
    for task, rows in by_task.items():
        for r in rows:
            drawn = front.get((task, r["arm"]))
            of = spent.get(("" if r["arm"] in names.ROLES else task, r["arm"]), [])
            region = [_number(drawn[k], 100) for k in ("utility_sd", "refusal_sd")] if drawn else []
            found.append({
                "task": task, "arm": r["arm"], "family": r["family"], "cell": cell_id(task, r["arm"]),
                "values": _values(r, of), "front": bool(drawn and drawn["on_front"] == "yes"),
                "region": [*region, _number(drawn["correlation"])] if drawn and None not in region else None,
            })  # fmt: skip
    return {
        "axes": _axes(found), "points": found, "families": _families(by_task),
        "metrics": {t: rows[0]["utility_metric"].split("/")[-1] for t, rows in by_task.items()},
        "refused": names.REFUSAL_RATE, "over": names.OVER_REFUSAL,
    }  # fmt: skip


def in_page(found: Row) -> str:
    """As JSON that cannot end the element it stands in."""
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _axes(found: Sequence[Row]) -> list[Row]:
    words = {k: (label, "%") for k, label in RATES.items()} | {k: of[:2] for k, of in OTHERS.items()}
    return [
        {"key": key, "label": label, "unit": unit, "log": key in LOGARITHMIC}
        for key, (label, unit) in words.items() if any(key in p["values"] for p in found)
    ]  # fmt: skip


def _values(row: Row, costs: Sequence[Row]) -> dict[str, list[float | None]]:
    values = {}
    for key in RATES:
        ends = [_number(row.get(k), 100) for k in (key, f"{key}_low", f"{key}_high")]
        if ends[0] is not None:
            values[key] = ends
    if apart := told_apart(row):
        values[APART] = [_number(end, 100) for end in apart]
    for key, (_, _, factor) in OTHERS.items():
        all_of = [row.get(key)] if row.get(key) not in (None, "") else [c.get(key) for c in costs]
        there = [n for n in (_number(v, factor) for v in all_of) if n is not None]
        if there:
            values[key] = [sum(there) / len(there), None, None]
    return values


def _number(value: Any, factor: float = 1.0) -> float | None:
    return None if value in (None, "") else float(f"{factor * float(value):.5g}")


def _families(by_task: Mapping[str, Sequence[Row]]) -> list[Row]:
    order = list(dict.fromkeys(r["family"] for rows in by_task.values() for r in rows))
    look = looks(order)
    numbers = {f: i for i, f in enumerate(f for f in order if f not in names.ROLES)}
    return [
        {"name": f, "colour": look[f][0] if f in numbers else COLOURS[0], "shape": numbers.get(f, 0),
         "role": f not in numbers}
        for f in order
    ]  # fmt: skip
