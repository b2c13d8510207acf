"""Ranks of methods over tasks and replicates: against a textbook example, a simulation, and planted studies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_curves import study

from holdfast.compare import ranks
from holdfast.report import plots


def test_ranks_go_from_the_most_to_the_least_and_ties_share():
    found = ranks.ranked(np.array([[0.2, 0.9, 0.5], [0.4, 0.4, 0.1], [0.3, 0.3, 0.3]]))
    assert found.tolist() == [[3, 1, 2], [1.5, 1.5, 3], [2, 2, 2]]


@given(st.integers(2, 6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_ranks_of_a_block_always_sum_to_the_same(families, blocks, random):
    scores = np.array([[random.choice([0, 0.25, 0.5, 1]) for _ in range(families)] for _ in range(blocks)])
    assert ranks.ranked(scores).sum(axis=1) == pytest.approx(families * (families + 1) / 2)


@pytest.mark.parametrize(("families", "blocks", "q"), [(2, 10, 1.960), (4, 14, 2.569), (10, 30, 3.164)])
def test_the_critical_difference_has_the_published_q(families, blocks, q):
    """q of Demšar 2006, table 5 (a), for 0.05."""
    want = q * (families * (families + 1) / (6 * blocks)) ** 0.5
    assert ranks.critical_difference(families, blocks) == pytest.approx(want, rel=1e-3)


def test_families_that_are_alike_are_seldom_told_apart():
    """The largest difference of mean ranks passes the critical difference in about 5 % of the studies."""
    stream, told, tested = np.random.default_rng(0), 0, 0
    gap = ranks.critical_difference(5, 12)
    for _ in range(600):
        scores = stream.random((12, 5))
        mean = ranks.ranked(scores).mean(axis=0)
        told += np.ptp(mean) > gap
        tested += ranks.friedman(scores) < 0.05
    assert 0.015 < told / 600 < 0.075 and 0.02 < tested / 600 < 0.09


def test_friedman_of_what_is_equal_or_too_little_says_nothing():
    assert ranks.friedman(np.full((4, 3), 0.5)) == 1.0
    assert ranks.friedman(np.array([[0.1, 0.2, 0.3]])) == 1.0 and ranks.friedman(np.array([[0.1, 0.2]] * 5)) == 1.0
    assert ranks.friedman(np.array([[0.1, 0.2, 0.3]] * 8)) < 0.01


def _points(order):
    """Sweeps of three families whose models have all of full's utility, from the most refusals to the fewest."""
    kept = dict(zip(order, (0.9, 0.6, 0.3), strict=False))
    drawn = {name: [((rate, 0.9), (rate - 0.01 * unit, 0.9)) for unit in range(3)] for name, rate in kept.items()}
    drawn = {"full": [((0.0, 0.9), (0.0, 0.9))] * 3, **drawn}
    return [(f"{name}.1", name, rates) for name, rates in drawn.items()]


def test_the_one_that_keeps_most_everywhere_comes_first(tmp_path):
    tests, validations = {}, {}
    for task, order in {"a": ("warp", "resta", "somf"), "b": ("warp", "somf", "resta")}.items():
        test, validation = study(tmp_path / task, _points(order), units=3)
        tests[task], validations[task] = test["gsm8k"], validation["gsm8k"]
    rows = ranks.rows(tests, validations)
    assert [(r["family"], r["rank"]) for r in rows] == [("warp", 1), ("resta", 2.5), ("somf", 2.5), ("full", 4)]
    assert all((r["tasks"], r["replicates"], r["families"]) == (2, 3, 4) for r in rows)
    assert rows[0]["rank_low"] == rows[0]["rank_high"] == 1  # in every replicate
    assert rows[0]["critical_difference"] == pytest.approx(ranks.critical_difference(4, 6)) and rows[0]["p"] < 0.01
    text = plots.ranks([{c: str(r.get(c, "")) for c in ranks.COLUMNS} for r in rows])
    assert ">warp<" in text and "critical difference 1.9" in text and plots.ranks([]) == ""


