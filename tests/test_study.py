"""The study file: what is accepted, and the one block that says what is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import resolve
from holdfast import study as studies
from holdfast.errors import HoldfastError, MethodError, StudyError

GOOD = {
    "tasks": {"crafts": {"dataset": "crafts"}, "gsm8k": {"dataset": "gsm8k"}},
    "arms": {"full": {"method": "full"}, "warp": {"method": "warp", "freeze_fraction": 0.1}},
}


def load(tmp_path, data, name="mine.yaml"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return resolve.load(str(path))


def changed(path, value):
    """GOOD with one key set; `path` uses dots."""
    data = json.loads(json.dumps(GOOD))
    place = data
    *parents, last = path.split(".")
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return data


def test_a_study_resolves_to_cells_and_masks(tmp_path):
    s = load(tmp_path, changed("seeds", [0, 1]))
    assert s.name == "mine"
    assert len(s.cells) == 2 * 2 * 2
    assert list(s.masks) == ["safety-importance-entry-0.1"]
    assert s.bases == ["safety"]
    assert s.arms["full"].learning_rates == {"crafts": 6e-4, "gsm8k": 6e-4}


def test_the_constitution_judge_is_asked_about_the_named_tasks(tmp_path):
    asked = changed("evaluation.judges", ["world", "constitution"])
    assert load(tmp_path, GOOD).judged_cells == []
    assert len(load(tmp_path, asked).judged_cells) == 4
    asked["constitution"] = {"tasks": ["crafts"]}
    assert {cell[0] for cell in load(tmp_path, asked).judged_cells} == {"crafts"}


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (ROOT / "config").glob("*.yaml") if not p.stem.startswith("chosen"))
)
def test_every_shipped_study_is_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert resolve.load(name).cells


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("sede", [1], ["unknown key 'sede'", "did you mean 'seeds'"]),
        ("arms.warp.freeze_fractoin", 0.2, ["arms.warp.freeze_fractoin", "did you mean 'freeze_fraction'"]),
        ("arms.warp.freeze_fraction", 1.5, ["arms.warp.freeze_fraction", "less than 1"]),
        ("arms.warp.freeze_fraction", "a lot", ["arms.warp.freeze_fraction"]),
        ("arms.warp.method", "wrap", ["There is no method 'wrap'", "warp"]),
        ("arms.warp.tasks", ["gsm9k"], ["names a task", "gsm9k"]),
        ("arms.full.learning_rate", 3, ["arms.full.learning_rate", "out of range"]),
        ("arms.full.sweep", {"freeze": [1]}, ["arms.full.sweep.freeze"]),
        ("arms.warp.targets", ["o_proj"], ["arms.warp.targets", "o_proj", "basis.modules"]),
        ("constitution.tasks", ["craft"], ["constitution.tasks", "craft", "crafts | gsm8k"]),
        ("arms.base", {"method": "full"}, ["model role"]),
        ("arms.warp.rank_fraction", 0.05, ["arms.warp", "at least freeze_fraction"]),
        ("tasks.crafts.dataset", "ag_news", ["tasks.crafts.dataset", "agnews"]),
        ("tasks.crafts.trian_rows", 3, ["tasks.crafts.trian_rows", "did you mean 'train_rows'"]),
        ("tasks.crafts.train_rows", 0, ["tasks.crafts.train_rows"]),
        ("tasks.crafts.source", "no/such/file.csv", ["tasks.crafts.source", "does not exist"]),
        ("tasks.crafts.training.epochs", -1, ["tasks.crafts.training.epochs"]),
        ("tasks", {}, ["tasks"]),
        ("tasks.Bad Name", {"dataset": "crafts"}, ["Bad Name"]),
        ("arms.x/;y", {"method": "full"}, ["arms.x/;y"]),
        ("safety.source", "nowhere.jsonl", ["safety.source", "does not exist"]),
        ("tasks.crafts.source", "https://x.org/a.csv", ["tasks.crafts", "not from an address"]),
        ("tasks.crafts.stratify", True, ["tasks.crafts", "stratify needs labels"]),
        ("safety.source", "hub", ["safety.source", "does not exist"]),
        ("evaluation.split", "train", ["evaluation.split", "test"]),
        ("seeds", [1, 1], ["seeds"]),
        ("seeds", [], ["seeds"]),
        ("base.heads", 5, ["heads must divide"]),
        ("base.pretraining.docs", 5, ["base.pretraining.docs", "did you mean 'documents'"]),
        ("basis.modules", ["q_proj", "query"], ["basis.modules"]),
        ("choose", {"file": "../x.yaml"}, ["choose.file"]),
        ("choose", {}, ["validation"]),
        ("chosen", "nope.yaml", ["nope.yaml"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path, path, value, says):
    with pytest.raises(HoldfastError) as error:
        load(tmp_path, changed(path, value))
    block = error.value.block()
    assert all(word in block for word in says), block
    assert block.count("\n") <= 3 and "Traceback" not in block


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "tasks: {a: 1}\ntasks: {b: 2}",
        "\x00",
        "a: !!python/object:os.system x",
        "just words",
        "a: &x [*x]",
    ],
)
def test_text_that_is_no_study(tmp_path, text):
    with pytest.raises(StudyError):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["x y.yaml", "UP.yaml", "-x.yaml", "a;rm.yaml"])
def test_names_that_cannot_be_folders(tmp_path, name):
    with pytest.raises(StudyError, match="folder"):
        load(tmp_path, GOOD, name)


def test_a_missing_study_names_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'demo'"):
        resolve.load("dmeo", ROOT / "config")


def test_unknown_method_lists_all():
    with pytest.raises(MethodError, match="full"):
        from holdfast import registry

        registry.header("lorra")


def test_a_study_is_laid_over_the_one_it_extends(tmp_path):
    load(tmp_path, GOOD | {"seeds": [0, 1]}, "below.yaml")
    load(tmp_path, {"extends": "below.yaml", "arms": {"warp": {"freeze_fraction": 0.3}}}, "middle.yaml")
    s = load(tmp_path, {"extends": "middle.yaml", "arms": {"full": None, "lora": {"method": "lora"}}}, "top.yaml")
    assert s.name == "top" and s.study.seeds == (0, 1)
    assert list(s.arms) == ["warp", "lora"]
    assert s.arms["warp"].settings["gsm8k"]["freeze_fraction"] == 0.3


@pytest.mark.parametrize(
    ("extends", "says"),
    [("nowhere.yaml", "nowhere.yaml"), ("mine.yaml", "circle"), ("other.yaml", "circle"), (3, "extends must be")],
)
def test_a_study_that_extends_nothing_sensible(tmp_path, extends, says):
    (tmp_path / "other.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(StudyError, match=says):
        load(tmp_path, GOOD | {"extends": extends})


def test_sweeps_make_one_arm_per_combination(tmp_path):
    s = load(tmp_path, changed("arms.warp.sweep", {"learning_rate": [1e-3, 2e-3], "freeze_fraction": [0.1, 0.3]}))
    assert sorted(a for a in s.arms if a.startswith("warp")) == [
        "warp.freeze-0.1.lr-0.001", "warp.freeze-0.1.lr-0.002", "warp.freeze-0.3.lr-0.001", "warp.freeze-0.3.lr-0.002",
    ]  # fmt: skip
    assert s.arms["warp.freeze-0.3.lr-0.002"].learning_rates["gsm8k"] == 2e-3
    assert len(s.masks) == 2


def test_chosen_settings_fill_what_the_study_leaves_open(tmp_path):
    (tmp_path / "chosen.yaml").write_text(
        "warp: {crafts: {learning_rate: 3e-3}}\nfull: {gsm8k: {learning_rate: 0.001}}\n"
    )
    data = changed("chosen", "chosen.yaml")
    data["arms"]["full"]["learning_rate"] = {"crafts": 5e-4}
    s = load(tmp_path, data)
    assert s.arms["warp"].learning_rates == {"crafts": 3e-3, "gsm8k": 1e-3}
    assert s.arms["full"].learning_rates == {"crafts": 5e-4, "gsm8k": 1e-3}


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*studies.Study.model_fields, "x", "method", "dataset"]) | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_yaml_gives_a_study_or_one_block(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.yaml"
    path.write_text(yaml.safe_dump(value))
    try:
        resolve.load(str(path))
    except HoldfastError as error:
        assert error.block()


def test_planning_never_imports_torch_or_pandas():
    code = (
        "import sys; from holdfast import preflight; preflight.study('demo');"
        "print([m for m in ('torch', 'pandas', 'transformers', 'mlflow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_controls_of_a_swept_arm_are_the_trained_arms_of_its_method():
    assert resolve.load("frontier", ROOT / "config").choose_cfg()["controls"] == {
        "warp-original": "warp", "warp-randmask": "warp", "targets-only": "full",
    }  # fmt: skip
    assert resolve.load("frontier-methods", ROOT / "config").choose_cfg()["controls"] == {}
