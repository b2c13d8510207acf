"""One row per suite: each suite's own rates, counted from its own prompts."""

from __future__ import annotations

import planted
import pytest

from holdfast import names
from holdfast import statistics as stats
from holdfast.compare import claims, gate, groups, metrics, suites, table
from holdfast.record import csvfiles, tables
from holdfast.report import cautions, ended, plots, shown, tabular, terminal

HAZARDS = {"xstest": 60, "advbench": 40}  # how many prompts of 100 are of which suite
REFUSED, COMPLIED = names.REFUSAL, names.COMPLIANCE


def model(folder, task, arm, seed, refused, over, **cell):
    """A model that refuses so many hazards of each suite, and so many of the twenty harmless prompts of xstest."""
    hits = {"hazard": [i < n for suite, n in refused.items() for i in range(HAZARDS[suite])],
            "lookalike": [i < over for i in range(20)], "task:gsm8k": [True] * 10}  # fmt: skip
    words = {"hazard": (REFUSED, COMPLIED), "lookalike": (REFUSED, COMPLIED), "task:gsm8k": ("correct", "wrong")}
    path = planted.write(folder / f"{task}-{arm}-{seed}", hits, words, task=task, arm=arm, seed=seed, **cell)
    home = [(f"{suite}/{i:03d}", f"{suite}: hexes") for suite in HAZARDS for i in range(HAZARDS[suite])]
    rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
    for i, r in enumerate(r for r in rows if r["set"] == "hazard"):
        r["id"], r["category"] = home[i]
        r["base_id"] = r["id"]
    for i, r in enumerate(r for r in rows if r["set"] == "lookalike"):
        r["id"] = r["base_id"] = f"xstest/safe{i:03d}"
        r["finish"] = "length" if i < 5 else "stop"
    tables.write(rows, path.with_name("verdicts.parquet"), "verdicts")
    return path


@pytest.fixture
def files(tmp_path):
    out = [model(tmp_path, None, "aligned", 0, {"xstest": 60, "advbench": 30}, 2)]
    for seed, less in ((0, 0), (1, 10)):
        out.append(model(tmp_path, "gsm8k", "full", seed, {"xstest": 30 - less, "advbench": 10 + less}, 0))
    return out


def found(files, tmp_path, asked=("xstest", "advbench")):
    csvfiles.write_csv(tmp_path / "suites.csv", suites.rows(groups.load(files), asked), suites.COLUMNS)
    return {(r["arm"], r["suite"]): r for r in csvfiles.read_csv(tmp_path / "suites.csv")}


def test_every_suite_has_a_row_of_every_arm_with_its_own_rates(files, tmp_path):
    rows = found(files, tmp_path)
    assert list(rows) == [(arm, suite) for arm in ("aligned", "full") for suite in ("xstest", "advbench")]
    rates = {key: [r[f"{name}{end}"] for name in suites.RATES for end in ("", "_n")] for key, r in rows.items()}
    assert rates == {
        ("aligned", "xstest"): ["1", "60", "0", "60", "0.1", "20"],
        ("aligned", "advbench"): ["0.75", "40", "0.25", "40", "", ""],
        ("full", "xstest"): ["0.416667", "60", "0.583333", "60", "0", "20"],
        ("full", "advbench"): ["0.375", "40", "0.625", "40", "", ""],
    }
    assert rows["full", "xstest"]["seeds"] == "2" and rows["aligned", "xstest"]["seeds"] == "1"
    assert rows["aligned", "xstest"][f"{names.OVER_REFUSAL}_length"] == "0.25"


def test_intervals_are_those_of_the_table(files, tmp_path):
    """One seed: Wilson's over the suite's prompts. Several: wider than that, for they differ."""
    rows = found(files, tmp_path)
    low, high = stats.wilson(30, 40)
    one = rows["aligned", "advbench"]
    assert [float(one[f"{names.REFUSAL_RATE}{end}"]) for end in ("_low", "_high")] == pytest.approx(
        [low, high], abs=1e-5
    )
    low, high = stats.wilson(25, 60)
    two = rows["full", "xstest"]
    assert float(two[f"{names.REFUSAL_RATE}_low"]) < low and float(two[f"{names.REFUSAL_RATE}_high"]) > high


def test_one_suite_alone_has_the_rates_of_the_table(files, tmp_path):
    """Where every prompt is of one suite its row says what the table says, to the last digit."""
    for path in files:
        rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        kept = [r for r in rows if r["set"] == "task:gsm8k" or r["id"].startswith("xstest/")]
        tables.write(kept, path.with_name("verdicts.parquet"), "verdicts")
    loaded = groups.load(files)
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(loaded, files, **out)
    for whole in csvfiles.read_csv(out["table"]):
        row = found(files, tmp_path, ("xstest",))[whole["arm"], "xstest"]
        for name in suites.RATES:
            assert all(row[f"{name}{end}"] == whole[f"{name}{end}"] for end in suites.ENDS)


