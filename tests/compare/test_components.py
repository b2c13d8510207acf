"""Components of variance: planted ones are found, and what cannot be known is said to be unknown."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast import names
from holdfast.compare import components, groups


def drawn(rng, bases, aligned, seeds, sd):
    """Values of a nested design with these standard deviations, and of every value its base and aligned model."""
    values, base_of, model_of = [], [], []
    for b in range(bases):
        base = rng.normal(0, sd[0])
        for a in range(aligned):
            model = rng.normal(0, sd[1])
            for _ in range(seeds):
                values.append(0.5 + base + model + rng.normal(0, sd[2]))
                base_of.append(b)
                model_of.append(b * aligned + a)
    return values, base_of, model_of


@pytest.mark.parametrize("sd", [(0.2, 0.1, 0.05), (0.0, 0.1, 0.1), (0.1, 0.0, 0.1), (0.3, 0.0, 0.0)])
def test_planted_components_are_found(sd):
    rng = np.random.default_rng(0)
    found = np.array([components.nested(*drawn(rng, 8, 3, 4, sd)) for _ in range(200)]).mean(axis=0)
    # Unbiased but for negative ones, which are taken as none.
    assert found == pytest.approx([s**2 for s in sd], abs=0.0035)


def test_two_bases_written_out():
    """Mean squares by hand: bases {1, 3} and {5, 7} with one aligned model each and two seeds."""
    base, aligned, seed = components.nested([1, 3, 5, 7], [0, 0, 1, 1], [0, 0, 1, 1])
    assert seed == pytest.approx(2) and aligned is None  # not known apart from the base
    assert base == pytest.approx((16 - 2) / 2)


def test_two_aligned_models_of_two_bases_written_out():
    """Mean squares 242 between bases, 26 between aligned models, 2 within; 4 values a base, 2 a model."""
    values = [1, 3, 5, 7, 11, 13, 19, 17]
    found = components.nested(values, [0] * 4 + [1] * 4, [0, 0, 1, 1, 2, 2, 3, 3])
    assert found == pytest.approx(((242 - 26) / 4, (26 - 2) / 2, 2))


def test_what_was_drawn_once_is_unknown():
    assert components.nested([1, 2, 4], [0, 0, 0], [0, 0, 0]) == (None, None, pytest.approx(7 / 3))
    base, aligned, seed = components.nested([1, 2, 4], [0, 1, 2], [0, 1, 2])
    assert base == pytest.approx(7 / 3) and aligned is None and seed is None
    base, aligned, seed = components.nested([1, 3], [0, 0], [0, 1])
    assert base is None and aligned == pytest.approx(2) and seed is None


def group_of(cells, hits):
    """An arm whose models have these records and refused these hazards (models, prompts)."""
    return groups.Group("t", "full", cells, {"hazard": np.where(hits, "refusal", "compliance")}, None, {}, {}, {})


def test_prompts_explain_what_is_binomial():
    """Models that differ by the luck of their answers only: nothing is left to the seed."""
    rng = np.random.default_rng(1)
    cells = [{"seed": s, "base": b, "aligned": b, "replicate": b} for b in range(6) for s in range(6)]
    hits = rng.random((36, 200)) < 0.4
    (row,) = components.rows({"t": {"full": group_of(cells, hits)}})
    assert row["mean"] == pytest.approx(0.4, abs=0.02) and row["sd_prompts"] == pytest.approx(0.0346, abs=0.001)
    assert row["sd_seed"] < 0.015 and row["sd_base"] < 0.02 and row["sd_aligned"] == row["sd_draw"] == ""
    assert (row["bases"], row["aligned"], row["models"]) == (6, 6, 36)
    assert components.rows({"t": {"full": group_of(cells[:1], hits[:1])}}) == []


def test_what_models_differ_in_alone_is_told_apart():
    """Planted standard deviations of rows 12, order 6 and rounding 2 points, in models that share their base and
    aligned model; prompts differ in difficulty, which all models share."""
    rng, planted = np.random.default_rng(2), {"draw": 0.12, "order": 0.06, "rounding": 0.02}
    hard = rng.normal(0, 0.15, 1500)
    found = []
    for _ in range(12):
        cells, hits = [], []
        for a in range(24):
            own = {part: rng.normal(0, sd, 2) for part, sd in planted.items()}
            for draw, order, common in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
                cells.append({"seed": 0, "base": a // 2, "aligned": a, "draw": 2 * a + draw, "order": 2 * a + order,
                              "instructions": ("native", "common")[common]})  # fmt: skip
                rate = 0.5 + own["draw"][draw] + own["order"][order] + own["rounding"][common]
                hits.append(rng.random(len(hard)) < np.clip(rate + hard, 0, 1))
        mean, parts = components.components(group_of(cells, np.array(hits)), names.REFUSAL_RATE)
        assert mean == pytest.approx(0.5, abs=0.05) and parts["seed"] is None
        found.append([parts[p] for p in planted])
    assert np.sqrt(np.mean(found, axis=0)) == pytest.approx([0.12, 0.06, 0.02], rel=0.2)


def test_two_models_that_answer_alike_differ_in_nothing():
    cells = [{"seed": 0, "base": 0, "aligned": 0, "instructions": word} for word in ("native", "common")]
    hits = np.arange(50) < 20
    _, parts = components.components(group_of(cells, np.stack([hits, hits])), names.REFUSAL_RATE)
    assert parts["rounding"] == 0 and parts["draw"] is None and parts["base"] is None


def test_bases_and_aligned_models_are_compared_in_the_rounding_that_all_have():
    """What the others answer changes neither: only some aligned models may have been rounded otherwise."""
    own = [{"seed": 0, "base": a // 2, "aligned": a, "instructions": "native"} for a in range(6)]
    hits = np.stack([np.arange(100) < 10 * a for a in range(6)])
    _, plain = components.components(group_of(own, hits), names.REFUSAL_RATE)
    other = [own[0] | {"instructions": "common"}]
    _, both = components.components(
        group_of(own + other, np.vstack([hits, np.ones((1, 100), bool)])), names.REFUSAL_RATE
    )
    assert (both["base"], both["aligned"]) == (plain["base"], plain["aligned"]) and both["rounding"] > 0.1


def test_a_difference_of_two_models_written_out():
    """Rates 0.5 and 0.25 over four prompts: half the squared difference, less a third of the mean interaction / 4."""
    hits = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    rest = np.array([[-1, 3, -1, -1], [1, -3, 1, 1]]) / 8
    expected = 2 * 0.125**2 - (rest**2).sum() / 3 / 4
    assert components.alone(hits, ["a", "a"]) == pytest.approx(max(0.0, expected))
    assert components.alone(hits, ["a", "b"]) is None
