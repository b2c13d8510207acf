"""Refusals lost per category: shares by hand, the test of equality against every permutation, and its error rate."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from holdfast.compare import forgetting, groups
from holdfast.record import jsonfiles, tables
from holdfast.statistics import holm, wilson

KINDS = ("a", "b", "c")


def group(arm, hits, categories, clusters=None, cells=None):
    """An arm of task t whose models (rows) refused these hazards."""
    hits = np.atleast_2d(np.asarray(hits))
    ids = [f"h{i}" for i in range(hits.shape[1])]
    clusters = {"hazard": clusters or ids}
    outcomes = {"hazard": np.where(hits, "refusal", "compliance")}
    cells = cells or [{"seed": s} for s in range(len(hits))]
    return groups.Group(
        "t", arm, cells, outcomes, None, {"hazard": ids}, clusters, {}, categories={"hazard": list(categories)}
    )


def exact(values, categories):
    """The share of all orders of the categories whose spread reaches that which is there; float64, group by group."""

    def spread(labels):
        mean = np.mean(values)
        parts = [np.asarray([v for v, c in zip(values, labels, strict=True) if c == k]) for k in set(labels)]
        return sum(len(p) * (p.mean() - mean) ** 2 for p in parts)

    seen = spread(categories)
    reached = [spread(order) >= seen - 1e-9 for order in permutations(categories)]
    return np.mean(reached)


@pytest.mark.parametrize(
    ("values", "categories"),
    [
        ([1, 1, 1, 0, 0, 0, 0], "aaabbbb"),
        ([1, 0, 1, 0, 0, 1, 0], "aabbccc"),
        ([0.5, 1.0, 0.25, 0, 0.75, 0, 0], "abcabca"),
        ([1, 1, 0, 0, 0, 0, 0], "abbbbbb"),
    ],
)
def test_p_is_the_share_of_permutations(values, categories):
    categories = list(categories)
    p = exact(values, categories)
    found = forgetting.equality(np.array(values), categories)
    assert found == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / forgetting.PERMUTATIONS) + 2e-4)
    assert found == forgetting.equality(np.array(values), categories)  # drawn by a seed


def test_many_requests_are_pearsons_test():
    rng = np.random.default_rng(2)
    categories = rng.choice(list(KINDS), 400)
    lost = rng.random(400) < np.select([categories == "a", categories == "b"], [0.34, 0.38], 0.42)
    counts = [[(lost[categories == k] == x).sum() for k in KINDS] for x in (True, False)]
    p = chi2_contingency(counts, correction=False).pvalue
    assert 0.01 < p < 0.5 and forgetting.equality(lost, categories) == pytest.approx(p, abs=0.02)


def test_spread_is_the_sum_of_squares_between():
    values, labels = np.array([0.2, 0.9, 0.4, 1.0]), np.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    by_hand = [2 * (0.3 - 0.625) ** 2 + 2 * (0.95 - 0.625) ** 2, 2 * (0.55 - 0.625) ** 2 + 2 * (0.7 - 0.625) ** 2]
    assert forgetting.spread(values, labels) == pytest.approx(by_hand)


def test_nothing_to_tell_apart_is_no_evidence():
    for values, categories in (([0, 0, 0], "abc"), ([1, 1, 1], "abc"), ([1, 0, 1], "aaa"), ([1], "a"), ([], "")):
        if values:
            assert forgetting.equality(np.array(values), list(categories)) == 1.0


def test_the_test_is_wrong_as_rarely_as_it_says(monkeypatch):
    monkeypatch.setattr(forgetting, "PERMUTATIONS", 199)
    rng = np.random.default_rng(0)
    categories = rng.choice(list(KINDS), 60)
    unequal = np.select([categories == "a", categories == "b"], [0.1, 0.3], 0.7)
    even = [forgetting.equality(rng.random(60) < 0.3, categories) <= 0.05 for _ in range(400)]
    uneven = [forgetting.equality(rng.random(60) < unequal, categories) <= 0.05 for _ in range(100)]
    assert np.mean(even) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400) and np.mean(uneven) > 0.9


def test_only_what_was_refused_before_can_be_lost_and_each_seed_counts():
    before = np.array([[1, 1, 1, 0]])
    after = np.array([[0, 1, 1, 0], [0, 1, 0, 1]])
    share, had = forgetting.lost(np.repeat(before, 2, axis=0), after)
    assert share[had].tolist() == [1.0, 0.0, 0.5] and had.tolist() == [True, True, True, False]
    # Where the models before differ, of those that refused.
    share, had = forgetting.lost(np.array([[1, 0], [0, 0]]), np.array([[0, 0], [0, 0]]))
    assert share[0] == 1.0 and had.tolist() == [True, False]


def test_the_table_has_every_category_and_holm_over_the_arms():
    rng = np.random.default_rng(1)
    categories = ["a"] * 20 + ["b"] * 20 + ["c"] * 5
    before = np.array([1] * 40 + [0] * 5)  # nothing of c was refused
    forgets_a = np.array([0] * 18 + [1] * 22 + [0] * 5)
    forgets_evenly = (rng.random(45) < 0.6).astype(int)
    arms = {
        "base": group("base", before * 0, categories), "aligned": group("aligned", before, categories),
        "uneven": group("uneven", [forgets_a, forgets_a], categories),
        "even": group("even", forgets_evenly, categories),
    }  # fmt: skip
    rows = forgetting.rows({"t": arms})
    assert [(r["arm"], r["category"]) for r in rows] == [(m, c) for m in ("uneven", "even") for c in ("all", "a", "b")]
    uneven = {r["category"]: r for r in rows if r["arm"] == "uneven"}
    assert uneven["a"]["lost"] == 0.9 and uneven["b"]["lost"] == 0.0 and uneven["all"]["lost"] == pytest.approx(0.45)
    assert uneven["a"]["lost_n"] == 20 and uneven["all"]["lost_n"] == 40 and uneven["a"]["seeds"] == 2
    assert all(r["lost_low"] <= r["lost"] <= r["lost_high"] for r in rows)
    p = [uneven["a"]["p"], next(r["p"] for r in rows if r["arm"] == "even")]
    assert p[0] == 1 / (1 + forgetting.PERMUTATIONS) and p[1] > 0.05
    assert [uneven["b"]["p_holm"], rows[-1]["p_holm"]] == holm(p)
    assert set(rows[0]) == set(forgetting.COLUMNS)


def test_what_was_never_refused_cannot_be_lost():
    arms = {"aligned": group("aligned", [0, 0], "ab"), "arm": group("arm", [0, 1], "ab")}
    (row,) = forgetting.rows({"t": arms})
    assert row["category"] == "all" and "lost" not in row and row["p"] == 1.0
    assert forgetting.rows({"t": {"base": group("base", [1, 1], "ab")}}) == []


def test_wordings_of_one_request_are_one_request():
    """Twenty copies of three requests know no more than three."""
    categories = ["a"] * 20 + ["b"] * 20 + ["b"] * 20
    clusters = [f"x{i // 20}" for i in range(60)]
    after = np.array([0] * 20 + [1] * 40)
    aligned = group("aligned", [1] * 60, categories, clusters)
    rows = forgetting.rows({"t": {"aligned": aligned, "arm": group("arm", after, categories, clusters)}})
    assert rows[0]["p"] > 0.3
    alone = forgetting.rows({"t": {"aligned": group("aligned", [1] * 60, categories),
                                   "arm": group("arm", after, categories)}})  # fmt: skip
    assert alone[0]["p"] < 0.001
    # One of two wordings lost in either category: the same of every request.
    half, pairs, kinds = [0, 1] * 8 + [1, 0] * 8, [f"x{i // 2}" for i in range(32)], ["a"] * 16 + ["b"] * 16
    (even, *_) = forgetting.rows(
        {"t": {"aligned": group("aligned", [1] * 32, kinds, pairs), "arm": group("arm", half, kinds, pairs)}}
    )
    assert even["p"] == 1.0


def test_every_model_is_held_against_the_one_it_starts_from():
    """Two aligned models that refuse different halves; each arm's model forgets what its own start refused."""
    before = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    cells = [{"seed": 0, "replicate": i, "aligned": i, "base": i, "unit": i} for i in range(2)]
    aligned = group("aligned", before, "aabb", cells=cells)
    swapped = [cells[1], cells[0]]
    arm = group("arm", [[1, 1, 0, 1], [0, 1, 0, 0]], "aabb", cells=swapped)
    rows = forgetting.rows({"t": {"aligned": aligned, "arm": arm}})
    # The first model starts from the second: it keeps one of b; the second from the first: it keeps one of a.
    assert {r["category"]: r["lost"] for r in rows} == {"all": 0.5, "a": 0.5, "b": 0.5}


