"""docs/add-a-method.md does what it says: its two files, added to a copy of the project, pass their tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT


def test_the_example_of_the_page_works(tmp_path):
    page = (ROOT / "docs" / "add-a-method.md").read_text()
    blocks = dict(re.findall(r"^`([\w/.]+)`:\n\n<!-- [^\n]* -->\n```python\n(.*?)```", page, re.M | re.S))
    assert set(blocks) == {"src/holdfast/methods/l2_start.py", "tests/methods/test_l2_start.py"}
    assert len(blocks["src/holdfast/methods/l2_start.py"].splitlines()) <= 44
    for folder in ("src", "tests", "config"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "l2",
         "tests/methods/test_l2_start.py", "tests/methods/test_methods.py"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-500:]
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    for tool in (["check"], ["format", "--check"]):
        command = [Path(sys.executable).with_name("ruff"), *tool, "src/holdfast/methods/l2_start.py"]
        looked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert looked.returncode == 0, looked.stdout
    assert int(re.search(r"(\d+) passed", run.stdout).group(1)) >= 5
    study = (
        "arms: {full: {method: full}, l2-start: {method: l2-start, strenght: 1}}\ntasks: {crafts: {dataset: crafts}}"
    )
    (tmp_path / "config" / "mine.yaml").write_text(study)
    code = "from holdfast.study import resolve\ntry: resolve.load('mine')\nexcept Exception as e: print(e.block())"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "did you mean 'strength'" in told.stdout
