"""The study file: what is accepted, and the one block that says what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from bad_input import GOOD, changed, load
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, StudyError
from holdfast.study import keys as studies
from holdfast.study import resolve


def test_a_study_resolves_to_cells_and_masks(tmp_path):
    s = load(tmp_path, changed("seeds", [0, 1]))
    assert s.name == "mine"
    assert len(s.cells) == 2 * 2 * 2
    assert list(s.masks) == ["safety-importance-entry-0.1"]
    assert s.bases == ["safety"]
    assert s.arms["full"].learning_rates == {"crafts": 6e-4, "gsm8k": 6e-4}


def test_the_constitution_judge_is_asked_about_the_named_tasks(tmp_path):
    asked = changed("evaluation.judges", ["world", "constitution"])
    assert load(tmp_path, GOOD).judging.opinions("crafts") == []
    assert load(tmp_path, asked).judging.opinions("gsm8k") == ["constitution"]
    asked["constitution"] = {"tasks": ["crafts"]}
    found = load(tmp_path, asked).judging
    assert [found.opinions(t) for t in (None, "crafts", "gsm8k")] == [["constitution"], ["constitution"], []]
    asked["constitution"] = {"arms": ["warp"]}
    found = load(tmp_path, asked).judging
    assert found.opinions(None) == found.opinions("gsm8k", "warp") == ["constitution"]
    assert found.opinions("gsm8k", "full") == [] and found.verdicts_cfg("gsm8k", "full")["asked"] == []


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (ROOT / "config").glob("*.yaml") if not p.stem.startswith("chosen"))
)
def test_every_shipped_study_is_valid(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert resolve.load(name).cells


def test_a_study_is_laid_over_the_one_it_extends(tmp_path):
    load(tmp_path, GOOD | {"seeds": [0, 1]}, "below.yaml")
    load(tmp_path, {"extends": "below.yaml", "arms": {"warp": {"freeze_fraction": 0.3}}}, "middle.yaml")
    s = load(tmp_path, {"extends": "middle.yaml", "arms": {"full": None, "lora": {"method": "lora"}}}, "top.yaml")
    assert s.name == "top" and s.study.seeds == (0, 1)
    assert list(s.arms) == ["warp", "lora"]
    assert s.arms["warp"].settings["gsm8k"]["freeze_fraction"] == 0.3


def test_a_circle_of_studies_is_refused(tmp_path):
    (tmp_path / "other.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(StudyError, match="circle"):
        load(tmp_path, GOOD | {"extends": "other.yaml"})


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


@settings(max_examples=2000, deadline=None)
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
        "import sys; from holdfast.study import preflight; preflight.study('demo');"
        "print([m for m in ('torch', 'pandas', 'transformers', 'mlflow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_controls_of_a_swept_arm_are_the_trained_arms_of_its_method():
    assert resolve.load("frontier", ROOT / "config").choose_cfg()["controls"] == {
        "warp-original": "warp", "warp-randmask": "warp", "targets-only": "full",
    }  # fmt: skip
    assert resolve.load("frontier-methods", ROOT / "config").choose_cfg()["controls"] == {}


@pytest.mark.parametrize(
    "change",
    ["base: {pretraining: {epochs: .inf}}", "arms: {full: {method: lora, alpha: .inf}}",
     "tasks: {crafts: {dataset: crafts, training: {max_grad_norm: .inf}}}", "choose: {tolerance: .nan}"],
)  # fmt: skip
def test_numbers_are_finite(tmp_path, change):
    path = tmp_path / "mine.yaml"
    base = "tasks: {crafts: {dataset: crafts}}\narms: {full: {method: full}}\n"
    key = change.split(":")[0]
    lines = [line for line in base.splitlines() if not line.startswith(key)]
    path.write_text("\n".join([*lines, change]))
    with pytest.raises(StudyError, match="is not valid") as error:
        resolve.load(str(path), ROOT / "config")
    assert "finite" in error.value.expected


def test_methods_name_the_gram_matrices_they_read():
    study = resolve.load("smoke-methods", ROOT / "config")
    grams = {name: arm.gram for name, arm in study.arms.items() if arm.gram}
    assert grams == {"safe-delta": "all", "lead-merge": "all", "lssf": "unit", "nlsr": "response", "salora": "response"}
    plain = study.every_gram_cfg("all")
    assert plain["tokens"] == study.study.basis.tokens and len(plain["modules"]) == 7 and "unit" not in plain
    assert study.every_gram_cfg("unit") == plain | {"unit": True}
    assert study.every_gram_cfg("response") == plain | {"tokens": "response"}
    assert {"unaligned", "base"} <= set(study.roles)
