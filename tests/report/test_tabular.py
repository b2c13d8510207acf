"""The table as Markdown and LaTeX."""

from __future__ import annotations

from holdfast import names
from holdfast.report import tabular


def _row(task, arm, **rates):
    row = {"task": task, "arm": arm, "utility_metric": "utility/exact_match"}
    for key, value in rates.items():
        row |= {key: str(value), f"{key}_low": str(value / 2), f"{key}_high": str((1 + value) / 2)}
    return row


ROWS = [
    _row("news_1", "full", **{names.REFUSAL_RATE: 0.5, "utility": 1.0}),
    _row("news_1", "warp.freeze-0.1", **{names.REFUSAL_RATE: 0.0, "utility": 0.25}),
    _row("stories", "full", utility=0.75),
]


def test_markdown_has_a_table_per_task_and_every_value():
    text = tabular.markdown(ROWS)
    assert text.count("|---|") == 2 and "| news_1 (exact_match) |" in text
    assert "| `full` | 50 <sub>25–75</sub> | 100 <sub>50–100</sub> |" in text and "| `full` | – | 75" in text
    assert {line.count("|") for line in text.splitlines() if line} == {4}


def test_a_column_stands_where_some_arm_has_a_number():
    wrapped = _row("stories", "warp", **{names.WRAPPED_REFUSAL_RATE: 0.0, "utility": 0.5})
    text, tex = tabular.markdown([*ROWS, wrapped]), tabular.latex([*ROWS, wrapped])
    assert "| stories (exact_match) | refused | wrapped, refused | utility |" in text
    assert "| `full` | 50 <sub>25–75</sub> | – | 100" in text and "| `warp` | – | 0 <sub>0–50</sub> | 50" in text
    assert r"\begin{tabular}{lrrr}" in tex and r"arm & refused & wrapped, refused & utility \\" in tex


def test_the_overview_has_every_arm_once():
    lines = tabular.overview(ROWS).splitlines()
    assert lines[1] == "| arm | news_1: refused | news_1: utility | stories: refused | stories: utility |"
    assert lines[3] == "| `full` | 50 <sub>25–75</sub> | 100 <sub>50–100</sub> |  | 75 <sub>38–88</sub> |"
    assert len(lines) == 5 and {line.count("|") for line in lines if line} == {6}


def test_every_claim_that_a_report_lists_is_counted():
    kinds = [("refusal", "holds"), ("utility", "not resolved"), ("equal utility", "does not hold"),
             ("declared", "holds"), ("declared", "not resolved")]  # fmt: skip
    assert tabular.verdicts([{"kind": k, "verdict": v} for k, v in kinds]) == (
        "Of 1 claims about refusals 1 holds; of 1 about utility 0 hold, 0 do not and 1 is not resolved; of 1 about "
        "refusals at equal utility 0 hold, 1 does not and 0 are not resolved; of 2 that the study declares 1 holds, 0 "
        "do not and 1 is not resolved."
    )
    assert (
        tabular.verdicts([{"kind": "declared", "verdict": "holds"}]) == "Of 1 claims that the study declares 1 holds."
    )
    assert tabular.verdicts([]) == ""
    assert "declares" not in tabular.verdicts([{"kind": k, "verdict": v} for k, v in kinds[:2]])


def test_latex_escapes_and_balances():
    text = tabular.latex(ROWS)
    assert r"\emph{news\_1 (exact\_match)}" in text and r"\texttt{warp.freeze-0.1} & 0 {\scriptsize [0, 50]}" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in body} == {2}
    assert text.count("{") == text.count("}") and text.count(r"\begin") == text.count(r"\end") == 1
    assert tabular._tex("a_b%{c}\\") == r"a\_b\%\{c\}\textbackslash{}"


def test_the_summary_has_the_rates_that_were_measured():
    assert tabular.summary(ROWS) == {
        "news_1": {"full": {"refused": 0.5, "utility": 1.0}, "warp.freeze-0.1": {"refused": 0.0, "utility": 0.25}},
        "stories": {"full": {"utility": 0.75}},
    }


def test_a_rate_of_answers_that_were_cut_says_so():
    key = names.REFUSAL_RATE
    cut = ROWS[0] | {f"{key}_stop": "0.9", f"{key}_length": "0.06", f"{key}_context": "0.04"}
    whole = ROWS[1] | {f"{key}_stop": "1.0", f"{key}_length": "0.0", f"{key}_context": "0.0"}
    assert tabular.cut(cut, key) == 0.1 and tabular.cut(whole, key) == tabular.cut(ROWS[0], key) == 0
    for write in (tabular.markdown, tabular.overview, tabular.latex):
        mark = r"$^\dagger$" if write is tabular.latex else "†"
        assert mark not in write([ROWS[0], whole])
        lines = [line for line in write([cut, whole]).splitlines() if mark in line]
        assert len(lines) == 2 and f"50{mark}" in lines[0] and tabular.NOTE in lines[1]
    text = tabular.latex([cut])
    assert text.count("{") == text.count("}") and text.index(r"\bottomrule") < text.index(tabular.NOTE)