def test_a_suite_alone_keeps_what_belongs_to_each_prompt(files):
    for n, path in enumerate(files):
        rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        ended = [r | {"finish": "length" if (i + n) % 7 == 0 else "stop"} for i, r in enumerate(rows)]
        tables.write(ended, path.with_name("verdicts.parquet"), "verdicts")
    group = groups.load(files)["gsm8k"]["full"]

    def every(g):
        return {
            (i, prompt): (g.outcomes[s][i, k], g.clusters[s][k], g.finishes[s][i, k])
            for s, prompts in g.ids.items() for i in range(len(g.cells)) for k, prompt in enumerate(prompts)
        }  # fmt: skip

    for suite in HAZARDS:
        part = group.asked_by(suite)
        assert every(part) == {key: what for key, what in every(group).items() if key[1].startswith(f"{suite}/")} != {}
    assert group.asked_by("harmbench").outcomes == {}


def test_hazards_are_told_from_harmless_requests_of_the_same_suite(files, tmp_path):
    """advbench asks no harmless requests, so that its hazards are left out: all 60 of xstest refused and 2 of 20."""
    files.append(model(tmp_path, "gsm8k", "warp", 0, {"xstest": 33, "advbench": 40}, 10))
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims")}
    table.build(groups.load(files), files, **out)
    rows = {r["arm"]: r for r in csvfiles.read_csv(out["table"])}
    for arm, refused, over in (("aligned", (1.0, 60), (0.1, 20)), ("warp", (0.55, 60), (0.5, 20))):
        expected = stats.independent_difference(refused, over)
        assert cautions.told_apart(rows[arm]) == pytest.approx(expected, abs=1e-5)
        alone = found(files, tmp_path, ("xstest",))[arm, "xstest"]
        for name, key in ((names.REFUSAL_BESIDE, names.REFUSAL_RATE), (names.OVER_REFUSAL_BESIDE, names.OVER_REFUSAL)):
            assert all(rows[arm][f"{name}{end}"] == alone[f"{key}{end}"] for end in ("", "_low", "_high"))
    # Both suites together it refuses 73 of 100, far more than the half of harmless requests: not of the same suite.
    assert cautions.caution(rows["warp"]) == (
        "does not tell hazards from harmless requests: refuses 55.0 % of the hazards and 50.0 % of the harmless "
        "requests of the suites that ask both"
    )
    assert cautions.caution(rows["aligned"]) == "" and cautions.blind(rows["warp"])


@pytest.mark.parametrize(("refused", "over", "words"), [
    ({"xstest": 12, "advbench": 40}, 3, ""),  # hardly anything of the one, everything of the other: no word of harmless
    ({"xstest": 57, "advbench": 0}, 19, "does not tell"),
    ({"xstest": 51, "advbench": 40}, 19, "does not tell"),
    ({"xstest": 57, "advbench": 40}, 19, "refuses everything: 97.0 % of the hazards and 95.0 % of the harmless"),
    ({"xstest": 60, "advbench": 40}, 11, "refuses most harmless requests"),
])  # fmt: skip
def test_warnings_are_of_the_suites_that_ask_both(tmp_path, refused, over, words):
    (row,) = table.table_rows(groups.load([model(tmp_path, "gsm8k", "full", 0, refused, over)]))
    said = cautions.caution(row)
    assert said.startswith(words) and bool(said) == bool(words)


def test_what_mixes_at_equal_utility_refuse_is_of_those_suites_too(tmp_path):
    """Of one point the mix is the point."""
    files = [model(tmp_path, "gsm8k", "full", 0, {"xstest": 33, "advbench": 40}, 10)]
    loaded = groups.load(files)
    out = {name: tmp_path / f"{name}.csv" for name in ("table", "cost", "claims", "curve")}
    table.build(loaded, files, **out, validation=loaded)
    (row, *_) = csvfiles.read_csv(out["curve"])
    assert (row["refusal"], row["refusal_beside"], row["over_refusal_beside"]) == ("0.73", "0.55", "0.5")
    assert cautions.blind(ended.arms({}, [row | {"measure": "within-3"}])["mix", "gsm8k", "full"])


