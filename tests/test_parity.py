"""parity/: every script says what to fetch and refuses what it is not; the cards say what was compared."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from holdfast.documents import catalogue
from holdfast.errors import UsageError
from holdfast.study import registry
from parity import __main__ as every
from parity import code, tiny

SCRIPTS = {Path(s.__file__).stem: s for s in every.scripts()}
THEIRS = '''"""Not imported."""
import nothing_that_exists
HALF = 2
def scaled(x: Unknown, by: "int" = 2) -> Unknown:
    return math.floor(x * by) + undefined
class Outer:
    @staticmethod
    def inside(x):
        return x + 1
    def run(self):
        for i in range(3):
            total = i
            doubled = 2 * total
        done = True
'''


@pytest.fixture
def repository(tmp_path):
    """(folder, first commit, second commit) of a repository with one file, changed once and then in the work tree."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    commits = []

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], capture_output=True, text=True, check=True
        )

    git("init", "-q")
    for text in (THEIRS, THEIRS.replace("x + 1", "x + 2")):
        (tmp_path / "theirs.py").write_text(text)
        git("add", "theirs.py")
        git("commit", "-qm", "one")
        commits.append(git("rev-parse", "HEAD").stdout.strip())
    (tmp_path / "theirs.py").write_text("broken(")
    return tmp_path, *commits


def _run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, arguments)])
    return code.main(script)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_what_to_fetch_and_refuses_anything_else(name, repository, monkeypatch, capsys):
    script = SCRIPTS[name]
    assert re.fullmatch("[0-9a-f]{40}", script.COMMIT)
    command = f"git clone https://github.com/{script.REPOSITORY} && git -C "
    with pytest.raises(SystemExit) as left:
        _run(script, monkeypatch, "--help")
    said = capsys.readouterr().out
    assert left.value.code == 0 and command in said and script.COMMIT in said and "--code PATH" in said
    for arguments in ([], ["--code", repository[0]], ["--code", repository[0] / "nothing"]):
        assert _run(script, monkeypatch, *arguments) == 2
        out, err = capsys.readouterr()
        assert not out and all(f"\n  {word}" in err for word in ("found:", "expected:", "do:"))
        assert script.COMMIT in err and f"python -m parity.{name} --code" in err


def test_the_command_line_is_that_of_the_page():
    done = subprocess.run([sys.executable, "-m", "parity.safety_mix"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("UsageError: Nothing to compare with.")


def test_what_runs_is_the_commit_and_single_parts_of_it(repository):
    folder, first, second = repository
    old, new = (code.opened("a/b", commit, folder, "x") for commit in (first, second))
    assert [c.part("theirs.py", "Outer.inside", {})(1) for c in (old, new)] == [2, 3]
    import math

    scaled = new.part("theirs.py", "scaled", {"math": math, "zero": 0}, instead={"undefined": "zero"})
    assert scaled(1.6) == 3
    with pytest.raises(NameError):
        new.part("theirs.py", "scaled", {"math": math})(1)
    names = {"i": 4}
    new.statements("theirs.py", "total =", "doubled =", names)
    assert names["doubled"] == 8 and "done" not in names
    with pytest.raises(ModuleNotFoundError):
        new.module("theirs.py")


@pytest.mark.parametrize("which", ["HEAD~1:theirs.py", "0" * 40])
def test_a_file_or_another_commit_is_not_the_code(which, repository):
    with pytest.raises(UsageError, match="not the code at that commit"):
        code.opened("a/b", which, repository[0], "x")


def test_a_difference_beyond_its_reason_is_told(repository, monkeypatch, capsys):
    folder, commit, _ = repository
    for far, expected in ((0.1, 0), (0.3, 1), (float("nan"), 1)):
        rows = [code.Row("a", 0.0, 0, "none"), code.Row("b", far, 0.2, "why")]

        class Script:
            REPOSITORY, COMMIT, __file__ = "a/b", commit, "b.py"

            @staticmethod
            def compare(theirs, rows=rows):
                print("what the authors' code prints")
                return rows

        assert _run(Script, monkeypatch, "--code", folder) == expected
        out = capsys.readouterr().out
        assert ("NOT EXPLAINED" in out) == bool(expected) and "prints" not in out


def test_far_is_a_share_of_the_largest_entry():
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -5.0])
    assert tiny.far(a, b) == pytest.approx(0.2)
    assert tiny.far({"x": a, "y": b}, {"x": a, "y": a}) == pytest.approx(0.25)
    assert tiny.far(a, torch.tensor([float("nan"), 1])) != tiny.far(a, a)


def test_cards_say_with_which_commit_a_method_was_compared():
    heads = {registry.method_file(name).stem: registry.header(name) for name in registry.method_names()}
    for stem, head in heads.items():
        found = catalogue.COMMIT.search(head.card["parity"])
        assert bool(found) == (stem in SCRIPTS), stem
        if found:
            script = SCRIPTS[stem]
            assert found.groups() == (script.REPOSITORY, script.COMMIT[:7]), stem
    assert set(SCRIPTS) <= set(heads)


def test_the_table_has_every_script_and_nothing_unexplained():
    page = (ROOT / "parity" / "README.md").read_text()
    shown = page.split(every.BEGIN)[1].split(every.END)[0]
    assert re.findall(r"^\| \[(\w+)\]\(\1\.py\) \|", shown, re.M) == list(SCRIPTS)
    assert "not explained" not in shown and re.search(r"Run on \d+ \w+ 20\d\d", shown)
    assert re.search(SCRIPTS["safe_lora"].COMMIT, page)
