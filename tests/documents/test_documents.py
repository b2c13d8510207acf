"""README and generated documents say what is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from conftest import ROOT
from soak import HOLDFAST

from holdfast.documents import pages
from holdfast.study import registry, resolve


def test_generated_files_are_up_to_date():
    for path, text in pages.generated(ROOT, check=True).items():
        assert path.read_text() == text, f"{path.name} is stale: make documents"


def test_a_study_of_the_users_own_makes_nothing_stale(tmp_path):
    for name in ("src", "config", "docs", "tests", "scripts", "rules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "dvc.yaml", "Snakefile"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copy2(ROOT / "config/smoke.yaml", tmp_path / "config/mine.yaml")
    command = [HOLDFAST, "documents"]
    env = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    assert subprocess.run([*command, "--check"], cwd=tmp_path, env=env).returncode == 0
    assert subprocess.run(command, cwd=tmp_path, env=env).returncode == 0
    assert "`mine`" in (tmp_path / "config/README.md").read_text()


def test_the_makefile_has_every_target_the_readme_names():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M))
    assert named == targets
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "demo" in help_text and "test" in help_text


def test_every_study_and_method_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text()
    for name in re.findall(r"study=([a-z-]+)", readme):
        assert name == "mine" or resolve.load(name, ROOT / "config").cells
    for name in registry.method_names():
        assert f"`{name}`" in readme


def test_links_of_the_documents_lead_somewhere():
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), (path.name, target)


def test_make_check_of_documents_runs():
    assert subprocess.run([HOLDFAST, "documents", "--check"], cwd=ROOT).returncode == 0


def test_rule_targets_of_the_readme_exist():
    rules = "\n".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    line = next(x for x in (ROOT / "README.md").read_text().splitlines() if "one family" in x)
    for name in re.search(r"also `([a-z ]+)`", line).group(1).split():
        assert re.search(rf"^rule {name}:", rules, re.M), name
