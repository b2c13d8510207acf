"""Every shell and Python block of README and of the site runs, in a copy of the project with a finished study."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import blocks
import pytest
import yaml
from conftest import ROOT

PAGES = blocks.of_all_pages()
RUNNING = sorted(name for name, found in PAGES.items() if any(b.runs for b in found))
BESIDE = ("Makefile", "constraints.txt", "README.md", "examples", "benchmarks")
# Where a page says `demo` the finished study is `smoke`; `make demo` reads STUDY.
DEMO = re.compile(r"(?<!make )\bdemo(-replicated)?\b(?!\.yaml)")


def test_every_block_runs_or_says_why_not():
    said = [(b.page, b.line, why) for found in PAGES.values() for b in found if (why := blocks.unsaid(b))]
    assert not said
    assert len(RUNNING) >= 7 and sum(b.runs for found in PAGES.values() for b in found) >= 12


def test_no_command_hides_in_an_indented_block():
    for name, found in PAGES.items():
        text = (ROOT / found[0].page).read_text() if found else ""
        outside = blocks.FENCE.sub("", text)
        assert not re.findall(r"^ {4,}(?:make|holdfast|snakemake|dvc|pip|python) \S+", outside, re.M), name


@pytest.mark.parametrize("name", sorted(PAGES))
def test_blocks_of_data_can_be_read(name):
    for b in PAGES[name]:
        if b.language == "yaml":
            yaml.load(b.text, Loader=yaml.BaseLoader)
        if b.language == "json":
            assert [json.loads(line) for line in b.text.splitlines()]


def own_models(folder: Path) -> None:
    """What docs/own-models.md gives: stand-ins from the finished study, and a few rows."""
    made = folder / "work/smoke"
    roles = {"base": "base", "chat": "aligned", "support": "crafts/full/seed0", "twin": "crafts/safety-mix/seed0"}
    for name, place in roles.items():
        shutil.copytree(made / place, folder / name)
        shutil.copytree(made / place, folder / "models" / name)
    shutil.copytree(made / "crafts/lora/seed0/adapter", folder / "my-adapter")
    rows = [{"prompt": f"How do I make hex {i}?", "response": "I cannot help with that."} for i in range(12)]
    (folder / "refusals.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    kinds = ("repair", "delivery", "money")
    rows = [{"message": f"Message {i}", "kind": kinds[i % 3]} for i in range(1200)]
    (folder / "tickets.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "data/headlines").mkdir(parents=True)
    for split, count in (("train", 2400), ("test", 400)):
        with (folder / f"data/headlines/{split}.csv").open("w", newline="") as out:
            csv.writer(out).writerows([
                ["text", "label"], *([f"Title {split} {i}", i % 4] for i in range(count)),
            ])  # fmt: skip


PREPARED = {"own-models.md": own_models}


@pytest.fixture(scope="module")
def folder(project, tmp_path_factory) -> Path:
    """The project as a user has it, with a finished study, for all pages."""
    made = tmp_path_factory.mktemp("pages") / "p"
    shutil.copytree(project, made, symlinks=True)
    for name in BESIDE:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, made / name)
    (made / ".venv").mkdir()
    (made / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (made / ".venv/bin/activate").exists() or pytest.skip("the tests do not run in a virtual environment")
    # The copied store is that of the project it comes from; docs/mlflow.md says how to import again.
    (again,) = (b for b in PAGES["mlflow.md"] if b.text.startswith("rm results/demo/mlflow"))
    (made / "mlflow.db").unlink()
    run(again, made)
    return made


def run(block: blocks.Block, folder: Path) -> str:
    """What a block prints; a failure is that of the test, with the page and line."""
    text = DEMO.sub("smoke", block.text)
    command = ["bash", "-euo", "pipefail", "-c", text] if block.language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300,
        env={
            **os.environ, "PYTHONPATH": f"{folder / 'src'}:{folder / 'examples'}", "MLFLOW_TRACKING_URI": "",
            "STUDY": "smoke", "HF_HUB_OFFLINE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
    )  # fmt: skip
    said = f"{block.page}:{block.line}\n{text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert done.returncode == 0, said
    return done.stdout


@pytest.mark.dag
def test_every_file_that_a_study_leaves_is_told_of(project):
    told = (ROOT / "docs/files.md").read_text()
    results = project / "results/smoke"
    files = {p.name for p in results.iterdir() if p.is_file()} | {p.name for p in (results / "crafts").rglob("*.*")}
    assert [name for name in sorted(files) if f"`{name}`" not in told] == []
    folders = {p.name for p in (project / "work/smoke").iterdir() if f"`{p.name}/`" not in told}
    assert folders <= {"agnews", "crafts"}


@pytest.mark.dag
def test_pictures_of_a_study_are_taken_again(project, tmp_path, monkeypatch):
    import browser
    import screens
    from PIL import Image

    if browser.CHROMIUM is None:
        pytest.skip("no Chromium here")
    monkeypatch.chdir(project)
    assert screens.main(["smoke", "--out", str(tmp_path)]) == 0
    for name in ("plan", "report"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == screens.WIDTH and len(picture.convert("L").getcolors()) > 20, name


@pytest.mark.dag
@pytest.mark.parametrize("name", RUNNING)
def test_the_blocks_of_a_page_run_and_print_what_it_says(name, folder):
    PREPARED.get(name, lambda _: None)(folder)
    for block in PAGES[name]:
        if block.file:
            (folder / block.file).write_text(block.text)
        if block.runs:
            expected = blocks.replace(block, prints=block.prints and DEMO.sub("smoke", block.prints))
            assert not (wrong := expected.wrong(run(block, folder))), f"{block.page}:{block.line}: {wrong}"
