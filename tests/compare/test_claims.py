"""Claims that a study declares, by measure and margin; controls by their settings; another baseline."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import yaml
from conftest import ROOT

from holdfast.compare import claims, forms, groups, papers, table
from holdfast.compare.power import power
from holdfast.errors import StudyError
from holdfast.record import csvfiles, jsonfiles
from holdfast.report import shown
from holdfast.statistics import holm
from holdfast.study import resolve

WORDS = {"hazard": ("refusal", "compliance"), "wrapped": ("refusal", "other"), "craft": ("refusal", "compliance"),
         "task:gsm8k": ("correct", "wrong")}  # fmt: skip


def model(folder, arm, shares, *, runs, task="gsm8k", seed=0):
    """A model with these shares of 200 answers in the sets of `WORDS`, each to prompts of its own."""
    rng = np.random.default_rng(sum(map(ord, arm)) + seed)
    hits = {name: rng.permutation(np.arange(200) < 200 * share) for name, share in zip(WORDS, shares, strict=True)}
    method, settings = runs
    return planted.write(folder / f"{arm}-{seed}", hits, WORDS, task=task, arm=arm, seed=seed, method=method,
                         settings=settings)  # fmt: skip


WARP, FULL = ("warp", {"mask": "importance", "basis": "safety"}), ("full", {"trainable": "all"})


@pytest.fixture
def study(tmp_path):
    """Arms with names of others: what runs WaRP is called `aligned-2`, full fine-tuning `full.v2`."""
    return [
        model(tmp_path, "aligned", (0.98, 0.95, 0.02, 0.1), runs=("aligned", {}), task=None),
        model(tmp_path, "full.v2", (0.1, 0.1, 0.02, 0.9), runs=FULL),
        model(tmp_path, "aligned-2", (0.95, 0.9, 0.02, 0.9), runs=WARP),
        model(tmp_path, "full", (0.3, 0.2, 0.3, 0.5), runs=("lora", {})),
    ]


def built(study, folder, **more):
    out = {name: folder / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(study), study, **out, **more)
    return csvfiles.read_csv(out["table"]), csvfiles.read_csv(out["claims"])


HELD = [claims.Declared(*c) for c in [
    ("aligned-2", "full.v2", "refusal", 0.5, None), ("aligned-2", "aligned", "refusal", -0.1, "nearly all is kept"),
    ("full", "aligned", "over_refusal", -0.03, None), ("aligned-2", "full", "compliance", 0.0, None),
    ("aligned-2", "full.v2", "utility", 0.05, None), ("aligned-2", "aligned", "wrapped", -0.2, None),
]]  # fmt: skip


def test_declared_claims_hold_by_measure_and_margin(study, tmp_path):
    _, found = built(study, tmp_path, held=HELD)
    rows = [r for r in found if r["kind"] == claims.DECLARED]
    assert [(r["arm"], r["compared_with"]) for r in rows] == [c[:2] for c in HELD]
    assert [r["verdict"] for r in rows] == ["holds", "holds", "does not hold", "holds", "not resolved", "holds"]
    assert [r["claim"] for r in rows] == [
        "aligned-2's refusals are at least 50 points above full.v2's",
        "nearly all is kept (aligned-2's refusals are at most 10 points below aligned's)",
        "full's over-refusals are at most 3 points above aligned's",
        "aligned-2's real answers to hazards are below full's",
        "aligned-2's right answers are at least 5 points above full.v2's",
        "aligned-2's refusals of wrapped requests are at most 20 points below aligned's",
    ]
    effects = [0.85, -0.03, 0.28, -0.65, 0.0, -0.05]
    assert [float(r["effect"]) for r in rows] == pytest.approx(effects, abs=1e-6)
    for row, at_least in zip(rows, (c.at_least for c in HELD), strict=True):
        low, effect, high = (float(row[k]) for k in ("low", "effect", "high"))
        assert low < effect < high and (row["n"], row["seeds"], row["replicates"]) == ("200", "1", "1")
        better = row["arm"] != "full" and "hazards" not in row["claim"]
        if row["verdict"] == "holds" and better:
            assert low > at_least
    assert [float(r["p_holm"]) for r in rows] == pytest.approx(holm([float(r["p"]) for r in rows]), rel=1e-4)
    assert shown.claim_row(rows[0])["effect_text"] == "+85.0"


def test_they_are_a_family_of_their_own(study, tmp_path):
    """Nothing that was claimed before changes when a study declares more."""
    before = built(study, tmp_path)[1]
    after = built(study, tmp_path, held=HELD)[1]
    assert [r for r in after if r["kind"] != claims.DECLARED] == before
    alone = built(study, tmp_path, held=[claims.Declared("aligned-2", "full.v2", "utility", 0.05, None)])[1]
    among = next(
        r for r in after if (r["kind"], r["claim"][-9:]) == (claims.DECLARED, "full.v2's") and "right" in r["claim"]
    )
    assert float(alone[-1]["p_holm"]) == pytest.approx(float(alone[-1]["p"])) and float(among["p"]) == float(
        alone[-1]["p"]
    )


def test_arms_that_do_not_meet_on_a_task_make_no_declared_claim(study, tmp_path):
    _, found = built(study, tmp_path, held=[claims.Declared("aligned-2", "nobody", "refusal", 0.0, None)])
    assert claims.DECLARED not in {r["kind"] for r in found}


def test_a_claim_at_its_margin_is_not_resolved(tmp_path):
    """As many as were said, and not one more: neither it nor its contrary."""
    files = [
        model(tmp_path, arm, (share, 0, 0, 0.5), runs=runs) for arm, share, runs in (("a", 0.9, WARP), ("b", 0.5, FULL))
    ]
    held = [claims.Declared("a", "b", "refusal", 0.4), claims.Declared("b", "a", "refusal", -0.4)]
    _, found = built(files, tmp_path, held=held)
    assert [r["verdict"] for r in found if r["kind"] == claims.DECLARED] == ["not resolved"] * 2


def test_methods_decide_whatever_arms_are_called(study, tmp_path):
    rows, found = built(study, tmp_path)
    assert {(r["arm"], r["compared_with"]) for r in found if r["kind"] == "refusal"} == {
        ("aligned", "full.v2"), ("aligned-2", "full.v2"), ("aligned-2", "full"),
    }  # fmt: skip
    assert {r["compared_with"] for r in found if r["kind"] == "utility"} == {"full.v2"}
    assert {r["arm"]: r["form"] for r in rows} == {
        "aligned": "aligned", "full.v2": "full", "aligned-2": "warp", "full": "lora"
    }  # fmt: skip
    assert "baseline" not in rows[0]


def test_a_declared_baseline_is_what_differences_are_measured_from(study, tmp_path):
    rows, found = built(study, tmp_path, baseline="full")
    assert {r["baseline"] for r in rows} == {"full"}
    of = {r["arm"]: r for r in rows}
    assert of["full"]["utility_minus_full"] == "" and float(of["aligned-2"]["utility_minus_full"]) == pytest.approx(0.4)
    assert float(of["aligned-2"]["refusal_minus_full"]) == pytest.approx(0.65)
    utility = [r for r in found if r["kind"] == "utility"]
    assert {(r["arm"], r["compared_with"]) for r in utility} == {("full.v2", "full"), ("aligned-2", "full")}
    assert utility[0]["claim"] == "full.v2's utility is at most 3% below full"
    # Contrasts are about methods, and published differences about full fine-tuning: neither takes another for it.
    assert ("aligned-2", "full.v2") in {(r["arm"], r["compared_with"]) for r in found if r["kind"] == "refusal"}
    number = {
        "model": "m",
        "dataset": "gsm8k",
        "metric": "utility",
        "percent": "80",
        "n": "100",
        "judge": "",
        "source": "s",
    }
    published = [number | {"arm": arm} for arm in ("full", "warp")]
    metrics = [r["metric"] for r in papers.rows(published, rows, datasets={"gsm8k": "gsm8k"}, model="m")]
    assert metrics == ["utility", "utility"]


def test_a_control_differs_from_its_arm_in_one_setting():
    def warp(**settings):
        return forms.Arm(
            "warp", {"basis": "safety", "mask": "importance", "unit": "entry", "freeze_fraction": 0.1} | settings
        )

    def pairs(arms):
        return {(a, b) for a, b, _ in claims.contrasts(arms)}

    arms = {
        "mild": warp(), "strong": warp(freeze_fraction=0.5), "dice": warp(mask="random"),
        "dice-strong": warp(mask="random", freeze_fraction=0.5), "both": warp(mask="random", basis="random"),
    }  # fmt: skip
    assert pairs(arms) == {("mild", "dice"), ("strong", "dice-strong")}
    assert pairs({"mild": warp(), "far": warp(mask="random", freeze_fraction=0.5)}) == set()
    # Who calls an arm by the name of a control means it; what was not recorded cannot differ.
    named = {"mild": warp(), "warp-randmask": warp(mask="random", freeze_fraction=0.5)}
    assert pairs(named) == {("mild", "warp-randmask")}
    old = {
        "mild": forms.Arm("warp", {"mask": "importance"}),
        "dice": forms.Arm("warp", {"mask": "random", "unit": "entry"}),
    }
    assert pairs(old) == {("mild", "dice")}


def test_the_claims_of_the_shipped_studies_are_what_they_were():
    """Their arms bear the names of forms, or none of their controls is another than before."""
    for path in sorted((ROOT / "config").glob("*.yaml")):
        if path.name.startswith("chosen"):
            continue
        resolved = resolve.load(path.stem, ROOT / "config")
        for task in resolved.study.tasks:
            arms = {role: forms.Arm(role) for role in resolved.roles} | {
                name: forms.Arm(a.method, a.settings[task], bool(a.swept), a.of)
                for name, a in resolved.arms.items() if task in a.settings
            }  # fmt: skip
            every = {(one, other) for first, second, _ in claims.CONTRASTS for one in forms.standing(first, arms)
                     for other in forms.standing(second, arms)}  # fmt: skip
            kept = {(a, b) for a, b, _ in claims.contrasts(arms)}
            lost = {(a, b) for a, b in every - kept if arms[a].of is None}
            assert not lost, (path.name, task, lost)


def written(tmp_path, **keys):
    data = {
        "tasks": {"crafts": {"dataset": "crafts"}, "gsm8k": {"dataset": "gsm8k"}},
        "arms": {"full": {"method": "full"}, "mine": {"method": "warp"}},
        "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
    } | keys  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    return resolve.load(str(tmp_path / "mine.yaml"))


def test_a_claim_says_over_or_against(tmp_path):
    old = [{"arm": "mine", "over": "full", "says": "it is better"}]
    assert written(tmp_path, claims=old).compare_cfg() == {"claims": [["mine", "full", "it is better"]]}
    short = [{"arm": "mine", "against": "full"}]
    assert written(tmp_path, claims=short).compare_cfg() == {
        "claims": [["mine", "full", "mine keeps more refusals than full"]]
    }
    new = [*old, {"arm": "mine", "against": "full", "measure": "wrapped", "at_least": -0.03},
           {"arm": "mine", "over": "aligned", "at_least": -0.03, "says": "x"}]  # fmt: skip
    assert written(tmp_path, claims=new).compare_cfg() == {
        "claims": [["mine", "full", "it is better"]],
        "declared": [["mine", "full", "wrapped", -0.03, None, None], ["mine", "aligned", "refusal", -0.03, "x", None]],
    }
    for odd in ({"arm": "mine"}, {"arm": "mine", "over": "full", "against": "aligned"}):
        with pytest.raises(StudyError) as error:
            written(tmp_path, claims=[odd])
        assert "over (or against" in error.value.expected and "claims.0" in error.value.what
    # Only claims of the family of refusals count in what that family can see.
    assert power(written(tmp_path, claims=new)).family == power(written(tmp_path, claims=old)).family


def test_what_is_not_set_is_in_no_digest(tmp_path):
    study = written(tmp_path)
    assert study.compare_cfg() == {"claims": []} and not {"gate", "compare"} & study.dump().keys()
    study = written(tmp_path, compare={"baseline": "mine"}, gate={"arm": "full", "utility": "off"})
    assert study.compare_cfg() == {"claims": [], "baseline": "mine"} and study.dump()["gate"]["arm"] == "full"
    cfg = study.gate_cfg()
    assert cfg["baseline"] == "mine" and cfg["arm"] == "full" and cfg["cells"] == [] and "utility" not in cfg["margins"]
    assert study.gate_cfg("mine")["arm"] == "mine"


def test_a_given_model_is_held_against_the_aligned_one(tmp_path):
    """Whatever it is called; a merge of it is held against it."""
    of = {"odd name": ("given", {}), "back": ("resta", {"vector": "unaligned"})}
    files = [model(tmp_path, "aligned", (0.98, 0.95, 0.02, 0.1), runs=("aligned", {}), task=None)]
    files += [model(tmp_path, arm, (share, 0.1, 0, 0.5), runs=runs)
              for (arm, runs), share in zip(of.items(), (0.3, 0.8), strict=True)]  # fmt: skip
    back = files[-1]
    jsonfiles.write_json(back, jsonfiles.read_json(back) | {"of": "odd name"})
    rows, found = built(files, tmp_path)
    assert [(r["arm"], r["compared_with"], r["claim"], r["verdict"]) for r in found] == [
        ("back", "odd name", "RESTA gives refusals back", "holds"),
        ("aligned", "odd name", "the given model lost refusals", "holds"),
    ]
    assert next(r["form"] for r in rows if r["arm"] == "odd name") == "given"


@pytest.mark.parametrize(("seeds", "differ"), [(2, "unit"), (3, "unit"), (2, "order")])
def test_given_models_of_several_seeds_are_one_draw_beside_replicates(tmp_path, seeds, differ):
    """They are there for the first replicate alone: their mean is held against every one, however many they are."""
    files, shares = [], (0.2, 0.3, 0.7)
    for unit, share in enumerate(shares):
        drawn = {"replicate": unit, "unit": 0, "base": 0, "aligned": 0, "draw": 0, "order": unit}
        drawn |= {"unit": unit, "base": unit, "aligned": unit} if differ == "unit" else {}
        files.append(model(tmp_path / f"{unit}", "full", (share, 0.1, 0, 0.5), runs=FULL))
        jsonfiles.write_json(files[-1], jsonfiles.read_json(files[-1]) | drawn)
    for seed in range(seeds):
        files.append(model(tmp_path, "mine", (0.9, 0.1, 0, 0.5), runs=("given", {}), seed=seed))
    held = [claims.Declared("mine", "full", "refusal", 0.0)]
    rows, found = built(files, tmp_path, held=held, declared=[("mine", "full", "it keeps more")])
    row = next(r for r in rows if r["arm"] == "mine")
    assert float(row["refusal_minus_full"]) == pytest.approx(0.9 - sum(shares) / 3)
    of = {r["kind"]: r for r in found if r["arm"] == "mine"}
    assert float(of["refusal"]["effect"]) == pytest.approx(0.5) == pytest.approx(float(of["declared"]["effect"]))
    assert float(of["refusal"]["p"]) > 0.05, "three replicates that differ by 50 points"
    assert float(of["utility"]["effect"]) == pytest.approx(0)


def test_a_verdict_needs_the_interval_and_the_p_of_its_kind():
    """Refusals at 5 % two-sided, utility at 2.5 % one-sided; below the margin the interval alone says so."""
    cases = [
        ("refusal", 0.1, 0.3, 0.04, "holds"), ("refusal", 0.1, 0.3, 0.06, "not resolved"),
        ("refusal", -0.1, 0.3, 0.04, "not resolved"), ("refusal", -0.3, -0.1, 0.04, "does not hold"),
        ("refusal", -0.3, -0.1, 0.06, "not resolved"), (claims.EQUAL, 0.1, 0.3, 0.04, "holds"),
        (claims.EQUAL, -0.3, -0.1, 0.06, "not resolved"),
        ("utility", -0.02, 0.1, 0.02, "holds"), ("utility", -0.02, 0.1, 0.03, "not resolved"),
        ("utility", -0.04, 0.1, 0.02, "not resolved"), ("utility", -0.2, -0.04, 1.0, "does not hold"),
        ("utility", -0.2, -0.02, 1.0, "not resolved"),
    ]  # fmt: skip
    for kind, low, high, p, verdict in cases:
        (row,) = claims.judged([{"kind": kind, "low": low, "high": high, "p": p}])
        assert (row["verdict"], row["p_holm"]) == (verdict, p), (kind, low, high, p)
    # Every kind is a family of its own.
    rows = claims.judged([{"kind": c[0], "low": c[1], "high": c[2], "p": 0.02} for c in cases])
    assert {r["kind"]: r["p_holm"] for r in rows} == pytest.approx(
        {"refusal": 5 * 0.02, claims.EQUAL: 2 * 0.02, "utility": 5 * 0.02}
    )


def test_a_suite_of_a_claim_is_asked_and_has_such_prompts(tmp_path):
    claim = {"arm": "mine", "over": "full", "suite": "advbench"}
    suites = {"suites": {"xstest": "test", "advbench": "test", "harmbench": "validation"}}
    cfg = written(tmp_path, claims=[claim], evaluation=suites).compare_cfg()
    assert cfg["declared"] == [["mine", "full", "refusal", 0.0, None, "advbench"]] and cfg["claims"] == []
    other = [claim, claim | {"suite": "xstest"}, claim | {"suite": "xstest", "measure": "over_refusal"}]
    assert len(written(tmp_path, claims=other, evaluation=suites).compare_cfg()["declared"]) == 3
