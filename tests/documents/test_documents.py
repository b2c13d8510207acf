"""Pages and generated documents say what is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import yaml
from conftest import ROOT
from soak import HOLDFAST

from holdfast.documents import pages, reference, remedies, site
from holdfast.study import registry, resolve

THEIRS = ("mine", "name", "own", "some", "tickets", "trained")  # studies of whoever reads


def test_generated_files_are_up_to_date():
    for path, text in pages.generated(ROOT, check=True).items():
        assert path.read_text() == text, f"{path.name} is stale: make documents"


def test_a_study_of_the_users_own_makes_nothing_stale(tmp_path):
    for name in ("src", "config", "docs", "tests", "scripts", "rules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "dvc.yaml", "Snakefile", "Makefile"):
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copy2(ROOT / "config/smoke.yaml", tmp_path / "config/mine.yaml")
    command = [HOLDFAST, "documents"]
    env = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
    assert subprocess.run([*command, "--check"], cwd=tmp_path, env=env).returncode == 0
    assert subprocess.run(command, cwd=tmp_path, env=env).returncode == 0
    assert "`mine`" in (tmp_path / "config/README.md").read_text()


def test_the_makefile_has_every_target_that_a_page_names():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {n: set(re.findall(r"(?:^|`)make ([a-z-]+)", p.read_text(), re.M)) for n, p in site.pages(ROOT).items()}
    assert named["commands.md"] == targets and {"demo", "test", "site"} <= named["index.md"]
    assert set().union(*named.values()) == targets
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "demo" in help_text and "test" in help_text


def test_every_study_and_method_that_pages_name_exists():
    pages = {name: path.read_text() for name, path in site.pages(ROOT).items()}
    verbs = r"(?:^|`)holdfast (?:table|gate|plan|audit|push|pull|crate|label|answers) "
    for text in pages.values():
        for name in re.findall(rf"(?:study=|STUDY=|{verbs})([a-z][a-z0-9-]*)", text, re.M):
            assert name in THEIRS or (ROOT / f"config/{name}.yaml").is_file(), name
    for name in registry.method_names():
        assert f"`{name}`" in pages["studies.md"], name
        assert name in remedies.NOT_REMEDIES or f"methods.md#{name})" in pages["which-remedy.md"], name
    for path in ROOT.glob("config/*.yaml"):
        if "\narms:" in path.read_text():
            assert f"`{path.stem}`" in pages["study-keys.md"]
    assert resolve.load("demo", ROOT / "config").cells


def test_defaults_of_study_keys_stand_there_as_a_study_file_has_them():
    seen = 0
    for _, model in reference.sections():
        for line, field in zip(reference.fields(model, "x")[2:], model.model_fields.values(), strict=True):
            cell = line.split(" | ")[1]
            assert not cell.startswith("`") or "(" not in cell, line
            if cell.startswith("`"):
                known = field.get_default(call_default_factory=True)
                assert yaml.safe_load(cell.strip("`")) == (list(known) if isinstance(known, tuple) else known), line
                seen += 1
    assert seen > 80


def test_every_study_is_in_the_table_of_studies():
    table = (ROOT / "docs/studies.md").read_text().partition("| study |")[2].partition("\n\n")[0]
    listed = [n for line in table.splitlines() for n in re.findall(r"`([a-z0-9-]+)`", line[1:].partition("|")[0])]
    studies = [p.stem for p in ROOT.glob("config/*.yaml") if re.search(r"^(?:arms|extends):", p.read_text(), re.M)]
    assert len(studies) >= 30 and sorted(listed) == sorted(studies)


def test_make_check_of_documents_runs():
    assert subprocess.run([HOLDFAST, "documents", "--check"], cwd=ROOT).returncode == 0


def test_rule_targets_of_the_commands_exist():
    rules = "\n".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))
    line = next(x for x in (ROOT / "docs/commands.md").read_text().splitlines() if "one family" in x)
    for name in re.search(r"also `([a-z ]+)`", line).group(1).split():
        assert re.search(rf"^rule {name}:", rules, re.M), name