def test_the_interval_of_a_rank_is_that_of_student_over_replicates(tmp_path):
    refused = {"full": (0.0, 0.0, 0.0), "warp": (0.9, 0.9, 0.3), "resta": (0.6, 0.6, 0.6)}
    points = [(f"{name}.1", name, [((r, 0.9), (r, 0.9)) for r in rates]) for name, rates in refused.items()]
    test, validation = study(tmp_path, points, units=3)
    rows = {r["family"]: r for r in ranks.rows(test, validation)}
    half = 4.302653 * (1 / 3) ** 0.5 / 3**0.5  # t of two degrees of freedom, and ranks of 1, 1 and 2
    assert rows["warp"]["rank"] == pytest.approx(4 / 3) and rows["resta"]["rank"] == pytest.approx(5 / 3)
    assert (rows["warp"]["rank_low"], rows["warp"]["rank_high"]) == pytest.approx((1, 4 / 3 + half))
    assert (rows["resta"]["rank_low"], rows["resta"]["rank_high"]) == pytest.approx((1, min(3, 5 / 3 + half)))


def test_seeds_of_one_replicate_are_no_replicates(tmp_path):
    test, validation = study(tmp_path, _points(("warp", "resta", "somf")), units=3)
    for of in (test, validation):
        for groups in of.values():
            for g in groups.values():
                for i, cell in enumerate(g.cells):
                    cell.update(replicate=0, unit=0, seed=i, base=0, aligned=0)
    rows = ranks.rows(test, validation)
    assert all((r["seeds"], r["replicates"]) == (3, 1) for r in rows) and "rank_low" in rows[0]
    text = plots.ranks([{c: str(r.get(c, "")) for c in ranks.COLUMNS} for r in rows])
    assert "mean rank over 1 task and 3 seeds;" in text


def test_a_family_that_one_task_lacks_is_not_ranked_and_one_alone_is_nothing(tmp_path):
    tests, validations = {}, {}
    for task, order in {"a": ("warp", "resta"), "b": ("resta",)}.items():
        test, validation = study(tmp_path / task, _points(order), units=3)
        tests[task], validations[task] = test["gsm8k"], validation["gsm8k"]
    assert [r["family"] for r in ranks.rows(tests, validations)] == ["resta", "full"]
    test, validation = study(tmp_path / "c", _points(()), units=3)
    assert ranks.rows(test, validation) == []


def test_what_only_rounding_tells_apart_shares_a_rank():
    assert ranks.ranked(np.array([[0.1 + 0.2, 0.3, 0.5]])).tolist() == [[2.5, 2.5, 1]]


def test_seeds_and_replicates_are_those_of_the_arms_and_not_of_the_roles_before_them(tmp_path):
    """Models are loaded as a study lists them, roles first: one aligned model that every seed starts from."""
    test, validation = study(tmp_path, _points(("warp", "resta", "somf")), units=3)
    for of in (test, validation):
        for g in of["gsm8k"].values():
            for i, cell in enumerate(g.cells):
                cell.update(replicate=0, unit=0, seed=i, base=0, aligned=0)
    full = test["gsm8k"]["full.1"]
    aligned = dataclasses.replace(full, arm="aligned", cells=full.cells[:1])
    rows = ranks.rows({"gsm8k": {"aligned": aligned, **test["gsm8k"]}}, validation)
    assert all((r["seeds"], r["replicates"]) == (3, 1) for r in rows) and "rank_low" in rows[0]


@pytest.mark.parametrize(("found", "bars"), [
    ((1.0, 1.5, 2.0, 3.5), [(0, 2)]), ((1.0, 2.0, 3.1, 4.2), [(0, 1), (1, 2), (2, 3)]), ((1.0, 2.5, 4.0), []),
])  # fmt: skip
def test_a_bar_joins_what_is_not_told_apart_and_no_part_of_another_bar(found, bars, monkeypatch):
    monkeypatch.setattr(plots, "svg", lambda draw: draw())
    rows = [{"family": f"f{i}", "rank": str(r), "rank_low": "", "rank_high": "", "critical_difference": "1.2",
             "tasks": "1", "seeds": "1", "replicates": "3"} for i, r in enumerate(found)]  # fmt: skip
    (axis,) = plots.ranks(rows).axes
    ends = [line.get_ydata() for line in axis.lines if line.get_linewidth() == 3]
    assert [(round(low + 0.2), round(high - 0.2)) for low, high in ends] == bars


def test_ranks_of_one_draw_are_told_without_an_interval():
    from holdfast.report import tabular

    one = {"family": "warp", "rank": "1.5", "rank_low": "", "rank_high": ""}
    assert tabular.ranks([one]).splitlines()[-1] == "| `warp` | 1.5 |  |"
    assert tabular.ranks([one | {"rank_low": "1", "rank_high": "2"}]).splitlines()[-1] == "| `warp` | 1.5 | 1.0–2.0 |"
