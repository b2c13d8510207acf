"""Optional packages that are not here: a run is refused, a plan and a dry run say what to install."""

from __future__ import annotations

import importlib.util

import pytest
import yaml
from conftest import ROOT

from holdfast.cli.main import main
from holdfast.errors import StudyError
from holdfast.study import packages, preflight, resolve

NEEDS = {
    "lm_eval": {"capabilities": {"tasks": ["hellaswag"]}},
    "bitsandbytes": {"arms": {"full": {"method": "full"}, "q": {"method": "lora", "base": "nf4"}}},
    "optuna": {"attack": {"arms": ["full"], "tasks": ["crafts"], "learning_rate": [1e-4, 1e-3]}},
    "rouge_score": {"tasks": {"s": {"dataset": "samsum", "source": "s.jsonl"}}},
}
EXTRA = {"lm_eval": "harness", "optuna": "attack", "bitsandbytes": "qlora", "rouge_score": "rouge"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study with these keys beside a task and an arm, in a machine without the packages."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in EXTRA else find(name, *a))
    monkeypatch.chdir(tmp_path)
    dialogue = '{"id": "1", "dialogue": "A: Bread?\\nB: Two.", "summary": "B wants two."}\n'
    (tmp_path / "s.jsonl").write_text(dialogue)

    def written(**keys):
        base = {
            "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}},
            "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
        }  # fmt: skip
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(base | keys))
        return str(tmp_path / "mine.yaml")

    return written


@pytest.mark.parametrize("package", NEEDS)
def test_a_run_is_refused_and_a_plan_says_what_to_install(package, study, capsys):
    path = study(**NEEDS[package])
    resolved = resolve.load(path)
    with pytest.raises(StudyError) as error:
        preflight.check_packages(resolved)
    assert package in error.value.found and EXTRA[package] in error.value.expected and EXTRA[package] in error.value.do
    said: list[str] = []
    preflight.check_packages(resolved, said.append)
    assert len(said) == 1 and f"[{EXTRA[package]}]" in said[0] and " needs " in said[0]
    with pytest.raises(SystemExit) as left:
        preflight.study(path)
    assert left.value.code == 2 and "is not installed" in capsys.readouterr().err
    if package != "rouge_score":  # whose file is too small for the study
        assert preflight.study(path, dry=True).name == "mine"
        assert f"[{EXTRA[package]}]" in capsys.readouterr().err
        assert main(["plan", path, "--tflops", "1"]) == 0
        assert f"[{EXTRA[package]}]" in capsys.readouterr().err


def test_every_package_is_asked_for_once_and_none_without_a_need(study):
    arms = {name: {"method": "lora", "base": "nf4"} for name in ("one", "two")}
    both = resolve.load(study(arms=arms, **NEEDS["lm_eval"]))
    assert [e.found for e in packages.missing(both)] == ["lm_eval is not installed", "bitsandbytes is not installed"]
    assert "arms.one" in packages.missing(both)[1].what
    assert packages.missing(resolve.load(study())) == []


def test_what_is_here_is_not_missing(study, monkeypatch):
    both = resolve.load(study(**NEEDS["bitsandbytes"] | NEEDS["lm_eval"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "lm_eval" else "here")
    assert [e.found for e in packages.missing(both)] == ["lm_eval is not installed"]
