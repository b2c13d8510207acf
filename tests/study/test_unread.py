"""Settings that nothing reads are said, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from holdfast.errors import StudyError
from holdfast.study import resolve, unread
from holdfast.study.keys import Study
from holdfast.study.structure import Structure

PLAIN = {"tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}}}
RESTA = {"full": {"method": "full"}, "back": {"method": "resta"}}
NAMED = {"arms": {"full": {"method": "full", "learning_rate": 1e-5}}, "safety": {"training": {"learning_rate": 1e-5}}}
JUDGED = {"judges": ["world", "constitution"]}


def _arm(method, **settings):
    return {"arms": {"full": {"method": "full"}, "mine": {"method": method, **settings}}}


CASES = [
    ({"base": {"revision": "main"}}, ["base.revision"]),
    ({"base": {"source": "./m", "blocks": 2, "seed": 3, "heads": 4}, **NAMED}, ["base.blocks, base.heads"]),
    ({"safety": {"columns": {"prompt": "q"}}}, ["safety.columns"]),
    ({"safety": {"check": "strict"}, "preferences": {"columns": {}}}, ["safety.check", "preferences.columns"]),
    ({"preferences": {"columns": {}, "rows": 9}}, ["preferences.columns, preferences.rows"]),
    ({"preferences": {"rows": 900}, "arms": RESTA}, []),
    ({"preferences": {"columns": {}}, "arms": RESTA}, ["preferences.columns"]),
    ({"unaligned": {"rows": 9}}, ["unaligned.rows"]),
    ({"unaligned": {"rows": 9}, "arms": RESTA}, []),
    ({"tasks": {"crafts": {"dataset": "crafts", "training": {"learning_rate": 0.5}}}},
     ["tasks.crafts.training.learning_rate"]),
    ({"basis": {"rows": 50}, "safety": {"hazards": 40}},
     ["basis.rows: 50 asked for, more than the 40 of safety.hazards: as many are taken as there are"]),
    ({"preferences": {"rows": 90}, "arms": RESTA},
     ["unaligned.rows: 200 asked for, more than the 90 of preferences.rows: as many are taken as there are"]),
    ({"preferences": {"rows": 60}, **_arm("derta", prefix_ratio=0.5)},
     ["arms.mine.prefix_ratio: 400 rows asked for on crafts, more than the 60 of preferences.rows: as many are taken "
      "as there are"]),
    ({"safety": {"hazards": 250}, "basis": {"rows": 9}, **_arm("lead", mix=0.5)},
     ["arms.mine.mix: 400 rows asked for on crafts, more than the 250 of safety.hazards: as many are taken as there "
      "are"]),
    ({"safety": {"benign": 59}, **_arm("safety-mix", benign_ratio=0.1)},
     ["arms.mine.benign_ratio: 80 rows asked for on crafts, more than the 59 of safety.benign: as many are taken as "
      "there are"]),
    ({"safety": {"hazards": 79}, "basis": {"rows": 9}, **_arm("safety-mix", count="absolute", number=20)}, []),
    ({**_arm("derta", prefix_ratio=0.0006, transition_ratio=0)},
     ["arms.mine.prefix_ratio: 0.0006 of the rows of crafts is less than one: none is added"]),
    (_arm("derta", prefix_ratio=0.0007, transition_ratio=0), []),
    (_arm("lead", mix=0.00124), ["arms.mine.mix: 0.00124 of the rows of crafts is less than one: none is added"]),
    (_arm("lead", mix=0.00126), []),
    (_arm("safety-mix", ratio=0.0001),
     ["arms.mine.ratio: 0.0001 of the rows of crafts is less than one: none is added"]),
    (_arm("safety-mix", ratio=0.0001, count="round"), []),
    (_arm("lisa", rest_fraction=1, strength=2.0), ["arms.mine.strength"]),
    (_arm("lisa", rest_fraction=0.9, strength=2.0), []),
    (_arm("task-vectors", fusion="sum", sweep={"density": [0.1, 0.5]}),
     ["arms.mine.sweep: mine.density-0.1 and mine.density-0.5 are one model: nothing reads what they differ in"]),
    (_arm("task-vectors", sweep={"density": [0.1, 0.5]}), []),
    (_arm("somf", fusion="dare", density=0.3, sweep={"drop": [0.1, 0.5]}), ["arms.mine.density"]),
    (_arm("somf", density=0.3, sweep={"fusion": ["dare", "ties"]}), []),
    (_arm("safety-mix", number=500), ["arms.mine.number"]),
    (_arm("safety-mix", count="absolute", ratio=0.5, number=9), ["arms.mine.ratio"]),
    (_arm("safety-mix", count="absolute", number=9), []),
    (_arm("warp", mask="none", freeze_fraction=0.5), ["arms.mine.freeze_fraction"]),
    (_arm("warp", freeze_fraction=0.5), []),
    (_arm("somf", fusion="dare", density=0.3, drop=0.1), ["arms.mine.density"]),
    (_arm("safe-lora", threshold=0.9, number=3), ["arms.mine.threshold"]),
    ({"tasks": {"crafts": {"dataset": "crafts"}, "news": {"dataset": "agnews"}}, "arms": {"full": {"method": "full",
      "learning_rate": {"news": 1e-5}}}},
     ["arms.full.learning_rate names no crafts: the method's is taken"]),
    ({"evaluation": {"columns": {"set": "label"}}}, ["evaluation.columns"]),
    ({"constitution": {"source": "x/y", "rank": 4}, "evaluation": JUDGED}, ["constitution.rank"]),
    ({"constitution": {"rank": 4}, "evaluation": JUDGED}, []),
    ({"constitution": {"rank": 4}}, ["constitution.rank"]),
    ({"capabilities": {"limit": 5}}, ["capabilities.limit"]),
    ({"capabilities": {"limit": 5, "tasks": ["mmlu"]}}, []),
    ({"safety": {"source": "a.csv", "columns": {"prompt": "q"}, "check": "off"}, "base": {"blocks": 2}}, []),
]  # fmt: skip


def _of(change):
    return Structure("s", Study.model_validate(PLAIN | change), Path("s.yaml"), {})


@pytest.mark.parametrize(("change", "said"), CASES)
def test_what_nothing_reads_is_said(change, said):
    lines = list(unread.lines(_of(change)))
    assert [line.split(": not read")[0] for line in lines] == said


@pytest.mark.parametrize(
    ("chosen", "said"),
    [({}, True), ({"mine": {"crafts": {"learning_rate": 1e-4}}}, False),
     ({"warp": {"crafts": {"learning_rate": 1e-4}}}, False),
     ({"warp": {"news": {"learning_rate": 1e-4}}}, True),
     ({"mine": {"crafts": {"settings": {"freeze_fraction": 0.1}}}, "warp": {"crafts": {"learning_rate": 1e-4}}}, True)],
)  # fmt: skip
def test_a_rate_that_a_sweep_chose_is_not_missed(chosen, said):
    change = {"tasks": {"crafts": {"dataset": "crafts"}, "news": {"dataset": "agnews"}},
              "arms": {"mine": {"method": "warp", "learning_rate": {"news": 1e-5}}}}  # fmt: skip
    found = Structure("s", Study.model_validate(PLAIN | change), Path("s.yaml"), chosen)
    lines = list(unread.lines(found))
    assert lines == ["arms.mine.learning_rate names no crafts: the method's is taken"] * said


def test_defaults_are_not_said():
    assert list(unread.lines(_of({}))) == []


GIVEN = {"base": {"source": "./m"}}
SAID = "learning_rate: none is named, and what is taken was chosen for the tiny model: "


@pytest.mark.parametrize(("change", "said"), [
    (GIVEN, ["safety.training 0.0003; arms.full 0.0006"]),
    (GIVEN | NAMED, []),
    (GIVEN | NAMED | {"safety": {"training": {"epochs": 1}}}, ["safety.training 0.0003"]),
    (NAMED | _arm("warp") | {"aligned": {"source": "./m"}}, ["arms.full 0.0006; arms.mine 0.001"]),
    (GIVEN | NAMED | {"arms": {"full": {"method": "full", "sweep": {"learning_rate": [1e-5, 2e-5]}}}}, []),
    (GIVEN | NAMED | {"arms": NAMED["arms"] | {"back": {"method": "resta"}}}, []),
])  # fmt: skip
def test_rates_that_were_chosen_for_another_model_are_said(change, said):
    lines = [line for line in unread.lines(_of(change)) if line.startswith("learning_rate")]
    assert lines == [SAID + each for each in said]


READS = [("warp", {}), ("lora-wsr", {}), ("full", {"trainable": "targets"})]
DOES_NOT = [("full", {}), ("lora", {}), ("safety-mix", {}), ("resta", {"of": "full"})]


@pytest.mark.parametrize(("method", "settings", "reads"), [(*m, True) for m in READS] + [(*m, False) for m in DOES_NOT])
def test_targets_that_nothing_reads_are_refused(tmp_path, method, settings, reads):
    arms = {"full": {"method": "full"}, "mine": {"method": method, "targets": ["q_proj"], **settings}}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PLAIN | {"arms": arms, "constitution": {
        "guidelines_file": str(ROOT / "config/guidelines/world.txt")}}))  # fmt: skip
    if reads:
        assert resolve.load(str(path)).arms["mine"].targets == ("q_proj",)
    else:
        with pytest.raises(StudyError, match="arms.mine.targets means nothing"):
            resolve.load(str(path))


def test_no_shipped_study_writes_down_what_nothing_reads():
    for path in sorted((ROOT / "config").glob("*.yaml")):
        if not path.name.startswith("chosen"):
            assert list(unread.lines(resolve.load(path.stem, ROOT / "config"))) == [], path.name
