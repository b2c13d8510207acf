"""holdfast as a product: one version, documents that know it, a wheel that works alone, examples that are true."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib

import installed
import pytest
import upgrade
import yaml
from conftest import ROOT

import holdfast

EXAMPLES = sorted(
    p
    for folder in ("src", "tests")
    for p in (ROOT / folder).rglob("*.py")
    if re.search(r"^\s+>>> ", p.read_text(), re.M)
)  # noqa: E501


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "holdfast.__version__"}
    released = re.findall(r"^## (\d\S*) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == released[0]
    assert released[0][0] == holdfast.__version__
    assert {"title", "abstract", "authors", "license", "message", "keywords"} <= citation.keys()


def test_the_changelog_says_what_changes_for_you():
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[2]
    assert newest.startswith(f"{holdfast.__version__} - ") and "### What changes for you" in newest


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_the_workflow_catalog_is_told_how_to_run_it():
    told = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert told["mandatory-flags"] == {"desc": None, "flags": None} and told["report"] is True
    assert (ROOT / "config/README.md").exists() and (ROOT / "profiles/default/config.yaml").exists()


def test_what_github_reads_is_whole_and_runs_what_there_is():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs == [".ci/run", "make site"] and "site" in targets and (ROOT / ".ci/run").stat().st_mode & 0o100
    asked = (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text()
    assert set(re.findall(r"`make ([a-z-]+)`", asked)) == {"check", "test"} <= targets
    forms = {p.stem: yaml.safe_load(p.read_text()) for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert forms.pop("config") == {"blank_issues_enabled": True} and set(forms) == {"bug", "method", "question"}
    for form in forms.values():
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert form["name"] and form["description"] and len({f["id"] for f in fields}) == len(fields) > 0
        assert all(f["attributes"]["label"] for f in fields)


@pytest.mark.slow
def test_a_wheel_works_in_a_fresh_environment_with_click_alone(tmp_path):
    """`make dist` tries it with all dependencies; this is what must not need them."""
    kept = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "p/src", ignore=kept)
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy2(ROOT / name, tmp_path / "p" / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist", tmp_path / "p"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (made,) = (tmp_path / "dist").glob("*.whl")
    assert made.name == f"holdfast-{holdfast.__version__}-py3-none-any.whl"
    assert installed.tried(made, light=True) == holdfast.__version__


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_in_docstrings_are_true(path):
    if path.is_relative_to(ROOT / "src"):
        module = importlib.import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
    else:
        module = importlib.import_module(path.stem)
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_an_upgrade_shows_what_changed_and_keeps_what_it_cannot_try(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    upgrade.OLD.write_text("# head\na==1\nb==1\n")
    monkeypatch.setattr(upgrade, "resolve", lambda: {"a": "2", "c": "1"})
    monkeypatch.setattr(sys, "argv", ["upgrade.py"])
    calls, codes = [], {"check": 0, "test": 2}
    monkeypatch.setattr(upgrade, "run", lambda *words: calls.append(words) or codes[words[1]])
    assert upgrade.main() == 1
    said = capsys.readouterr().out
    assert "a 1 -> 2" in said and "b 1 -> removed" in said and "c added -> 1" in said and "make test" in said
    assert [c[1] for c in calls] == ["check", "test"] and all(f"VENV={upgrade.VENV}" in c for c in calls)
    assert upgrade.OLD.read_text() == "# head\na==1\nb==1\n" and upgrade.NEW.exists()
    codes["test"] = 0
    assert upgrade.main() == 0
    assert upgrade.pins(upgrade.OLD.read_text()) == {"a": "2", "c": "1"} and not upgrade.NEW.exists()


def test_make_leaves_the_new_versions_of_an_upgrade_alone(tmp_path):
    """What was just resolved must not be installed over with the old versions before it is tried."""
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", "installed"):
        (tmp_path / name).touch()
    said = subprocess.run(["make", "-n", "check", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0 and "pip install" not in said.stdout and f"{tmp_path}/bin/mypy" in said.stdout
    assert '"installed").touch()' in (ROOT / "tests/upgrade.py").read_text()


def test_the_environment_of_an_upgrade_can_be_named_to_make():
    said = subprocess.run(["make", "-n", "check", "VENV=.venv-upgrade"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0 and ".venv-upgrade/bin/ruff check ." in said.stdout
    other = subprocess.run(["make", "-n", "test", "PYTHON=python3.13"], cwd=ROOT, capture_output=True, text=True)
    assert ".venv-python3.13/bin/python -m pytest" in other.stdout


@pytest.mark.parametrize("python", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_every_interpreter_at_hand_reads_the_code_without_a_warning(python):
    """`make test PYTHON=...` runs everything with one of them."""
    if shutil.which(python) is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no {python} here")
    code = (
        "import sys, warnings; from pathlib import Path; warnings.simplefilter('error')\n"
        "for folder in ('src', 'scripts', 'tests', 'benchmarks', 'parity'):\n"
        "    for path in Path(folder).rglob('*.py'):\n"
        "        compile(path.read_text(encoding='utf-8'), str(path), 'exec')"
    )
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
