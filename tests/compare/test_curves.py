"""Refusals at equal utility: mixes against linear programmes, and families of planted studies."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from holdfast import names
from holdfast.compare import claims, curves, groups, ranks, table
from holdfast.record import csvfiles
from holdfast.report import shown, terminal, tradeoffs

RATES = st.integers(0, 20).map(lambda k: k / 20)
POINTS = st.lists(st.tuples(RATES, RATES), min_size=1, max_size=7)
WORDS = {
    names.HAZARD: ("refusal", "compliance"), names.CRAFT: ("refusal", "compliance"),
    "task:gsm8k": ("correct", "wrong"),
}  # fmt: skip


def programme(utility, refused, level):
    """The most refusals of shares that sum to one and have the utility; None where there are none."""
    found = linprog(-refused, A_ub=[-utility], b_ub=[-level], A_eq=[np.ones(len(utility))], b_eq=[1], bounds=(0, 1))
    return -found.fun if found.success else None


@given(POINTS, RATES)
def test_a_mix_has_the_most_refusals_that_its_utility_allows(points, level):
    utility, refused = np.array(points).T
    shares, best = curves.mix(utility, refused, level), programme(utility, refused, level)
    if shares is None:
        assert best is None and utility.max() < level
        return
    assert shares.min() >= 0 and shares.sum() == pytest.approx(1) and (shares > 0).sum() <= 2
    assert shares @ utility >= level - 1e-9 and shares @ refused == pytest.approx(best)


@given(POINTS)
def test_more_may_be_given_up_and_never_less_is_refused(points):
    utility, refused = np.array(points).T
    found = [curves.mix(utility, refused, level) for level in np.linspace(utility.max(), 0, 8)]
    assert all(shares is not None for shares in found)
    kept = [float(shares @ refused) for shares in found]
    assert all(b >= a - 1e-9 for a, b in zip(kept, kept[1:], strict=False)) and kept[-1] == pytest.approx(refused.max())


def test_the_area_is_that_under_the_hull():
    """(utility, refusals) of (0.2, 1), (0.6, 0.8) and (1, 0): flat to 0.2, then two lines."""
    utility, refused = np.array([0.2, 0.6, 1.0]), np.array([1.0, 0.8, 0.0])
    area = 0.2 * 1 + 0.4 * (1 + 0.8) / 2 + 0.4 * 0.8 / 2
    assert curves.area(utility, refused, 1.0) @ refused == pytest.approx(area, abs=0.003)
    # What lies below the hull adds nothing; what no model reaches counts as nothing.
    assert curves.area(np.append(utility, 0.5), np.append(refused, 0.1), 1.0)[-1] == 0
    beyond = curves.area(utility, refused, 2.0)
    assert beyond.sum() == pytest.approx(0.5, abs=0.005) and beyond @ refused == pytest.approx(area / 2, abs=0.003)


def exact(folder, split, arm, family, refused, utility, *, swept=True, unit=0, units=1, method=None, over=0.0, seed=0):
    """A model with exactly these rates on 100 prompts and 100 rows."""
    hits = {names.HAZARD: refused, names.CRAFT: over, "task:gsm8k": utility}
    outcomes = {name: np.arange(100) < round(100 * share) for name, share in hits.items()}
    which = {"replicate": unit, "unit": unit, "base": unit, "aligned": unit} if units > 1 else {}
    more = {"method": method, "settings": {}} if method else {}
    return planted.write(
        folder / f"{split}-{arm}-{unit}", outcomes, WORDS, task="gsm8k", arm=arm, family=family, seed=seed, split=split,
        swept={"learning_rate": 1.0} if swept else {}, **which, **more,
    )  # fmt: skip


def study(folder, points, units=1):
    """Groups of a test and a validation split.

    Args:
        points: (arm, family, per unit and split: validation's (refused, utility) and the test's).
    """
    found = {}
    for i, split in enumerate(("validation", "test")):
        files = [
            exact(folder, split, arm, family, *rates[unit][i], unit=unit, units=units)
            for arm, family, rates in points for unit in range(units)
        ]  # fmt: skip
        found[split] = groups.load(files)
    return found["test"], found["validation"]


def by_measure(rows):
    return {(r["family"], r["measure"]): r for r in rows}


def test_points_are_chosen_on_validation_and_measured_on_test(tmp_path):
    points = [
        ("full.1", "full", [((0.3, 0.80), (0.25, 0.70))]),
        ("full.2", "full", [((0.0, 0.90), (0.05, 0.82))]),
        ("warp.1", "warp", [((0.9, 0.86), (0.80, 0.80))]),  # within 5 points, and by mixing within 3
        ("warp.2", "warp", [((0.5, 0.90), (0.40, 0.80))]),
        ("lora.1", "lora", [((1.0, 0.50), (0.99, 0.90))]),  # its luck on test rows is no utility
    ]
    test, validation = study(tmp_path, points)
    rows = by_measure(curves.rows(test, validation))
    at = {m: rows["warp", f"within-{m}"] for m in (1, 3, 5)}
    assert at[5]["refusal"] == pytest.approx(0.80) and at[5]["mix"] == "1.00 warp.1"
    assert at[3]["refusal"] == pytest.approx(0.75 * 0.80 + 0.25 * 0.40) and at[3]["mix"] == "0.75 warp.1 + 0.25 warp.2"
    assert at[1]["refusal"] == pytest.approx(0.25 * 0.80 + 0.75 * 0.40)
    assert at[3]["utility_minus_full"] == pytest.approx(0.80 - 0.82) and at[3]["utility"] == pytest.approx(0.80)
    assert at[3]["utility_minus_full_low"] < -0.02 < at[3]["utility_minus_full_high"]
    assert rows["full", "within-5"]["refusal"] == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)
    assert rows["lora", "within-5"]["reached"] == "0/1" and "refusal" not in rows["lora", "within-5"]
    assert rows["lora", "area"]["refusal"] == pytest.approx(0.99 * 0.5 / 0.9, abs=0.01)
    assert all(r["points"] == len([p for p in points if p[1] == f]) for (f, _), r in rows.items())
    text = tradeoffs.equal_utility([{c: str(r.get(c, "")) for c in curves.COLUMNS} for r in rows.values()])
    assert "not reached (0/1)" in text and ">warp<" in text


def test_every_replicate_chooses_for_itself_and_all_must_reach(tmp_path):
    """In the first replicate the first rate is the better one, in the second the second."""
    points = [
        ("full.1", "full", [((0.0, 0.9), (0.0, 0.9)), ((0.0, 0.8), (0.1, 0.8))]),
        ("warp.1", "warp", [((0.9, 0.9), (0.8, 0.9)), ((0.9, 0.5), (0.9, 0.5))]),
        ("warp.2", "warp", [((0.6, 0.9), (0.5, 0.9)), ((0.5, 0.8), (0.4, 0.7))]),
        ("lora.1", "lora", [((0.9, 0.9), (0.9, 0.9)), ((0.9, 0.6), (0.9, 0.6))]),
    ]
    test, validation = study(tmp_path, points, units=2)
    rows = by_measure(curves.rows(test, validation))
    warp = rows["warp", "within-1"]
    kept = (1 - 0.01 / 0.3) * 0.4 + 0.01 / 0.3 * 0.9  # of the second: almost all of the second rate
    assert warp["refusal"] == pytest.approx((0.8 + kept) / 2) and (warp["replicates"], warp["reached"]) == (2, "2/2")
    assert rows["lora", "within-5"]["reached"] == "1/2" and "refusal" not in rows["lora", "within-5"]
    said = curves.claim_rows(test, validation)
    assert [(r["arm"], r["compared_with"]) for r in said] == [("warp", "full")]  # not LoRA, which is not there
    kept = (1 - 0.03 / 0.3) * 0.4 + 0.03 / 0.3 * 0.9  # claims are about three points
    assert said[0]["effect"] == pytest.approx((0.8 + kept - 0.1) / 2) and said[0]["replicates"] == 2


@pytest.mark.parametrize("models", [1, 2])
def test_a_given_model_is_one_point_beside_several_replicates(tmp_path, models):
    """It is there once, and stands beside every replicate at what full fine-tuning reaches there."""
    full = [((0.0, 0.9), (0.1, 0.9)), ((0.0, 0.8), (0.2, 0.8)), ((0.0, 0.84), (0.3, 0.8))]
    found = []
    for split in ("validation", "test"):
        files = [
            exact(tmp_path, split, "full.1", "full", *rates[split == "test"], unit=unit, units=3)
            for unit, rates in enumerate(full)
        ]  # fmt: skip
        for seed in range(models):
            where = tmp_path / f"{split}{seed}"
            files.append(exact(where, split, "mine", "mine", 0.6, 0.88, swept=False, method="given", seed=seed))
        found.append(groups.load(files))
    validation, test = found
    rows = by_measure(curves.rows(test, validation))
    assert rows["mine", "within-1"]["reached"] == "2/3" and rows["mine", "within-3"]["reached"] == "3/3"
    assert rows["mine", "within-3"]["refusal"] == pytest.approx(0.6) and rows["mine", "within-3"]["points"] == 1
    assert rows["mine", "within-3"]["utility_minus_full"] == pytest.approx(0.88 - 2.5 / 3)
    said = curves.claim_rows(test, validation, [("mine", "full", "it keeps more")])
    assert [r["effect"] for r in said] == [pytest.approx(0.4)]
    ranked = ranks.rows(test, validation)
    assert [(r["family"], r["rank"], r["replicates"]) for r in ranked] == [("mine", 1, 3), ("full", 2, 3)]


def test_two_families_of_full_fine_tuning_that_reach_the_top_count_once(tmp_path):
    """Utilities are held against the first one that has the best utility, and not against both together."""
    points = [
        ("one.1", "one", [((0.1, 0.9), (0.1, 0.8))]), ("two.1", "two", [((0.2, 0.9), (0.2, 0.6))]),
        ("warp.1", "warp", [((0.9, 0.9), (0.8, 0.7))]),
    ]  # fmt: skip
    test, validation = study(tmp_path, points)
    for split in (test, validation):
        for name in ("one.1", "two.1"):
            split["gsm8k"][name].meta.update(method="full", settings={"trainable": "all"})
    rows = by_measure(curves.rows(test, validation))
    assert rows["warp", "within-1"]["utility_minus_full"] == pytest.approx(0.7 - 0.8)
    assert rows["two", "within-1"]["utility_minus_full"] == pytest.approx(0.6 - 0.8)


def test_without_full_fine_tuning_there_is_nothing_to_be_equal_to(tmp_path):
    test, validation = study(tmp_path, [("warp.1", "warp", [((0.9, 0.9), (0.9, 0.9))])])
    assert curves.rows(test, validation) == [] and curves.claim_rows(test, validation) == []


def test_claims_at_equal_utility_are_a_family_of_their_own(tmp_path):
    points = [
        ("full.1", "full", [((0.1, 0.9), (0.1, 0.9))] * 3),
        ("warp.1", "warp", [((0.9, 0.88), (0.9, 0.88))] * 3),
        ("safety-mix.1", "safety-mix", [((0.9, 0.9), (0.88, 0.9))] * 3),
    ]
    test, validation = study(tmp_path, points, units=3)
    files = sorted(tmp_path.glob("test-*/metrics.json"))
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims", "curve")}
    table.build(test, files, **out, validation=validation)
    found = {(r["kind"], r["arm"], r["compared_with"]): r for r in csvfiles.read_csv(out["claims"])}
    equal = {pair: r for (kind, *pair), r in found.items() if kind == claims.EQUAL for pair in [tuple(pair)]}
    assert equal["warp", "full"]["verdict"] == "holds" and equal["warp", "safety-mix"]["verdict"] == "not resolved"
    assert float(equal["warp", "full"]["p_holm"]) == pytest.approx(2 * float(equal["warp", "full"]["p"]))
    assert equal["warp", "full"]["claim"].endswith(", at equal utility")
    (tmp_path / "curves.csv").write_bytes(out["curve"].read_bytes())
    said = "\n".join(terminal._equal_utility(tmp_path / "curves.csv"))
    assert "at most 3 below full" in said and "90.0 [" in said
    row = next(r for r in csvfiles.read_csv(out["curve"]) if (r["family"], r["measure"]) == ("warp", "within-3"))
    assert [c["text"] for c in shown.curve_row(row)["cells"]] == ["90.0", "0.0", "-2.0"]
    table.build(test, files, **out)
    assert csvfiles.read_csv(out["curve"]) == [] and claims.EQUAL not in {
        r["kind"] for r in csvfiles.read_csv(out["claims"])
    }


def test_one_draw_says_nothing_about_claims_at_equal_utility(tmp_path):
    """Its mix is chosen once; what another choice would bring is in no interval."""
    points = [("full.1", "full", [((0.1, 0.9), (0.1, 0.9))]), ("warp.1", "warp", [((0.9, 0.9), (0.9, 0.9))])]
    test, validation = study(tmp_path, points)
    assert curves.claim_rows(test, validation) == [] and len(curves.rows(test, validation)) == 8


@pytest.mark.parametrize("order", [1, -1])
def test_all_forms_of_full_fine_tuning_say_what_its_best_is(tmp_path, order):
    points = [
        ("weak", "weak", [((0.2, 0.60), (0.2, 0.60))]),
        ("mine.1", "mine", [((0.1, 0.90), (0.1, 0.80))]),
        ("warp.1", "warp", [((0.9, 0.88), (0.9, 0.75))]),
    ][::order]
    for split in ("validation", "test"):
        for arm, family, rates in points:
            method = "warp" if family == "warp" else "full"
            exact(tmp_path, split, arm, family, *rates[0][split == "test"], swept=arm != family, method=method)
    test, validation = (
        groups.load([tmp_path / f"{s}-{arm}-0/metrics.json" for arm, *_ in points]) for s in ("test", "validation")
    )
    rows = by_measure(curves.rows(test, validation))
    assert rows["warp", "within-1"]["reached"] == "0/1" and rows["warp", "within-3"]["refusal"] == pytest.approx(0.9)
    assert rows["warp", "within-3"]["utility_minus_full"] == pytest.approx(0.75 - 0.80)
    assert "over_refusal" not in rows["warp", "area"]


def test_a_family_is_what_it_runs_whatever_it_is_called(tmp_path):
    """Swept settings say nothing about that."""
    files = {split: [
        exact(tmp_path, split, f"{name}.1", name, refused, 0.9, method=method, unit=unit, units=2)
        for name, method, refused in (("tuned", "full", 0.1), ("mine", "warp", 0.8)) for unit in range(2)
    ] for split in ("validation", "test")}  # fmt: skip
    loaded = {split: groups.load(found) for split, found in files.items()}
    said = curves.claim_rows(loaded["test"], loaded["validation"])
    assert [(r["arm"], r["compared_with"]) for r in said] == [("mine", "tuned")]


def drawn(rng, family, rate, split, rates):
    """The models of one point, one per replicate, each with its own (refusal rate, utility)."""
    hits = {names.HAZARD: [rng.random(60) < r for r, _ in rates], "task:gsm8k": [rng.random(80) < u for _, u in rates]}
    cells = [
        {"arm": f"{family}.{rate}", "family": family, "method": family, "settings": {}, "seed": 0, "replicate": i,
         "unit": i, "swept": {"learning_rate": rate}, "split": split} for i in range(len(rates))
    ]  # fmt: skip
    ids = {s: [str(i) for i in range(len(found[0]))] for s, found in hits.items()}
    return groups.Group(
        "gsm8k", f"{family}.{rate}", cells,
        {s: np.where(np.stack(found), WORDS[s][0], WORDS[s][1]) for s, found in hits.items()}, None, ids, ids, {},
    )  # fmt: skip


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_two_equal_methods_are_seldom_told_apart(spread):
    """Choosing on other prompts than those measured on favours nobody: at most five false claims in a hundred, and what
    is luck among 200 (three standard deviations)."""
    rng, false, studies = np.random.default_rng(0), 0, 200
    for _ in range(studies):
        test, validation = {}, {}
        for family in ("full", "warp"):
            for rate in (1, 2, 3):
                shift = rng.normal(0, spread, (4, 1))
                rates = 1 / (1 + np.exp(-(np.array([1 - rate, rate / 2]) + shift)))
                for split, found in (("test", test), ("validation", validation)):
                    found[f"{family}.{rate}"] = drawn(rng, family, rate, split, rates)
        said = claims.judged(curves.claim_rows({"gsm8k": test}, {"gsm8k": validation}))
        false += sum(r["verdict"] != "not resolved" for r in said)
    assert false <= 0.05 * studies + 3 * (0.05 * 0.95 * studies) ** 0.5


def test_a_utility_that_only_rounding_keeps_from_its_level_reaches_it():
    level = 0.40 - 0.05
    assert level > 0.35 and curves.mix(np.array([0.35]), np.array([0.9]), level).tolist() == [1.0]


def test_of_three_families_of_full_fine_tuning_the_first_at_the_top_counts(tmp_path):
    points = [
        ("one.1", "one", [((0.1, 0.9), (0.1, 0.8))]), ("two.1", "two", [((0.1, 0.8), (0.1, 0.1))]),
        ("three.1", "three", [((0.2, 0.9), (0.2, 0.6))]), ("warp.1", "warp", [((0.9, 0.9), (0.8, 0.7))]),
    ]  # fmt: skip
    test, validation = study(tmp_path, points)
    for split in (test, validation):
        for name in ("one.1", "two.1", "three.1"):
            split["gsm8k"][name].meta.update(method="full", settings={"trainable": "all"})
    rows = by_measure(curves.rows(test, validation))
    assert rows["warp", "within-1"]["utility_minus_full"] == pytest.approx(0.7 - 0.8)


def test_wordings_of_one_request_widen_the_interval_of_a_mix(tmp_path):
    points = [("full.1", "full", [((0.0, 0.9), (0.0, 0.9))]), ("warp.1", "warp", [((0.5, 0.9), (0.5, 0.9))])]
    test, validation = study(tmp_path, points)
    alone = by_measure(curves.rows(test, validation))["warp", "within-1"]
    for g in test["gsm8k"].values():
        g.clusters[names.HAZARD] = [str(i // 10) for i in range(100)]
    same = by_measure(curves.rows(test, validation))["warp", "within-1"]
    assert same["refusal"] == alone["refusal"] == 0.5
    assert same["refusal_high"] - same["refusal_low"] > 1.5 * (alone["refusal_high"] - alone["refusal_low"])


def test_the_recipe_of_a_mix_is_the_mean_over_replicates(tmp_path):
    points = [
        ("full.1", "full", [((0.0, 0.9), (0.0, 0.9))] * 2),
        ("warp.1", "warp", [((0.9, 0.9), (0.9, 0.9)), ((0.2, 0.9), (0.2, 0.9))]),
        ("warp.2", "warp", [((0.5, 0.9), (0.5, 0.9))] * 2),
    ]  # fmt: skip
    test, validation = study(tmp_path, points, units=2)
    assert by_measure(curves.rows(test, validation))["warp", "within-1"]["mix"] == "0.50 warp.2 + 0.50 warp.1"