def test_categories_come_from_the_verdicts(tmp_path):
    for arm, refused in (("aligned", "aaab"), ("full", "ab")):
        rows = [
            {"id": f"h{i}", "set": "hazard", "base_id": f"h{i}", "category": c, "judge": "world", "version": "1",
             "label": o, "outcome": o, "score": None, "text": "", "flexible": False, "parsed": "", "gold": "",
             "wrapper": "", "finish": "stop"}
            for i, c in enumerate("aaab")
            for o in ["refusal" if c in refused and (arm == "aligned" or i in (0, 3)) else "compliance"]
        ]  # fmt: skip
        (tmp_path / arm).mkdir()
        tables.write(rows, tmp_path / arm / "verdicts.parquet", "verdicts")
        task = "" if arm == "aligned" else "t"
        jsonfiles.write_json(tmp_path / arm / "metrics.json", {"task": task, "arm": arm, "seed": 0, "judge": "world"})
    loaded = groups.load([tmp_path / "aligned/metrics.json", tmp_path / "full/metrics.json"])
    found = {r["category"]: (r["lost"], r["lost_n"]) for r in forgetting.rows(loaded)}
    assert found == {"all": (0.5, 4), "a": (pytest.approx(2 / 3), 3), "b": (0.0, 1)}


def test_a_category_that_lost_all_or_nothing_has_an_interval_beside_one_that_seeds_lost_in_part():
    before = group("aligned", [[True] * 9], "aaabbbccc", cells=[{"seed": 0}])
    after = group(
        "full", [[True] * 3 + [False] * 3 + [True, False, True], [True] * 3 + [False] * 5 + [True]], "aaabbbccc"
    )
    found = {r["category"]: r for r in forgetting.rows({"t": {"aligned": before, "full": after}})}
    for category, value, interval in (("a", 0, wilson(0, 3)), ("b", 1, wilson(3, 3))):
        assert found[category]["lost"] == value
        assert (found[category]["lost_low"], found[category]["lost_high"]) == pytest.approx(interval)
    assert found["c"]["lost_low"] < found["c"]["lost"] < found["c"]["lost_high"]


def test_wordings_of_one_request_widen_the_interval_of_what_was_lost():
    kinds, after = ["a"] * 60 + ["b"] * 60, [0, 1] * 60
    alone, same = (
        forgetting.rows(
            {"t": {"aligned": group("aligned", [1] * 120, kinds, c), "arm": group("arm", order, kinds, c)}}
        )[0]
        for c, order in (
            (None, after),
            ([f"x{i // 12}" for i in range(120)], [0] * 12 + [1] * 12 + ([0] * 12 + [1] * 12) * 4),
        )
    )
    assert alone["lost"] == same["lost"] == 0.5
    assert same["lost_high"] - same["lost_low"] > 1.5 * (alone["lost_high"] - alone["lost_low"])


def test_a_category_that_is_called_all_is_beside_all_of_them():
    kinds, after = ["all"] * 10 + ["b"] * 10, [0] * 10 + [1] * 10
    found = forgetting.rows({"t": {"aligned": group("aligned", [1] * 20, kinds), "arm": group("arm", after, kinds)}})
    assert [(r["category"], r["lost"], r["lost_n"]) for r in found] == [
        ("all", 0.5, 20),
        ("all", 1.0, 10),
        ("b", 0, 10),
    ]
