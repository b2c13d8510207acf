"""Published numbers beside ours."""

from __future__ import annotations

import pytest
from conftest import ROOT
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from holdfast import names
from holdfast.compare import papers
from holdfast.record import csvfiles
from holdfast.study import registry

PUBLISHED = csvfiles.read_csv(ROOT / "config/published.csv")
LLAMA = "meta-llama/Llama-2-7b-chat-hf"


def _table(arm, wrapped, utility, judge="world", **more):
    row = {"task": "stories", "arm": arm, "family": arm, "form": arm, "judge": judge}
    for key, (value, low, high) in (
        {names.WRAPPED_REFUSAL_RATE: wrapped, "utility": utility} | more
    ).items():  # fmt: skip
        row |= {key: str(value), f"{key}_low": str(low), f"{key}_high": str(high)}
    return row


TABLE = [
    _table("full", (0.1, 0.05, 0.2), (0.4, 0.35, 0.45)),
    _table("warp", (0.93, 0.9, 0.96), (0.39, 0.34, 0.44), judge="harmbench-prefix",
           wrapped_minus_full=(0.83, 0.7, 0.9), utility_minus_full=(-0.01, -0.04, 0.02)),
    _table("lora", (0.5, 0.4, 0.6), (0.1, 0.05, 0.2)),
]  # fmt: skip


def _rows(model=LLAMA):
    found = papers.rows(PUBLISHED, TABLE, datasets={"stories": "gsm8k"}, model=model)
    return {(r["arm"], r["metric"]): r for r in found}


def test_every_published_number_names_a_method_a_share_and_its_n():
    for r in PUBLISHED:
        assert r["arm"] in (*registry.method_names(), "warp-original") and r["metric"] in ("asr", "utility")
        assert 0 <= float(r["percent"]) <= 100 and int(r["n"]) > 0 and r["source"] and r["model"]
        assert (r["judge"] != "") == (r["metric"] == "asr")
    keys = [(r["model"], r["dataset"], r["arm"], r["metric"]) for r in PUBLISHED]
    assert len(set(keys)) == len(keys)


def test_an_arm_of_another_name_stands_beside_the_same_numbers():
    other = [r | {"arm": f"my-{r['arm']}", "family": f"my-{r['arm']}"} for r in TABLE]
    swept = TABLE[1] | {"arm": "warp.lr-0.1"}
    same, mine, none = (
        papers.rows(PUBLISHED, table, datasets={"stories": "gsm8k"}, model=LLAMA)
        for table in (TABLE, other, [TABLE[0], swept])
    )
    assert [r | {"arm": r["arm"].removeprefix("my-")} for r in mine] == same and {r["arm"] for r in mine} == {
        "my-full", "my-warp"}  # fmt: skip
    assert {r["arm"] for r in none} == {"full"}, "a point of a sweep is not the method"


def test_levels_carry_the_interval_of_their_n():
    row = _rows()["warp", "asr"]
    low, high = proportion_confint(36, 520, method="wilson")
    assert (row["published"], row["published_low"], row["published_high"]) == pytest.approx((0.069, low, high))
    assert (row["ours"], row["ours_low"], row["ours_high"]) == pytest.approx((0.07, 0.04, 0.10))
    assert row["intervals"] == papers.OVERLAP and row["same_model"] == "yes" and row["same_judge"] == "yes"
    row = _rows()["full", "asr"]
    assert row["intervals"] == papers.APART and row["same_judge"] == "no"


def test_differences_to_full_are_compared_with_the_paired_ones():
    row = _rows()["warp", "asr minus full"]
    low, high = confint_proportions_2indep(36, 520, 108, 520, method="newcomb")
    assert row["published"] == pytest.approx(0.069 - 0.2078)
    assert (row["published_low"], row["published_high"]) == pytest.approx((low, high))
    assert (row["ours"], row["ours_low"], row["ours_high"]) == pytest.approx((-0.83, -0.9, -0.7))
    assert row["intervals"] == papers.APART
    assert _rows()["warp", "utility minus full"]["intervals"] == papers.OVERLAP


def test_only_what_both_have_is_there():
    assert {arm for arm, _ in _rows()} == {"full", "warp"}
    assert papers.rows(PUBLISHED, TABLE, datasets={"stories": "crafts"}, model=LLAMA) == []
    assert {r["published_model"] for r in _rows("tiny").values()} == {LLAMA}
    assert {r["same_model"] for r in _rows("tiny").values()} == {"no"}
