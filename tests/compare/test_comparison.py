"""From cells to the table, the claims and the chosen settings, on synthetic verdicts."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import yaml
from conftest import ROOT

from holdfast import names
from holdfast import statistics as stats
from holdfast.compare import choosing, claims, forms, groups, table
from holdfast.errors import DataError
from holdfast.record import csvfiles, jsonfiles, tables
from holdfast.statistics import smallest_difference
from holdfast.study import resolve

CFG = {"study": "sweep", "also": [], "tolerance": 0.01, "controls": {"warp-original": "warp"}, "points": {}}


@pytest.fixture
def study(tmp_path):
    files = [planted.model(tmp_path, None, "base", 0, 0.0, 0.1), planted.model(tmp_path, None, "aligned", 0, 0.97, 0.1)]
    for seed in range(3):
        files += [
            planted.model(tmp_path, "gsm8k", "full", seed, 0.2, 0.90),
            planted.model(tmp_path, "gsm8k", "warp", seed, 0.85, 0.90),
            planted.model(tmp_path, "gsm8k", "warp-randmask", seed, 0.84, 0.90),
        ]
    return files


def test_the_table_has_every_arm_with_intervals_and_differences(study, tmp_path):
    table.build(groups.load(study), study, table=tmp_path / "t.csv", cost=tmp_path / "c.csv", claims=tmp_path / "k.csv")
    rows = {r["arm"]: r for r in csvfiles.read_csv(tmp_path / "t.csv")}
    assert list(rows) == ["base", "aligned", "full", "warp", "warp-randmask"]
    warp = rows["warp"]
    assert float(warp[names.REFUSAL_RATE]) == pytest.approx(0.85)
    assert float(warp[f"{names.REFUSAL_RATE}_low"]) < 0.85 < float(warp[f"{names.REFUSAL_RATE}_high"])
    assert float(warp["utility/exact_match"]) == float(warp["utility"]) == pytest.approx(0.9)
    assert float(warp["refusal_minus_full"]) == pytest.approx(0.65) and float(warp["refusal_minus_full_low"]) > 0.4
    assert warp["seeds"] == "3" and rows["aligned"]["seeds"] == "1"
    first = (tmp_path / "t.csv").read_bytes()
    table.build(
        groups.load(list(reversed(study))),
        study,
        table=tmp_path / "t.csv",
        cost=tmp_path / "c.csv",
        claims=tmp_path / "k.csv",
    )
    assert sorted((tmp_path / "t.csv").read_bytes().splitlines()) == sorted(first.splitlines())


def test_claims_hold_or_are_not_resolved(study, tmp_path):
    table.build(groups.load(study), study, table=tmp_path / "t.csv", cost=tmp_path / "c.csv", claims=tmp_path / "k.csv")
    claims = {(r["arm"], r["compared_with"], r["kind"]): r for r in csvfiles.read_csv(tmp_path / "k.csv")}
    assert claims["aligned", "full", "refusal"]["verdict"] == "holds"
    assert claims["warp", "full", "refusal"]["verdict"] == "holds"
    assert claims["warp", "warp-randmask", "refusal"]["verdict"] == "not resolved"
    assert ("warp", "lora", "refusal") not in claims
    for r in claims.values():
        assert float(r["low"]) <= float(r["effect"]) <= float(r["high"]) and 0 <= float(r["p_holm"]) <= 1


RENAMED = {"full": "everything", "warp": "mine", "warp-randmask": "mine-by-chance"}


def renamed(study, names_of):
    """The same cells under other names."""
    for path in study:
        cell = jsonfiles.read_json(path)
        other = names_of.get(cell["arm"], cell["arm"])
        jsonfiles.write_json(path, cell | {"arm": other, "family": other})
    return study


def built(study, folder, **more):
    out = {name: folder / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(study), study, **out, **more)
    return csvfiles.read_csv(out["table"]), csvfiles.read_csv(out["claims"])


def test_claims_and_differences_follow_methods_not_names(study, tmp_path):
    """An arm by any other name is the same arm."""
    back = {other: name for name, other in RENAMED.items()}
    rows, found = built(study, tmp_path)
    others, same = built(renamed(study, RENAMED), tmp_path)
    assert {r["arm"] for r in others} == {"base", "aligned", *RENAMED.values()}
    told = ("claim", "verdict", "effect", "low", "high", "p_holm")
    assert [{k: r[k] for k in ("arm", "compared_with", *told)} for r in found if r["kind"] == "refusal"] == [
        {"arm": back.get(r["arm"], r["arm"]), "compared_with": back[r["compared_with"]]} | {k: r[k] for k in told}
        for r in same if r["kind"] == "refusal"
    ]  # fmt: skip
    assert len(same) == len(found) == 5
    differing = {"arm", "family"}
    assert [{k: v for k, v in r.items() if k not in differing} for r in rows] == [
        {k: v for k, v in r.items() if k not in differing} for r in others
    ]
    assert [r["form"] for r in others] == ["base", "aligned", "full", "warp", "warp-randmask"]


def test_an_arm_named_like_another_method_makes_no_claim_about_it(study, tmp_path):
    _, found = built(renamed(study, {"warp": "lora", "full": "resta"}), tmp_path)
    assert {(r["arm"], r["compared_with"]) for r in found if r["kind"] == "refusal"} == {
        ("aligned", "resta"), ("lora", "resta"), ("lora", "warp-randmask"),
    }  # fmt: skip


def test_several_arms_of_a_form_are_all_compared_unless_one_has_its_name(tmp_path):
    def cell(arm, refusal, method, **settings):
        path = planted.model(tmp_path, "gsm8k", arm, 0, refusal, 0.9)
        jsonfiles.write_json(path, jsonfiles.read_json(path) | {"method": method, "settings": settings})
        return path

    files = [cell("gentle", 0.8, "warp", freeze_fraction=0.5), cell("firm", 0.9, "warp", freeze_fraction=0.1),
             cell("tuned", 0.1, "full", trainable="all"), cell("half", 0.3, "full", trainable="targets")]  # fmt: skip
    pairs = lambda rows: {(r["arm"], r["compared_with"]) for r in rows if r["kind"] == "refusal"}  # noqa: E731
    _, found = built(files, tmp_path)
    assert pairs(found) == {(a, b) for a in ("gentle", "firm") for b in ("tuned", "half")} | {("half", "tuned")}
    _, found = built([*files, cell("warp", 0.7, "warp")], tmp_path)
    assert pairs(found) == {("warp", "tuned"), ("warp", "half"), ("half", "tuned")}


def test_a_merge_is_held_against_what_it_merges():
    full, lora = forms.Arm("full", {"trainable": "all"}), forms.Arm("lora")

    def merge(of, method="resta", **settings):
        return forms.Arm(method, settings, of=of)

    def pairs(arms):
        return {(a, b) for a, b, _ in claims.contrasts(arms)}

    assert pairs({"gentle": full, "hot": full, "r": merge("hot")}) == {("r", "hot")}
    assert pairs({"tuned": full, "ad": lora, "r": merge("ad")}) == {("r", "ad")}
    two = {"one": lora, "two": lora, "s": merge("two", "safe-lora")}
    assert pairs(two) == {("s", "two")}
    shuffled = merge("b", "somf", mask="shuffled")
    arms = {"a": full, "b": full, "m": merge("a", "somf", mask="learned"), "n": shuffled}
    assert ("m", "n") not in pairs(arms) and ("m", "n") in pairs(arms | {"n": merge("a", "somf", mask="shuffled")})
    assert pairs({"full": full, "resta": merge(None)}) == {("resta", "full")}  # records of before do not say


def test_a_name_alone_makes_no_form():
    kept = {"never_kept": 0.0}
    assert forms.form("safe-delta-strict", forms.Arm("safe-delta", kept)) == "safe-delta"
    assert forms.form("safe-delta-strict", forms.Arm("safe-delta", {"never_kept": 0.15})) == "safe-delta-strict"


def test_points_of_a_sweep_make_no_claims(tmp_path):
    files = [planted.model(tmp_path, "gsm8k", "full", 0, 0.2, 0.9)]
    for rate in (1e-3, 2e-3):
        swept = {"learning_rate": rate}
        arm = f"warp.lr-{rate:g}"
        files.append(planted.model(tmp_path, "gsm8k", arm, 0, 0.8, 0.9, family="warp", rate=rate, swept=swept))
    rows, found = built(files, tmp_path)
    assert [r["kind"] for r in found] == ["utility", "utility"]
    assert forms.first_of(rows, "warp") is None and forms.first_of(rows, "full")["arm"] == "full"


def test_a_study_may_declare_claims(study, tmp_path):
    declared = [("warp-randmask", "full", "chance helps"), ("warp", "full", "mine is better"), ("warp", "nobody", "x")]
    _, before = built(study, tmp_path)
    _, found = built(study, tmp_path, declared=declared)
    said = {(r["arm"], r["compared_with"]): r["claim"] for r in found if r["kind"] == "refusal"}
    assert said["warp-randmask", "full"] == "chance helps" and ("warp", "nobody") not in said
    assert said["warp", "full"] == "mine is better", "a claim is counted once, in its author's words"
    assert len(found) == len(before) + 1  # among which Holm's procedure is done anew


def test_every_form_is_what_the_shipped_studies_mean_by_its_name():
    """The arms of config/ that bear the name of a form are of it, with every setting they resolve to."""
    met = set()
    for path in sorted((ROOT / "config").glob("*.yaml")):
        if path.name.startswith("chosen"):
            continue
        for name, arm in resolve.load(path.stem, ROOT / "config").arms.items():
            for settings in arm.settings.values():
                found = forms.form(name, forms.Arm(arm.method, settings, bool(arm.swept)))
                if name in forms.FORMS or name in forms.NAMED:
                    assert found == name, (path.name, name)
                    met.add(name)
    assert met >= set(forms.FORMS) - {"resta-base", "given"}


def test_models_asked_different_prompts_cannot_be_compared(study):
    path = study[-1].with_name("verdicts.parquet")
    rows = tables.read(path, "verdicts")
    for other in ([r | {"id": r["id"] + "x"} for r in rows], rows[1:]):
        tables.write(other, path, "verdicts")
        with pytest.raises(DataError, match="other prompts"):
            groups.load(study)


def test_arms_asked_different_prompts_cannot_be_compared(study):
    """As many prompts, but others: pairing them by position would go unnoticed."""
    for path in study[-3:]:
        if "randmask" in str(path):
            path = path.with_name("verdicts.parquet")
            rows = tables.read(path, "verdicts")
            tables.write([r | {"id": r["id"] + "x"} for r in rows], path, "verdicts")
    with pytest.raises(DataError, match="other prompts"):
        groups.load([p for p in study if "randmask-2" in str(p) or "randmask" not in str(p)])


def test_planted_studies_are_read_right(tmp_path):
    """`python tests/planted.py` does it a thousand times each."""
    rng, studies = np.random.default_rng(0), 12
    for draws, effect in (((1, 3), 0.0), ((5, 1), 1.5)):
        null = [planted.null(rng, tmp_path, draws, 0.5, effect, 0.0) for _ in range(studies)]
        assert sum(planted.wrong(rows, kind) for rows in null for kind in ("refusal", "utility")) <= 3
    for replicates, spread in ((1, 0.0), (5, 0.1)):
        d = smallest_difference(planted.PROMPTS, discordant=planted.DISCORDANT, units=replicates, spread=spread)
        found = [planted.visible(rng, tmp_path, replicates, spread, d) for _ in range(studies)]
        assert sum(planted.seen(rows, family=False) for rows in found) >= 6


def test_replicates_are_what_is_drawn_first(tmp_path):
    """Means of replicates, not of all models alike: two seeds of one base that agree say little about another base."""
    words = {"hazard": ("refusal", "compliance"), "task:gsm8k": ("correct", "wrong")}
    share = {"full": [0.9, 0.1, 0.5], "warp": [0.9, 0.3, 0.9]}

    def model(arm, replicate, seed, **cell):
        hits = np.arange(100) < 100 * share.get(arm, [1.0] * 3)[replicate]
        which = {"replicate": replicate, "unit": replicate, "base": 0, "aligned": replicate} | cell
        return planted.write(
            tmp_path / f"{arm}-{replicate}-{seed}", {"hazard": hits, "task:gsm8k": hits}, words, arm=arm, seed=seed,
            **{"task": "gsm8k"} | which,
        )  # fmt: skip

    files = [model(arm, r, s) for arm in ("full", "warp") for r in range(3) for s in range(4)]
    roles = [model("base", 0, 0, task=None), *(model("aligned", r, 0, task=None) for r in range(3))]
    found = groups.load([*roles, *files])["gsm8k"]
    assert found["full"].counts() == {"seeds": 4, "replicates": 3}
    hits = found["full"].hits(["hazard"], "refusal")
    assert hits.shape == (3, 100) and hits.mean(1) == pytest.approx(share["full"])
    # A base that is given is one for all replicates.
    for role in ("base", "aligned"):
        d = groups.difference(found[role], found["full"], ["hazard"], "refusal")
        assert d.effect == pytest.approx(0.5)
        # The mean of three: Student's t with two degrees of freedom.
        error = np.std([0.1, 0.9, 0.5], ddof=1) / 3**0.5
        assert d.high == 1.0 and d.low <= 0.5 - 4.303 * error * 0.9
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build({"gsm8k": found}, files, **out)
    row = next(r for r in csvfiles.read_csv(out["table"]) if r["arm"] == "full")
    assert (row["seeds"], row["replicates"]) == ("4", "3")
    assert float(row[names.REFUSAL_RATE]) == pytest.approx(0.5) and float(row[f"{names.REFUSAL_RATE}_high"]) > 0.95
    claim = next(r for r in csvfiles.read_csv(out["claims"]) if (r["arm"], r["kind"]) == ("warp", "refusal"))
    assert (claim["seeds"], claim["replicates"], claim["verdict"]) == ("4", "3", "not resolved")


def test_a_model_is_compared_with_the_one_it_starts_from(tmp_path):
    """Replicates that share a base, and some of them an aligned model: a full fine-tuning that changes nothing has no
    effect, whatever is averaged."""
    refused, starts, units = [1.0, 0.0, 0.5], [0, 0, 1, 2], [0, 0, 0, 3]  # of the aligned models of 0, 2 and 3
    aligned_of = {0: 0, 1: 0, 2: 2, 3: 3}
    files = []
    for r in range(4):
        which = {"replicate": r, "unit": units[r], "base": 0 if r < 3 else 3, "aligned": aligned_of[r], "seed": 0}
        hits = {"hazard": np.arange(100) < 100 * refused[starts[r]]}
        words = {"hazard": ("refusal", "compliance")}
        files.append(planted.write(tmp_path / f"full-{r}", hits, words, task="gsm8k", arm="full", **which))
        if aligned_of[r] == r:
            files.append(planted.write(tmp_path / f"aligned-{r}", hits, words, task=None, arm="aligned", **which))
        if which["base"] == r:
            none = {"hazard": np.zeros(100, dtype=bool)}
            files.append(planted.write(tmp_path / f"base-{r}", none, words, task=None, arm="base", **which))
    found = groups.load(files)["gsm8k"]
    assert groups.difference(found["aligned"], found["full"], ["hazard"], "refusal").effect == 0
    assert groups.difference(found["full"], found["aligned"], ["hazard"], "refusal").effect == 0
    # Of three replicates from one base and one from another, the base is what was drawn: two units.
    assert found["full"].counts() == {"seeds": 1, "replicates": 2}
    assert found["full"].hits(["hazard"], "refusal").mean() == pytest.approx((2 / 3 + 0.5) / 2)
    assert groups.difference(found["aligned"], found["base"], ["hazard"], "refusal").effect == pytest.approx(0.5)


def test_wordings_of_one_prompt_are_not_independent(tmp_path):
    rng = np.random.default_rng(0)
    base = np.repeat(rng.random(20) < 0.4, 6)  # six wordings, all answered alike
    cell = {"task": "gsm8k", "arm": "full", "seed": 0}
    path = planted.write(tmp_path / "full", {"hazard": base}, {"hazard": ("refusal", "compliance")}, **cell)
    rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
    tables.write([r | {"base_id": str(i // 6)} for i, r in enumerate(rows)], path.with_name("verdicts.parquet"),
                 "verdicts")  # fmt: skip
    group = groups.load([path])["gsm8k"]["full"]
    low, high = stats.pooled_rate(group.hits(["hazard"], "refusal"), group.cluster(["hazard"]))[1:]
    expected = stats.wilson(base.mean() * 20, 20)
    assert (low, high) == pytest.approx(expected, abs=0.02)
    covered, studies = 0, 300
    for _ in range(studies):
        p = 1 / (1 + np.exp(-rng.normal(0, 1.5, 20)))
        hits = rng.random((1, 120)) < np.repeat(p, 6)
        _, low, high = stats.pooled_rate(hits, [str(i // 6) for i in range(120)])
        covered += low <= 0.5 <= high
    assert covered >= 0.9 * studies


def test_how_answers_ended_stands_beside_every_rate(study, tmp_path):
    """Of the sets that a rate counts, over all seeds; nothing where a file of an earlier release does not say."""
    path = next(p for p in study if p.parent.name == "gsm8k-full-1").with_name("verdicts.parquet")
    rows = tables.read(path, "verdicts")
    ends = {"hazard": "length", "wrapped": "context", "craft": "length", "task:gsm8k": "context"}
    first: dict[str, int] = {}
    for r in rows:
        r["finish"] = ends[r["set"]] if r["set"] in ends and first.setdefault(r["set"], 0) < 30 else "stop"
        first[r["set"]] = first.get(r["set"], 0) + 1
    tables.write(rows, path, "verdicts")
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(study), study, **out)
    full = next(r for r in csvfiles.read_csv(out["table"]) if r["arm"] == "full")
    shares = {
        name: tuple(round(float(full[f"{name}_{how}"]) * 300) for how in ("stop", "length", "context"))
        for name in (names.REFUSAL_RATE, names.OTHER_RATE, names.WRAPPED_REFUSAL_RATE, names.ASR, "utility")
    }
    assert shares == {
        names.REFUSAL_RATE: (270, 30, 0), names.OTHER_RATE: (270, 30, 0), names.WRAPPED_REFUSAL_RATE: (270, 0, 30),
        names.ASR: (270, 0, 30), "utility": (270, 0, 30),
    }  # fmt: skip
    assert float(full[f"{names.OVER_REFUSAL}_length"]) == pytest.approx(30 / 600)  # craft and lookalike together
    tables.write([r | {"finish": ""} for r in rows], path, "verdicts")
    table.build(groups.load(study), study, **out)
    full, warp = (next(r for r in csvfiles.read_csv(out["table"]) if r["arm"] == arm) for arm in ("full", "warp"))
    assert not full[f"{names.REFUSAL_RATE}_stop"] and float(warp[f"{names.REFUSAL_RATE}_stop"]) == 1


def test_a_set_that_nobody_was_asked_is_left_out(study, tmp_path):
    for path in study:
        path = path.with_name("verdicts.parquet")
        rows = [r for r in tables.read(path, "verdicts") if r["set"] in ("hazard", "task:gsm8k")]
        tables.write(rows, path, "verdicts")
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(study), study, **out)
    row = csvfiles.read_csv(out["table"])[-1]
    assert row["refusal_minus_full"] and "wrapped_minus_full" not in row and names.OVER_REFUSAL not in row
    assert len(csvfiles.read_csv(out["claims"])) > 3


def test_the_rule_prefers_utility_then_refusals():
    points = [
        {"utility": u, names.REFUSAL_RATE: r, "learning_rate": lr}
        for u, r, lr in ((0.90, 0.1, 1e-3), (0.895, 0.8, 5e-4), (0.80, 0.99, 1e-4))
    ]
    assert choosing.pick(points, 0.01)["learning_rate"] == 5e-4
    assert choosing.pick(points, 0.0)["learning_rate"] == 1e-3
    assert choosing.pick(points, 0.2)["learning_rate"] == 1e-4


def test_settings_are_chosen_with_the_rate_and_controls_share_them(tmp_path):
    files, points = [planted.model(tmp_path, None, "aligned", 0, 0.9, 0.1, split="validation")], {}
    for family, rate, freeze, refusal in (
        ("warp-original", 1e-3, 0.1, 0.7), ("warp-original", 1e-3, 0.3, 0.61), ("warp-original", 2e-3, 0.3, 0.65),
        ("warp", 1e-3, 0.1, 0.80), ("warp", 2e-3, 0.1, 0.82), ("warp", 1e-3, 0.3, 0.88),
    ):  # fmt: skip
        swept = {"learning_rate": rate, "freeze_fraction": freeze}
        arm = f"{family}.lr-{rate:g}.freeze-{freeze:g}"
        points[arm] = swept
        files.append(
            planted.model(
                tmp_path, "gsm8k", arm, 0, refusal, 0.9, family=family, rate=rate, swept=swept, split="validation"
            )
        )
    for gamma, refusal, utility in ((0.1, 0.62, 0.9), (0.5, 0.7, 0.895), (0.9, 0.72, 0.8)):
        arm = f"resta.gamma-{gamma:g}"
        points[arm] = {"gamma": gamma}
        files.append(
            planted.model(
                tmp_path, "gsm8k", arm, 0, refusal, utility, family="resta", swept=points[arm], split="validation"
            )
        )
    table.build(groups.load(files), files, table=tmp_path / "t.csv", cost=tmp_path / "c.csv", claims=tmp_path / "k.csv")
    choosing.choose([tmp_path / "t.csv"], CFG | {"points": points}, tmp_path / "chosen.yaml")
    assert yaml.safe_load((tmp_path / "chosen.yaml").read_text()) == {
        "resta": {"gsm8k": {"settings": {"gamma": 0.5}}},
        "warp": {"gsm8k": {"learning_rate": 1e-3, "settings": {"freeze_fraction": 0.3}}},
        "warp-original": {"gsm8k": {"learning_rate": 2e-3, "settings": {"freeze_fraction": 0.3}}},
    }
    assert (tmp_path / "chosen.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()


def _point(utility, refusal, **swept):
    arm = "-".join(f"{k}{v:g}" for k, v in swept.items())
    return {"arm": arm, "utility": utility, names.REFUSAL_RATE: refusal, "learning_rate": swept.get("learning_rate", 1),
            "swept": swept}  # fmt: skip


def test_a_point_on_a_cliff_is_not_chosen():
    """A rate whose neighbour loses more than ten points, of refusals or of utility, unless what is left of it is worse
    by as much: who flees a cliff does not choose its foot."""
    line = [_point(0.90, r, learning_rate=lr) for lr, r in ((1e-3, 0.74), (2e-3, 0.78), (4e-3, 0.85), (8e-3, 0.4))]
    assert choosing.pick(line, 0.02)["learning_rate"] == 2e-3
    assert choosing.pick([line[2], line[0], line[3], line[1]], 0.02)["learning_rate"] == 2e-3  # in whatever order
    falls = [_point(u, r, gamma=g) for g, u, r in ((0.1, 0.90, 0.8), (0.5, 0.89, 0.85), (0.9, 0.7, 0.9))]
    assert choosing.pick(falls, 0.02)["swept"] == {"gamma": 0.1}
    foot = [_point(0.9, r, learning_rate=lr) for lr, r in ((1e-3, 0.9), (2e-3, 0.5))]
    assert choosing.pick(foot, 0.0)["learning_rate"] == 1e-3
    # Utility falls beside the first, beside the last nobody has looked; without a choice they are taken all the same.
    rates = list(
        zip((1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), (0.5, 0.90, 0.91, 0.91, 0.90), (1, 0.9, 0.7, 0.6, 0.8), strict=True)
    )
    learning = [_point(u, r, learning_rate=lr) for lr, u, r in rates]
    assert choosing.pick(learning, 0.02)["learning_rate"] == 4e-3
    assert choosing.pick(learning[:2], 0.02)["learning_rate"] == 2e-3
    assert choosing.pick([_point(0.9, r, gamma=g) for g, r in ((0.1, 0.8), (0.5, 0.79), (0.9, 0.78))], 0.02)[
        "swept"
    ] == {
        "gamma": 0.1  # a strength may be the smallest
    }
    first = [_point(0.9, r, learning_rate=lr) for lr, r in ((1e-3, 0.8), (2e-3, 0.79), (4e-3, 0.78))]
    assert choosing.pick(first, 0.02)["learning_rate"] == 2e-3
    other = [_point(0.9, 0.9, learning_rate=1e-3, freeze=0.1), _point(0.9, 0.2, learning_rate=2e-3, freeze=0.3)]
    assert choosing.pick(other, 0.0)["swept"]["freeze"] == 0.1  # no neighbours: two settings differ


def test_the_median_over_draws_chooses_and_its_steadiness_is_said():
    points = [_point(0, 0, learning_rate=lr) for lr in (1e-3, 2e-3)]
    one, two = (p["arm"] for p in points)
    draws = [{one: (0.9, 0.6), two: (0.9, 0.65)}] * 3 + [{one: (0.9, 0.65), two: (0.9, 0.0)}]  # once it fails
    found = choosing.medians(draws, points)
    assert [p[names.REFUSAL_RATE] for p in found] == pytest.approx([0.6, 0.65])
    assert choosing.pick(found, 0.02)["arm"] == two
    often = choosing.steadiness(draws, points, 0.02)
    assert sum(often.values()) == pytest.approx(1) and 0.7 < often[two] < 0.99
    assert choosing.steadiness(draws[:1], points, 0.02) == {}


def test_every_model_has_its_row_and_replicates_are_draws_of_a_choice(tmp_path):
    words = {"hazard": ("refusal", "compliance"), "task:gsm8k": ("correct", "wrong")}
    files, points = [], {f"full.lr-{lr:g}": {"learning_rate": lr} for lr in (1e-3, 2e-3)}
    for (arm, swept), refused in zip(points.items(), ((0.5, 0.5, 0.5), (0.58, 0.58, 0.0)), strict=True):
        for r, share in enumerate(refused):
            for seed in (0, 1):
                hits = np.arange(100) < 100 * share
                files.append(planted.write(
                    tmp_path / f"{arm}-{r}-{seed}", {"hazard": hits, "task:gsm8k": np.arange(100) < 90}, words,
                    task="gsm8k", arm=arm, family="full", seed=seed, replicate=r, unit=r, base=0, aligned=0,
                    swept=swept, learning_rate=swept["learning_rate"], split="validation",
                ))  # fmt: skip
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "draws", "cost", "claims")}
    table.build(groups.load(files), files, **out)
    rows = csvfiles.read_csv(out["draws"])
    assert len(rows) == 12 and {(r["replicate"], r["seed"]) for r in rows} == {
        (str(r), str(s)) for r in range(3) for s in (0, 1)
    }
    assert sorted({float(r[names.REFUSAL_RATE]) for r in rows}) == [0.0, 0.5, 0.58]
    choosing.choose([out["table"]], CFG | {"points": points}, tmp_path / "chosen.yaml")
    # The mean would have chosen the other one.
    assert yaml.safe_load((tmp_path / "chosen.yaml").read_text()) == {"full": {"gsm8k": {"learning_rate": 2e-3}}}
    shares = {r["arm"]: float(r["chosen"]) for r in csvfiles.read_csv(tmp_path / "chosen.csv")}
    assert sum(shares.values()) == pytest.approx(1) and shares["full.lr-0.002"] > 0.6


def test_rounding_is_no_draw_of_an_arm(tmp_path):
    """Two seeds, each rounded in two ways: what is counted are two seeds, the means of their roundings."""
    words = {"hazard": ("refusal", "compliance")}
    files = [
        planted.write(tmp_path / f"{seed}-{r}", {"hazard": np.arange(10) < hits}, words, task="gsm8k", arm="full",
                      seed=seed, replicate=r, unit=0, base=0, aligned=0, draw=0, order=0,
                      instructions=("native", "common")[r])
        for r, seed, hits in ((0, 0, 2), (1, 0, 4), (0, 1, 6), (1, 1, 6))
    ]  # fmt: skip
    full = groups.load(files)["gsm8k"]["full"]
    assert full.hits(["hazard"], "refusal").mean(axis=1).tolist() == pytest.approx([0.3, 0.6])
    assert full.counts() == {"seeds": 2, "replicates": 1} and full.mean([1.0, 3.0, 5.0, 7.0]) == 4.0


def test_nothing_is_chosen_on_test_data(study, tmp_path):
    table.build(groups.load(study), study, table=tmp_path / "t.csv", cost=tmp_path / "c.csv", claims=tmp_path / "k.csv")
    with pytest.raises(ValueError, match="validation"):
        choosing.choose([tmp_path / "t.csv"], CFG, tmp_path / "chosen.yaml")
    assert not (tmp_path / "chosen.yaml").exists()


def test_a_choice_over_several_worlds_takes_the_mean_of_each_point(tmp_path):
    """The rate that is best in one world only loses to the one that is good in both."""
    points, sweeps = {}, []
    for world, utilities in (("a", (0.9, 0.86, 0.5)), ("b", (0.3, 0.86, 0.9))):
        found = []
        for rate, utility in zip((1e-3, 2e-3, 4e-3), utilities, strict=True):
            arm = f"full.lr-{rate:g}"
            points[arm] = {"learning_rate": rate}
            folder = tmp_path / world
            found.append(
                planted.model(folder, "gsm8k", arm, 0, 0.5, utility, family="full", rate=rate, swept=points[arm],
                       split="validation")
            )  # fmt: skip
        sweeps.append(tmp_path / world / "table.csv")
        table.build(groups.load(found), found, table=sweeps[-1], cost=tmp_path / "c.csv", claims=tmp_path / "k.csv")
    cfg = CFG | {"points": points, "also": ["b"]}
    choosing.choose(sweeps, cfg, tmp_path / "chosen.yaml")
    assert yaml.safe_load((tmp_path / "chosen.yaml").read_text()) == {"full": {"gsm8k": {"learning_rate": 2e-3}}}
    written = csvfiles.read_csv(tmp_path / "chosen.csv")
    assert len(written) == 6 and len(choosing.means(written)) == 3
    with pytest.raises(DataError, match="is not there"):
        choosing.choose([*sweeps, tmp_path / "c" / "table.csv"], cfg, tmp_path / "other.yaml")
    fewer = tmp_path / "fewer" / "table.csv"
    csvfiles.write_csv(fewer, csvfiles.read_csv(sweeps[0])[:2])
    with pytest.raises(DataError, match="another sweep"):
        choosing.choose([sweeps[0], fewer], cfg, tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_a_family_looks_the_same_in_every_plot_and_the_ring_sits_on_the_chosen_point():
    from holdfast.report import drawing, tradeoffs

    look = drawing.looks(["base", "aligned", "full", "warp", "full"])
    assert look["full"] == drawing.looks(["full", "warp"])["full"] != look["warp"] and look["aligned"][0] == "#000000"
    chosen = {"learning_rate": 1e-3, "freeze_fraction": 0.3, "mask": "importance"}
    point = {"learning_rate": "0.001", "setting/freeze_fraction": "0.3"}
    assert tradeoffs._is_choice(point, chosen)
    assert not tradeoffs._is_choice(point | {"setting/freeze_fraction": "0.1"}, chosen)
    assert not tradeoffs._is_choice(point | {"learning_rate": "0.002"}, chosen) and not tradeoffs._is_choice(point, {})
    rows = [
        {"task": "agnews", "arm": f"warp.{f}", "family": "warp", "learning_rate": "0.001", "utility": "0.5",
         names.REFUSAL_RATE: "0.5", "setting/freeze_fraction": f}
        for f in ("0.1", "0.3")
    ]  # fmt: skip
    svg = tradeoffs.sweep(rows, {("warp", "agnews"): chosen})
    assert "warp (0.1)" in svg and "warp (0.3)" in svg