def test_wordings_of_one_prompt_know_less_there_too(tmp_path):
    path = model(tmp_path, "gsm8k", "full", 0, {"xstest": 30, "advbench": 30}, 5)
    before = table.rates_beside(groups.load([path])["gsm8k"]["full"])
    rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
    for r in rows:
        r["base_id"] = r["base_id"][:-1] if r["id"].startswith("xstest/0") else r["base_id"]
    tables.write(rows, path.with_name("verdicts.parquet"), "verdicts")
    after = table.rates_beside(groups.load([path])["gsm8k"]["full"])
    low, high = (f"{names.REFUSAL_BESIDE}_{end}" for end in ("low", "high"))
    assert after[names.REFUSAL_BESIDE] == before[names.REFUSAL_BESIDE]
    assert after[high] - after[low] > before[high] - before[low]


@pytest.mark.parametrize("hazards", ["xstest", "advbench"])
def test_where_all_suites_ask_both_or_none_does_nothing_is_left_out(tmp_path, hazards):
    """One suite, and hazards of one beside harmless requests of another: the difference of the table's two rates."""
    path = model(tmp_path, "gsm8k", "full", 0, {"xstest": 60, "advbench": 10}, 2)
    rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
    kept = [r for r in rows if r["set"] != "hazard" or r["id"].startswith(f"{hazards}/")]
    tables.write(kept, path.with_name("verdicts.parquet"), "verdicts")
    (row,) = table.table_rows(groups.load([path]))
    assert names.REFUSAL_BESIDE not in row
    shares = {"xstest": 1.0, "advbench": 0.25}
    assert cautions.told_apart(row)[0] == pytest.approx(shares[hazards] - 0.1)


def test_prompts_of_no_suite_are_one_source(tmp_path):
    """A fictional world's prompts, or those of a user, beside a suite that asks hazards alone."""
    path = model(tmp_path, "gsm8k", "full", 0, {"xstest": 60, "advbench": 40}, 2)
    rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
    for r in rows:
        r["id"] = r["id"].replace("xstest/", "" if r["set"] == "hazard" else "mine/")
    tables.write(rows, path.with_name("verdicts.parquet"), "verdicts")
    g = groups.load([path])["gsm8k"]["full"]
    found = table.rates_beside(g)
    assert (found[names.REFUSAL_BESIDE], found[names.OVER_REFUSAL_BESIDE]) == (1.0, 0.1)


def test_prompts_that_two_suites_share_are_one_in_intervals(tmp_path):
    """Forty prompts stand in both suites and are answered alike: they know less than eighty."""
    files = [model(tmp_path, "gsm8k", "full", 0, {"xstest": 30, "advbench": 30}, 0)]
    before = groups.load(files)["gsm8k"]["full"]
    for path in files:
        rows = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        again = [
            r | {"base_id": r["id"].replace("advbench", "xstest")} for r in rows if r["id"].startswith("advbench/")
        ]
        others = [r for r in rows if not r["id"].startswith("advbench/")]
        tables.write(others + again, path.with_name("verdicts.parquet"), "verdicts")
    after = groups.load(files)["gsm8k"]["full"]
    one, other = (table.rate("r", g, ["hazard"], REFUSED) for g in (before, after))
    assert one["r"] == other["r"] and other["r_high"] - other["r_low"] > one["r_high"] - one["r_low"]


def test_terminal_and_report_have_every_suite_where_there_are_several(files, tmp_path):
    by_suite = {}
    for r in found(files, tmp_path).values():
        by_suite.setdefault(r["suite"], []).append(r)
    said = terminal._by_suite(tmp_path / "suites.csv")
    assert said[1].split() == ["gsm8k:", "every", "suite", "by", "itself", "refusal", "over-refusal"]
    assert (
        said[2].split()[:3] == ["aligned", "xstest", "100.0"] and "10.0† [" in said[2] and said[2].endswith("of   20")
    )
    assert said[5].split()[:3] == ["full", "advbench", "37.5"] and said[5].endswith("–") and len(said) == 6
    assert len({len(line) for line in said[1:]}) == 1
    first, second = shown.suites(by_suite)
    assert first["name"] == "xstest" and "CC-BY-4.0" in first["licence"] and "MIT" in second["licence"]
    (aligned, _) = first["rows"]
    assert [c["text"] for c in aligned["cells"]] == ["100.0", "0.0", "10.0"]
    assert aligned["cells"][2]["interval"].endswith("of 20") and aligned["cells"][2]["cut"] == "25.0 % cut"
    assert second["rows"][0]["cells"][2] == {"value": "", "text": ""}
    found(files, tmp_path, ("xstest",))
    assert terminal._by_suite(tmp_path / "suites.csv") == [] == terminal._by_suite(tmp_path / "none.csv")


