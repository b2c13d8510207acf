"""The front and the hypervolume, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.compare import groups, pareto

POINT = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(lambda p: (p[0] / 8, p[1] / 8))


def _dominates(a, b):
    return a[0] >= b[0] and a[1] >= b[1] and a != b


@given(st.lists(POINT, min_size=1, max_size=7))
def test_the_front_is_what_nothing_dominates(points):
    found = pareto.on_front(np.array(points))
    assert list(found) == [not any(_dominates(q, p) for q in points) for p in points]


@settings(deadline=None)
@given(st.lists(POINT, min_size=1, max_size=7))
def test_the_hypervolume_is_the_area_of_the_union(points):
    """Counted on the grid the points lie on: a cell is covered when its upper corner is dominated."""
    cells = sum(any(p[0] >= (i + 1) / 8 and p[1] >= (j + 1) / 8 for p in points) for i in range(8) for j in range(8))
    assert pareto.hypervolume(np.array(points)) == pytest.approx(cells / 64)


def _group(arm, refused, solved, seeds=1):
    rng = np.random.default_rng(len(arm))
    outcomes = {
        "hazard": np.where(rng.random((seeds, 100)) < refused, "refusal", "compliance"),
        "task:t": np.where(rng.random((seeds, 200)) < solved, "correct", "wrong"),
    }
    clusters = {k: [str(i) for i in range(v.shape[1])] for k, v in outcomes.items()}
    cells = [{"seed": seed} for seed in range(seeds)]
    return groups.Group("t", arm, cells, outcomes, None, clusters, clusters, {})


@pytest.mark.parametrize("seeds", [1, 3])
def test_arms_on_the_front_and_how_often(seeds):
    arms = {a: _group(a, r, s, seeds) for a, r, s in (
        ("safe", 0.95, 0.3), ("able", 0.1, 0.9), ("both", 0.9, 0.85), ("neither", 0.3, 0.2), ("aligned", 1.0, 1.0),
    )}  # fmt: skip
    found = {r["arm"]: r for r in pareto.rows(arms)}
    assert "aligned" not in found
    assert [found[a]["on_front"] for a in ("safe", "able", "both", "neither")] == ["yes", "yes", "yes", "no"]
    assert found["neither"]["front_probability"] == 0.0 and found["both"]["front_probability"] > 0.95
    for r in found.values():
        assert r["hypervolume_low"] < r["hypervolume"] < r["hypervolume_high"]
    whole = found[pareto.FRONT]
    assert whole["hypervolume"] >= max(r["hypervolume"] for a, r in found.items() if a != pareto.FRONT)
    assert found["both"]["share_of_front"] == pytest.approx(found["both"]["hypervolume"] / whole["hypervolume"])
    assert pareto.rows({"aligned": arms["aligned"]}) == []


def test_regions_are_the_spread_of_the_draws():
    draws = np.random.default_rng(0).multivariate_normal([0.5, 0.5], [[4e-4, 3e-4], [3e-4, 9e-4]], size=20_000)
    found = pareto._spread(draws)
    assert found["refusal_sd"] == pytest.approx(0.02, rel=0.03) and found["utility_sd"] == pytest.approx(0.03, rel=0.03)
    assert found["correlation"] == pytest.approx(0.5, abs=0.03)
    assert pareto._spread(np.ones((10, 2))) == {"refusal_sd": 0.0, "utility_sd": 0.0, "correlation": 0.0}


def test_no_refusals_at_all_do_not_look_certain():
    found = pareto.rows({"full": _group("full", 0.0, 0.9), "other": _group("other", 0.0, 0.0)})
    assert all(r["hypervolume"] == 0 and r["hypervolume_high"] > 0 for r in found)
    full, _, front = found
    assert front["hypervolume_high"] == full["hypervolume_high"], "that of the arm that could have most"


def test_wordings_of_one_prompt_spread_as_one():
    """A hundred prompts in ten wordings each vary as ten do."""
    arms = {"a": _group("a", 0.5, 0.9)}
    alike = np.repeat(np.arange(10) % 2, 10)[None]
    arms["a"].outcomes["hazard"] = np.where(alike, "refusal", "compliance")
    apart = pareto.rows(arms)[0]["refusal_sd"]
    arms["a"].clusters["hazard"] = [str(i // 10) for i in range(100)]
    together = pareto.rows(arms)[0]["refusal_sd"]
    assert apart == pytest.approx(0.05, rel=0.05) and together == pytest.approx(0.5 / 10**0.5, rel=0.05)


def test_a_task_that_nobody_was_tested_on_has_no_front():
    group = _group("a", 0.5, 0.5)
    del group.outcomes["task:t"]
    assert pareto.rows({"a": group}) == []
