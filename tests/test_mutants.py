"""The list of planted faults fits the code: every old text is there exactly once, and what it becomes is Python."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import mutants
import pytest
from conftest import ROOT


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.name)
def test_every_fault_can_be_planted(mutant):
    text = (ROOT / mutants.LIBRARY / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert ast.dump(ast.parse(text.replace(mutant.old, mutant.new))) != ast.dump(ast.parse(text))
    for path in (a for a in mutants._arguments(mutant.tests) if a.startswith("tests/")):
        assert (ROOT / path).exists()


def test_there_are_faults_of_every_wing_that_computes():
    assert len(mutants.MUTANTS) >= 60
    wings = {Path(m.file).parts[0] for m in mutants.MUTANTS}
    assert wings >= {"methods", "warp", "merge", "judges", "statistics.py"}
    assert all(m.equivalent or m.old != m.new for m in mutants.MUTANTS)
    methods = {p.name for p in (ROOT / mutants.LIBRARY / "methods").glob("*.py") if "def " in p.read_text()}
    assert methods <= {Path(m.file).name for m in mutants.MUTANTS}


def test_a_fault_is_killed_by_a_test_that_fails_and_survives_one_that_does_not(tmp_path):
    (tmp_path / mutants.LIBRARY).mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / mutants.LIBRARY / "__init__.py").touch()
    code = tmp_path / mutants.LIBRARY / "one.py"
    code.write_text("ONE = 1\nTWO = 2\n")
    (tmp_path / "tests/test_one.py").write_text("from holdfast.one import ONE\ndef test_one():\n    assert ONE == 1\n")
    noticed = mutants.Mutant("one.py", "ONE = 1", "ONE = 3", "test_one.py")
    assert not mutants.survives(noticed, tmp_path)
    assert mutants.survives(mutants.Mutant("one.py", "TWO = 2", "TWO = 3", "test_one.py -k one"), tmp_path)
    assert code.read_text() == "ONE = 1\nTWO = 2\n"
    with pytest.raises(RuntimeError, match="pytest ended with 5"):
        mutants.survives(mutants.Mutant("one.py", "TWO = 2", "TWO = 3", "test_one.py -k nothing"), tmp_path)
    shutil.rmtree(tmp_path / "src")
