"""The comparison table for other people's documents: Markdown and LaTeX (booktabs), percent with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast import names
from holdfast.compare.claims import DECLARED, EQUAL

Row = dict[str, Any]
COLUMNS = (
    ("refused", names.REFUSAL_RATE), ("wrapped, refused", names.WRAPPED_REFUSAL_RATE),
    ("real compliance", names.COMPLIANCE_RATE), ("over-refusal", names.OVER_REFUSAL), ("utility", "utility"),
)  # fmt: skip
_TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}  # fmt: skip


Cell = tuple[str, str, str, bool]
NOTE = (
    "Some of these answers were cut, at the longest answer allowed or at the model's last position: their judge saw "
    "beginnings. The .csv of this table says how many."
)


def cut(row: Row, key: str) -> float:
    """Share of the answers behind a rate that did not end by themselves; 0 where the table does not say."""
    return sum(float(row.get(f"{key}_{how}") or 0) for how in (names.LENGTH, names.CONTEXT))


def _cell(row: Row, key: str) -> Cell | None:
    """(value, low, high) in whole percent, and whether answers were cut; None where nothing was measured."""
    if not row.get(key):
        return None
    value, low, high = (f"{100 * float(row[k]):.0f}" for k in (key, f"{key}_low", f"{key}_high"))
    return value, low, high, cut(row, key) > 0


def _measured(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The columns in which some arm has a number."""
    return [(title, key) for title, key in COLUMNS if any(r.get(key) for r in rows)]


def _marked(cell: Cell | None, nothing: str) -> str:
    """One cell in Markdown."""
    return nothing if cell is None else f"{cell[0]}{'†' * cell[3]} <sub>{cell[1]}–{cell[2]}</sub>"


def _any_cut(rows: Sequence[Row], keys: Sequence[str]) -> bool:
    return any(cut(r, key) for r in rows for key in keys)


