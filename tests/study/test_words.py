"""Words in a study that could be read in two ways are read in one, and what cannot be read is one block."""

from __future__ import annotations

import os

import pytest
import yaml
from conftest import ROOT

from holdfast.errors import HoldfastError, StudyError
from holdfast.study import reading, resolve

PLAIN = f"""
tasks: {{crafts: {{dataset: crafts}}}}
arms: {{full: {{method: full}}, warp: {{method: warp}}}}
constitution: {{guidelines_file: {ROOT}/config/guidelines/world.txt}}
"""


def load(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(PLAIN + text)
    return resolve.load(str(tmp_path / "mine.yaml"), tmp_path)


def test_off_is_a_word(tmp_path):
    s = load(tmp_path, "safety: {check: off}\npreferences: {check: off}").study
    assert s.safety.check == s.preferences.check == "off"


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 1e-3), ("1E3", 1000.0), ("+0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("-3", -3), ("0", 0), ("0100", "0100"),
    ("1:30", "1:30"), ("0x10", "0x10"), ("0o17", "0o17"), ("1_000", "1_000"), ("yes", "yes"), ("No", "No"),
    ("on", "on"), ("off", "off"), ("true", True), ("False", False), ("null", None), ("~", None), ("1.5.2", "1.5.2"),
    (".inf", float("inf")), ("e5", "e5"),
])  # fmt: skip
def test_numbers_and_truth_are_those_of_yaml_1_2(tmp_path, text, value):
    (tmp_path / "a.yaml").write_text(f"key: {text}\n")
    found = reading.read_yaml(tmp_path / "a.yaml")["key"]
    assert found == value and type(found) is type(value)


NUMBERS = [
    "evaluation: {prompts_per_set: true}", "evaluation: {max_new_tokens: yes}", "seeds: [false]",
    "base: {blocks: true}", "safety: {training: {epochs: true}}",
    "choose: {tolerance: true}\nevaluation: {split: validation}",
    "arms: {full: {method: full, learning_rate: true}}", "arms: {x: {method: safety-mix, ratio: true}}",
    "arms: {x: {method: lora, rank: true}}", "arms: {x: {method: warp, freeze_fraction: false}}",
]  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_true_is_not_the_number_one(tmp_path, text):
    data = yaml.safe_load(PLAIN) | yaml.load(text, reading._UniqueLoader)
    with pytest.raises(StudyError):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
        resolve.load(str(tmp_path / "mine.yaml"), tmp_path)


def test_truth_where_truth_is_asked(tmp_path):
    text = "tasks: {news: {dataset: agnews, stratify: true}}"
    (tmp_path / "mine.yaml").write_text(PLAIN.replace("tasks: {crafts: {dataset: crafts}}", text))
    assert resolve.load(str(tmp_path / "mine.yaml"), tmp_path).study.tasks["news"].stratify is True


def test_merge_keys_bring_what_is_not_written(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert reading.read_yaml(tmp_path / "a.yaml")["b"] == {"x": 1, "y": 3}
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 3, y: 4}\n")
    with pytest.raises(StudyError, match="not valid YAML"):
        reading.read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "? {a: 1}\n: 2\n", "? null\n: 2\n", "{[1, 2]: 3}\n"])
def test_a_key_that_is_no_word_is_one_block(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(StudyError, match="not valid YAML"):
        reading.read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("value", ["null", "[1]", "{crafts: 0.001}"])
@pytest.mark.parametrize("key", ["learning_rate", "freeze_fraction"])
def test_a_sweep_takes_plain_values(tmp_path, key, value):
    arms = f"arms: {{warp: {{method: warp, sweep: {{{key}: [{value}, 0.1]}}}}}}"
    with pytest.raises(StudyError, match=f"arms.warp.sweep.{key}"):
        (tmp_path / "mine.yaml").write_text(PLAIN.replace("arms: {full: {method: full}, warp: {method: warp}}", arms))
        resolve.load(str(tmp_path / "mine.yaml"), tmp_path)


@pytest.mark.parametrize("key", ["safety.columns", "evaluation.columns", "preferences.columns"])
@pytest.mark.parametrize("name", ["Kind", "knd", "text"])
def test_a_column_that_we_do_not_have_cannot_be_named(tmp_path, key, name):
    part, _ = key.split(".")
    with pytest.raises(StudyError, match=key):
        load(tmp_path, f"{part}: {{source: a.csv, columns: {{{name}: type}}}}")


PATHS = ["~nosuchuser/rows.csv", "~tmp.csv", "x" * 300 + ".csv", "a/" + "y" * 300, "loop.csv"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["safety.source", "evaluation.source", "base.source", "chosen", "extends"])
def test_a_path_that_is_none_is_one_block(tmp_path, key, path):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    if key == "base.source" and not path.startswith(("~", ".", "/")):
        path = f"./{path}"
    part, _, rest = key.partition(".")
    with pytest.raises(HoldfastError) as error:
        load(tmp_path, f"{part}: {{{rest}: {path}}}" if rest else f"{part}: {path}")
    assert "\n  do:" in error.value.block()


def test_a_study_that_extends_a_link_to_itself_is_one_block(tmp_path):
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(StudyError):
        load(tmp_path, "extends: loop.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_block(tmp_path):
    (tmp_path / "mine.yaml").write_text(PLAIN)
    (tmp_path / "mine.yaml").chmod(0)
    with pytest.raises(StudyError, match="cannot be read"):
        resolve.load(str(tmp_path / "mine.yaml"), tmp_path)


@pytest.mark.parametrize("seed", [2**32, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, seed):
    for text in (f"seeds: [{seed}]", f"world: {{seed: {seed}}}", f"base: {{seed: {seed}}}"):
        with pytest.raises(StudyError):
            load(tmp_path, text)
