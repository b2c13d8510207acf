"""How did the claims of a study end, and what does a claim that holds say? Lists for the first page of the report.

Nothing that an arm wins that refuses whatever it is asked, or that did not learn its task, stands among what holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import names
from holdfast.compare.claims import EQUAL, UTILITY_MARGIN
from holdfast.compare.curves import BESIDE, measure
from holdfast.report.cautions import blind, caution, learned
from holdfast.report.shown import percent

Row = dict[str, Any]
Found = Mapping[tuple[str, str, str], Row]  # ("arm", task, arm) or ("mix", task, family) -> its rates
MOST_CLAIMS = 6  # of a list before the rest is folded away
VERDICTS = ("holds", "does not hold", "not resolved")
WHY = {"blind": "the arm refuses whatever it is asked", "idle": "the arm did not learn its task"}
DOUBTS = {"blind": f"nothing: {WHY['blind']}", "idle": f"little: {WHY['idle']}"}


def arms(by_task: Mapping[str, Sequence[Row]], curves: Sequence[Row] = ()) -> dict[tuple[str, str, str], Row]:
    """What claims are about: the arms of table.csv, and the mixes at equal utility of curves.csv."""
    found = {("arm", task, r["arm"]): r for task, rows in by_task.items() for r in rows}
    return found | {
        ("mix", r["task"], r["family"]): {
            names.REFUSAL_RATE: r["refusal"], names.OVER_REFUSAL: r["over_refusal"],
            names.REFUSAL_BESIDE: r.get(BESIDE[0]), names.OVER_REFUSAL_BESIDE: r.get(BESIDE[1]),
        }
        for r in curves if r["measure"] == measure(UTILITY_MARGIN)
    }  # fmt: skip


def listed(claims: Sequence[Row], found: Found) -> list[Row]:
    """The claims by how they ended, a line each for what is the same on several tasks (of utilities: for several arms).
    What an arm wins that refuses everything is a list of its own, and what one wins that did not learn its task.

    Args:
        found: as `arms` has them.
    """
    groups: dict[str, dict[tuple[str, ...], Row]] = {v: {} for v in (*VERDICTS[:1], *DOUBTS, *VERDICTS[1:])}
    paid = {
        (c["task"], c["arm"]): percent(c["effect"], True)
        for c in claims if c["kind"] == "utility" and c["verdict"] == "does not hold"
    }  # fmt: skip
    for c in claims:
        what = "mix" if c["kind"] == EQUAL else "arm"
        rows = {arm: found.get((what, c["task"], arm)) for arm in (c["arm"], c["compared_with"])}
        utility = c["kind"] == "utility"
        title = c["claim"].removeprefix(f"{c['arm']}'s ") if utility else c["claim"]
        key = (c["kind"], title, c["task"] if utility else "")
        line = groups[doubt(c, found) or c["verdict"]].setdefault(
            key, {"title": f"{c['task']}: {title}" if utility else title, "parts": []}
        )
        low, high = percent(c["low"], True), percent(c["high"], True)
        line["parts"].append({
            "of": c["arm"] if utility else c["task"], "effect": percent(c["effect"], True),
            "interval": f"[{low}, {high}]", "beside": "" if utility else _beside(rows) + _paid(c, rows, found, paid),
        })  # fmt: skip
    words = {
        "holds": "What holds", **{v: f"Holds in numbers, and says {how}" for v, how in DOUBTS.items()},
        "does not hold": "What does not hold", "not resolved": "What is not resolved: this study is too small to say",
    }  # fmt: skip
    return [
        {"verdict": v, "title": words[v], "count": sum(len(line["parts"]) for line in of.values()),
         "first": list(of.values())[:MOST_CLAIMS], "rest": list(of.values())[MOST_CLAIMS:]}
        for v, of in groups.items() if of or v not in DOUBTS
    ]  # fmt: skip


def doubt(claim: Row, found: Found) -> str:
    """Why what holds of an arm says nothing or little, a key of `DOUBTS`; nothing where it says something.

    Args:
        found: as `arms` has them.
    """
    if claim["verdict"] != "holds" or claim["kind"] == "utility":
        return ""
    row = found.get(("mix" if claim["kind"] == EQUAL else "arm", claim["task"], claim["arm"]))
    return "blind" if blind(row) else "idle" if not learned(row, _of_roles(claim["task"], found)) else ""


def _of_roles(task: str, found: Found) -> list[Row]:
    return [row for role in names.ROLES if (row := found.get(("arm", task, role)))]


def _paid(claim: Row, rows: Mapping[str, Row | None], found: Found, paid: Mapping[Any, str]) -> str:
    """What the arms of a claim about refusals lost of their task."""
    said = []
    for arm, row in rows.items():
        if not learned(row, _of_roles(claim["task"], found)):
            said.append(f"{arm} did not learn the task")
        elif lost := paid.get((claim["task"], arm)):
            said.append(f"{arm} lost utility: {lost}")
    return "; " + ", ".join(said) if said else ""


def _beside(rows: Mapping[str, Row | None]) -> str:
    """What both arms of a claim about refusals do with harmless requests."""
    said = []
    for arm, row in rows.items():
        over = (row or {}).get(names.OVER_REFUSAL)
        text = f"{arm} {percent(over)} %" if over not in (None, "") else f"{arm} not measured"
        said.append(text + (f" ({caution(row).split(':')[0]})" if blind(row) else ""))
    return "harmless refused: " + ", ".join(said)