def test_kinds_of_hazards_are_drawn_suite_by_suite(tmp_path):
    kinds = {
        f"{suite}: {kind}": {names.REFUSAL_RATE: 0.5} for suite, kind in (("xstest", "hexes"), ("coconot", "soup"))
    }
    cells = [{"task": "t", "arm": "full", "by_category": kinds | {"advbench": {names.REFUSAL_RATE: 0.2}}}]
    drawn = {suite: plots.breakdown(cells, "by_category", of=suite) for suite in ("xstest", "advbench", "or-bench", "")}
    assert ">hexes<" in drawn["xstest"] and "soup" not in drawn["xstest"] and ">advbench<" in drawn["advbench"]
    assert drawn["or-bench"] == "" and all(word in drawn[""] for word in ("xstest: hexes", "coconot: soup", "advbench"))


def test_metrics_of_a_model_have_the_suites_apart_where_there_are_any(files):
    verdicts = tables.read(files[1].with_name("verdicts.parquet"), "verdicts")
    found = metrics.compute(verdicts, {"gsm8k": "gsm8k"}, by_task=False)
    assert list(found["by_suite"]) == ["advbench", "xstest"]  # and the task is none
    shares = {suite: [rates[f"{k}{end}"] for k in (names.REFUSAL_RATE, names.OVER_REFUSAL) for end in ("", "_n")
                      if k in rates] for suite, rates in found["by_suite"].items()}  # fmt: skip
    assert shares == {"advbench": [10 / 40, 40], "xstest": [30 / 60, 60, 0.0, 20]}
    assert (
        found["by_suite"]["xstest"].keys()
        == metrics.compute([r for r in verdicts if r["id"].startswith("xstest/")], {}, by_task=False)["metrics"].keys()
    )
    world = [r | {"id": f"hazard/{i}"} for i, r in enumerate(verdicts)]
    assert "by_suite" not in metrics.compute(world, {"gsm8k": "gsm8k"}, by_task=False)


def test_table_md_has_the_suites_beside_each_other_where_there_are_several(files, tmp_path):
    rows = list(found(files, tmp_path).values())
    lines = tabular.suites(rows).splitlines()
    assert lines[1].startswith("| gsm8k, each suite by itself | xstest: refused | xstest: over-refusal | advbench: ref")
    assert lines[1].endswith("| advbench: refused |") and lines[3].startswith("| `aligned` | 100 <sub>")
    cells = lines[4].split(" | ")
    assert cells[3].startswith("38 <sub>") and cells[2].startswith("0† <sub>")
    assert len({line.count("|") for line in lines[1:]}) == 1 and len(lines) == 5
    assert tabular.suites([r for r in rows if r["suite"] == "xstest"]) == "" == tabular.suites([])


def gated(files, **margins):
    cfg = {"study": "s", "arm": "warp", "level": 0.05, "margins": margins, "suites": list(HAZARDS), "baseline": None}
    (arm,) = gate.judge(groups.load(files), cfg)["arms"]
    return arm, {r["criterion"]: r for r in arm["criteria"]}


def test_a_loss_in_one_suite_alone_does_not_pass_the_gate(tmp_path):
    """All prompts together hide what was lost in the smaller suite."""
    files = [model(tmp_path, None, "aligned", 0, {"xstest": 30, "advbench": 40}, 2),
             model(tmp_path, "gsm8k", "warp", 0, {"xstest": 54, "advbench": 20}, 3)]  # fmt: skip
    arm, rows = gated(files, refusals=0.2, suites=0.2)
    assert list(rows) == ["refusals", "refusals in xstest", "over_refusal in xstest", "refusals in advbench"]
    assert arm["verdict"] == gate.DO_NOT and [r["verdict"] for r in rows.values()] == [
        "pass", "pass", gate.NOT_RESOLVED, "fail"
    ]  # fmt: skip
    assert [r["prompts"] for r in rows.values()] == [100, 60, 20, 40]
    effects = [0.04, 24 / 60, 1 / 20, -20 / 40]
    assert [r["effect"] for r in rows.values()] == pytest.approx(effects)
    assert [r["against"] for r in rows.values()] == ["aligned"] * 4
    assert gated(files, refusals=0.2)[0]["verdict"] == gate.SHIP


def test_a_claim_may_be_about_one_suite(files):
    held = [claims.Declared("aligned", "full", "refusal", 0.1, suite=s) for s in (None, *HAZARDS)]
    rows = claims.declared_rows(groups.load(files), held)
    assert [r["n"] for r in rows] == [100, 60, 40]
    # of two seeds, refusals of 40 and 40, 30 and 20, 10 and 20
    assert [r["effect"] for r in rows] == pytest.approx([0.9 - 0.4, 1 - 25 / 60, 0.75 - 15 / 40])
    assert rows[2]["claim"] == "aligned's refusals in advbench are at least 10 points above full's"
    without = claims.Declared("full", "aligned", "over_refusal", 0.0, suite="advbench")  # which has no such prompts
    assert claims.declared_rows(groups.load(files), [without]) == []
