"""The verdict of a gate, for a terminal and for a pull request: what was asked and found, and what would resolve it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.compare.gate import NOT_RESOLVED, PASS

Row = dict[str, Any]
COLUMNS = ("arm", "task", "criterion", "against", "difference", "limits", "bound", "verdict")
NUMBERS = ("difference", "limits", "bound")


def headline(found: Row) -> str:
    """The whole verdict in one line.

    >>> headline({"verdict": "ship", "study": "s", "arms": [{"arm": "a", "verdict": "ship", "criteria": []}]})
    'ship: a of the study s'
    """
    arms = found["arms"]
    if len(arms) > 1:
        said = ", ".join(f"{arm['arm']}: {arm['verdict']}" for arm in arms)
        return f"{found['verdict']}: of the study {found['study']}, {said}"
    why = ", ".join(f"{_name(r)} on {r['task']}: {r['verdict']}" for r in arms[0]["criteria"] if r["verdict"] != PASS)
    return f"{found['verdict']}: {arms[0]['arm']} of the study {found['study']}" + (f" ({why})" if why else "")


def rows(found: Row) -> list[dict[str, str]]:
    """Every criterion of every arm as text, differences in points."""
    return [
        {
            "arm": arm["arm"], "task": r["task"], "criterion": _name(r), "against": r["against"],
            "difference": _points(r["effect"]), "limits": f"[{_points(r['low'])}, {_points(r['high'])}]",
            "bound": f"{'>' if r['bound'] < 0 else '<'} {_points(r['bound'])}", "verdict": r["verdict"],
        }
        for arm in found["arms"] for r in arm["criteria"]
    ]  # fmt: skip


def _name(row: Row) -> str:
    return str(row["criterion"]).replace("_", "-")


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def notes(found: Row) -> Iterator[str]:
    """What the columns are; what would resolve what is not resolved; what was not measured; what limits do not hold."""
    yield (
        f"Differences in points on the {found['split']} split, by the judge {found['judge']}; limits are one-sided, at "
        f"{100 * found['level']:g} % each. An arm ships when its limits are all within their bounds; it fails where "
        "one is beyond, by p adjusted after Holm over its criteria."
    )
    for arm in found["arms"]:
        for r in arm["criteria"]:
            if r["verdict"] == NOT_RESOLVED:
                yield f"{arm['arm']}, {_name(r)} on {r['task']}: {needed(r)}."
        if arm["not_measured"]:
            left = ", ".join(f"{_name(r)} on {r['task']}" for r in arm["not_measured"])
            yield f"{arm['arm']}: not measured, and so not asked: {left}."
    if any(r["seeds"] == r["replicates"] == 1 for arm in found["arms"] for r in arm["criteria"]):
        yield "One draw: this is about the model that was trained, not about what another seed or base would give."


def needed(row: Row) -> str:
    """What would resolve a criterion in four of five studies, if the difference that was seen is the true one."""
    if row["nothing_to_lose"]:
        return f"{row['against']} has no more than the margin that could be lost, so that keeping it says nothing"
    several = row["replicates"] > 1
    draws, have = ("replicates", row["replicates"]) if several else ("seeds", row["seeds"])
    ways = [
        f"about {_rounded(n)} {what} (now {now:,})"
        for n, what, now in (
            (row["needed"]["prompts"], "prompts", row["prompts"]), (row["needed"]["draws"], draws, have)
        ) if n is not None
    ]  # fmt: skip
    if ways:
        return f"if the difference is truly {_points(row['effect'])}, {' or '.join(ways)} would tell"
    if have == 1:
        return "no number of prompts would tell, the difference is too near the bound"
    return (
        f"more prompts or more {draws} alone would not tell: the difference is too near the bound for how they differ"
    )


def _rounded(n: int) -> str:
    """A number rounded up to two digits.

    >>> _rounded(1234), _rounded(7), _rounded(310)
    ('1,300', '7', '310')
    """
    step = 10 ** max(len(str(n)) - 2, 0)
    return f"{-(-n // step) * step:,}"


def text(found: Row) -> str:
    """For a terminal."""
    table = [{c: c for c in COLUMNS}, *rows(found)]
    widths = {c: max(len(r[c]) for r in table) for c in COLUMNS}
    lines = ["  ".join(f"{r[c]:{'>' if c in NUMBERS else '<'}{widths[c]}}" for c in COLUMNS).rstrip() for r in table]
    return "\n".join([headline(found), "", *lines, "", *notes(found)])


def markdown(found: Row) -> str:
    """For a pull request."""
    verdict, rest = headline(found).split(": ", 1)
    lines = [f"**{verdict}**: {rest}", "", f"| {' | '.join(COLUMNS)} |"]
    lines.append("|" + "".join("--:|" if c in NUMBERS else "---|" for c in COLUMNS))
    for r in rows(found):
        cells = {c: r[c].replace("|", "\\|") for c in COLUMNS}
        lines.append("| " + " | ".join(f"`{v}`" if c in ("arm", "against") else v for c, v in cells.items()) + " |")
    return "\n".join([*lines, "", *(f"- {line}" for line in notes(found))])