def summary(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> arm -> rate: the numbers of the table as `dvc metrics diff` reads them."""
    keys = dict(COLUMNS) | {"changed weights": "weights/changed_fraction"}
    return {
        task: {r["arm"]: {name: float(r[key]) for name, key in keys.items() if r.get(key)} for r in group}
        for task, group in _by_task(rows).items()
    }


def _by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    out: dict[str, list[Row]] = {}
    for r in rows:
        out.setdefault(r["task"], []).append(r)
    return out


def markdown(rows: Sequence[Row]) -> str:
    """One table per task, as GitHub renders it."""
    lines: list[str] = []
    columns = _measured(rows)
    for task, group in _by_task(rows).items():
        metric = group[0]["utility_metric"].split("/")[1]
        lines += ["", f"| {task} ({metric}) | {' | '.join(t for t, _ in columns)} |", "|---|" + "--:|" * len(columns)]
        for r in group:
            cells = (_marked(_cell(r, key), nothing="–") for _, key in columns)
            lines.append(f"| `{r['arm']}` | {' | '.join(cells)} |")
    note = ["", f"† {NOTE}"] if _any_cut(rows, [key for _, key in COLUMNS]) else []
    return "\n".join([*lines, *note]) + "\n"


def suites(rows: Sequence[Row]) -> str:
    """One table per task of what every arm refuses of each suite (rows of suites.csv), where there are several."""
    names_of = list(dict.fromkeys(r["suite"] for r in rows))
    if len(names_of) < 2:
        return ""
    what = (("refused", names.REFUSAL_RATE), ("over-refusal", names.OVER_REFUSAL))
    asked = [(s, *w) for s in names_of for w in what if any(r[w[1]] for r in rows if r["suite"] == s)]
    lines: list[str] = []
    for task, group in _by_task(rows).items():
        titles = [f"{suite}: {title}" for suite, title, _ in asked]
        lines += ["", f"| {task}, each suite by itself | {' | '.join(titles)} |", "|---|" + "--:|" * len(titles)]
        found = {(r["arm"], r["suite"]): r for r in group}
        for arm in dict.fromkeys(r["arm"] for r in group):
            cells = [_marked(_cell(found[arm, suite], key), nothing="–") for suite, _, key in asked]
            lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def overview(rows: Sequence[Row], shown: Sequence[str] = ("refused", "utility")) -> str:
    """One table of all tasks for reading: these columns of every arm, in the order they come."""
    tasks, keys = _by_task(rows), [dict(COLUMNS)[title] for title in shown]
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    found = {(r["task"], r["arm"]): r for r in rows}
    titles = [f"{task}: {title}" for task in tasks for title in shown]
    lines = ["", f"| arm | {' | '.join(titles)} |", "|---|" + "--:|" * len(titles)]
    for arm in arms:
        cells = [
            _marked(_cell(found.get((task, arm), {}), key), nothing="")
            for task in tasks for key in keys
        ]  # fmt: skip
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    note = ["", f"† {NOTE}"] if _any_cut(rows, keys) else []
    return "\n".join([*lines, *note]) + "\n"


def equal_utility(rows: Sequence[Row]) -> str:
    """curves.csv for reading: per task and family the refusals at equal utility and the area, most of it first; what
    did not reach a utility in every draw says in how many it did."""
    titles = (
        "points",
        "within 1",
        "within 3",
        "within 5",
        "area",
        "over-refusal (3)",
        "test utility beside full's (3)",
    )
    lines = ["", f"| task | arms | {' | '.join(titles)} |", "|---|---|" + "--:|" * len(titles)]
    for task, group in _by_task(rows).items():
        found = {(r["family"], r["measure"]): r for r in group}
        families = dict.fromkeys(r["family"] for r in group)
        for family in sorted(families, key=lambda f: -float(found[f, "area"]["refusal"] or 0)):
            kept = (found[family, key] for key in ("within-1", "within-3", "within-5", "area"))
            cells = [_marked(_cell(r, "refusal"), nothing=f"{r['reached']} reach it") for r in kept]
            at = found[family, "within-3"]
            over = f"{100 * float(at['over_refusal']):.0f}" if at["over_refusal"] else "–"
            price = [at[f"utility_minus_full{end}"] for end in ("", "_low", "_high")]
            lost = "–"
            if price[0]:
                value, low, high = (100 * float(x) for x in price)
                lost = f"{value:+.1f} <sub>{low:+.0f}…{high:+.0f}</sub>".replace("-", "−")
            lines.append(f"| {task} | `{family}` | {at['points']} | {' | '.join([*cells, over, lost])} |")
    return "\n".join(lines) + "\n"


def ranks(rows: Sequence[Row]) -> str:
    """ranks.csv for reading, the first one first."""
    lines = ["", "| arms | mean rank | 95 % over replicates |", "|---|--:|--:|"]
    for r in rows:
        ends = f"{float(r['rank_low']):.1f}–{float(r['rank_high']):.1f}" if r["rank_low"] != "" else ""
        lines.append(f"| `{r['family']}` | {float(r['rank']):.1f} | {ends} |")
    return "\n".join(lines) + "\n"


_KINDS = {
    "refusal": "about refusals", "utility": "about utility", EQUAL: "about refusals at equal utility",
    DECLARED: "that the study declares",
}  # fmt: skip


def verdicts(claims: Sequence[Row]) -> str:
    """How the claims of a study ended, in a sentence per kind: of refusals, of utility, of what it asks beside them.

    >>> kinds = ["refusal"] * 3 + ["utility"]
    >>> print(verdicts([{"kind": k, "verdict": v} for k, v in zip(kinds, ["holds", "not resolved", "holds", "holds"])]))
    Of 3 claims about refusals 2 hold, 0 do not and 1 is not resolved; of 1 about utility 1 holds.
    """
    said: list[str] = []
    for kind, about in _KINDS.items():
        found = [r["verdict"] for r in claims if r["kind"] == kind]
        if not found:
            continue
        counts = {v: found.count(v) for v in ("holds", "does not hold", "not resolved")}
        yes, no, open_ = counts.values()
        start = f"{'of' if said else 'Of'} {len(found)} {'' if said else 'claims '}{about}"
        if yes == len(found):
            said.append(f"{start} {yes} hold{'s' * (yes == 1)}")
            continue
        said.append(f"{start} {yes} hold{'s' * (yes == 1)}, {no} {'does' if no == 1 else 'do'} not and {open_} "
                    f"{'is' if open_ == 1 else 'are'} not resolved")  # fmt: skip
    return "; ".join(said) + "." * bool(said)


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def latex(rows: Sequence[Row]) -> str:
    """One booktabs tabular, a group of rows per task. Needs \\usepackage{booktabs}."""
    columns = _measured(rows)
    mark = r"$^\dagger$"
    lines = [
        r"% \usepackage{booktabs}; percent, 95 % intervals below each other",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}", r"\toprule",
        " & ".join(["arm", *(_tex(t) for t, _ in columns)]) + r" \\",
    ]  # fmt: skip
    for task, group in _by_task(rows).items():
        metric = group[0]["utility_metric"].split("/")[1]
        lines += [r"\midrule", rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{_tex(task)} ({_tex(metric)})}}}} \\"]
        for r in group:
            found = (_cell(r, key) for _, key in columns)
            cells = ("--" if c is None else rf"{c[0]}{mark * c[3]} {{\scriptsize [{c[1]}, {c[2]}]}}" for c in found)
            lines.append(" & ".join([rf"\texttt{{{_tex(r['arm'])}}}", *cells]) + r" \\")
    note = rf"\multicolumn{{{len(columns) + 1}}}{{p{{\linewidth}}}}{{\footnotesize {mark} {NOTE}}} \\"
    notes = [note] if _any_cut(rows, [key for _, key in COLUMNS]) else []
    return "\n".join([*lines, r"\bottomrule", *notes, r"\end{tabular}"]) + "\n"
