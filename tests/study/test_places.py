"""Which file a path in a study means, from wherever Snakemake is called, and that planning and the stages agree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from bad_input import GOOD
from conftest import ROOT
from soak import SNAKEMAKE, copy_project

from holdfast.data import sources
from holdfast.errors import DataError, HoldfastError
from holdfast.study import places, preflight, resolve


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a study folder beside it and a home of its own."""
    for name in ("home", "studies", "project/config", "cwd"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


def study(here: Path, **changes) -> Path:
    path = here / "studies/mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


def rows(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("kind,prompt,response\nhazard,p,no\n")
    return path


@pytest.mark.parametrize(
    ("said", "lies"),
    [
        ("~/rows.csv", "home/rows.csv"),
        ("rows.csv", "studies/rows.csv"),
        ("data/rows.csv", "cwd/data/rows.csv"),
        ("../studies/rows.csv", "studies/rows.csv"),
        ("shared/rows.csv", "project/shared/rows.csv"),
    ],
)
def test_a_path_is_looked_for_at_home_beside_the_study_here_and_in_the_project(here, said, lies):
    lying = rows(here / lies)
    found = resolve.load(str(study(here, safety={"source": said})), here / "project/config")
    source = Path(found.study.safety.source)
    assert (here / "cwd" / source).resolve() == lying.resolve()
    assert found.safety_data_cfg()["source"] == str(source)  # what the stages get is what was checked
    assert preflight.check_files(found) is None


def test_beside_the_study_comes_before_the_working_directory(here):
    rows(here / "cwd/rows.csv")
    near = rows(here / "studies/rows.csv")
    found = resolve.load(str(study(here, safety={"source": "rows.csv"})))
    assert Path(found.study.safety.source).resolve() == near.resolve()


def test_what_lies_below_the_working_directory_is_named_from_there(here):
    rows(here / "cwd/data/rows.csv")
    assert resolve.load(str(study(here, safety={"source": "data/rows.csv"}))).study.safety.source == "data/rows.csv"
    assert places.meant(str(here / "x.csv"), [Path()]) == str(here / "x.csv")


@pytest.mark.parametrize(
    "word", ["world", "hub", "tiny", "train", "", "https://x.org/a.csv", "meta-llama/Llama-2-7b-hf"]
)
def test_words_and_addresses_are_no_paths(here, word):
    assert places.meant(word, [Path(), here]) == word


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": {"crafts": {"dataset": "crafts", "source": "~/x.csv"}}},
        {"tasks": {"crafts": {"dataset": "crafts", "instruction_file": "~/x.csv"}}},
        {"evaluation": {"source": "~/x.csv"}}, {"preferences": {"source": "~/x.csv"}},
        {"constitution": GOOD["constitution"] | {"pairs": "~/x.csv"}}, {"constitution": {"guidelines_file": "~/x.csv"}},
        {"base": {"source": "~/x.csv"}}, {"capabilities": {"task_files": "~/x.csv"}},
    ],
    ids=str,
)  # fmt: skip
def test_every_key_that_names_a_file_knows_the_home(here, changes):
    (here / "home/x.csv").write_text("prompt,response\na,b\n")
    found = resolve.load(str(study(here, **changes)))
    (top,) = changes
    said = yaml.safe_dump(found.study.model_dump(mode="json")[top])
    assert "~" not in said and str(here / "home/x.csv") in said


def test_a_study_extended_from_another_folder_keeps_its_own_files(here):
    """Its choices and texts lie beside it, not beside the study that extends it."""
    base = here / "project/config"
    (base / "chosen.yaml").write_text("warp: {crafts: {learning_rate: 0.002}}\n")
    (base / "words.txt").write_text("Say it.")
    tasks = {"crafts": {"dataset": "crafts", "instruction_file": "words.txt"}}
    (base / "base.yaml").write_text(yaml.safe_dump(GOOD | {"chosen": "chosen.yaml", "tasks": tasks}))
    path = here / "studies/mine.yaml"
    path.write_text("extends: ../project/config/base.yaml\n")
    found = resolve.load(str(path))
    assert found.arms["warp"].learning_rates["crafts"] == 0.002 and found.instructions()["crafts"] == "Say it."


def test_a_study_anywhere_may_extend_one_of_the_project(here):
    (here / "project/config/base.yaml").write_text(yaml.safe_dump(GOOD | {"description": "the project's"}))
    path = here / "studies/mine.yaml"
    path.write_text("extends: base.yaml\n")
    assert resolve.load(str(path), here / "project/config").study.description == "the project's"
    (path.parent / "base.yaml").write_text(yaml.safe_dump(GOOD | {"description": "beside"}))
    assert resolve.load(str(path), here / "project/config").study.description == "beside"


@pytest.mark.parametrize(
    ("raw", "says"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "not UTF-8"), (None, "not a text file")]
)
def test_a_text_that_cannot_be_used_is_known_at_planning(here, raw, says):
    path = here / "studies/words.txt"
    path.mkdir() if raw is None else path.write_bytes(raw)
    tasks = {"crafts": {"dataset": "crafts", "instruction_file": "words.txt"}}
    with pytest.raises(DataError, match=says):
        resolve.load(str(study(here, tasks=tasks)))


def test_a_byte_order_mark_never_reaches_a_prompt(here):
    (here / "studies/words.txt").write_bytes(b"\xef\xbb\xbfSay it.\r\nNow.")
    tasks = {"crafts": {"dataset": "crafts", "instruction_file": "words.txt"}}
    assert resolve.load(str(study(here, tasks=tasks))).instructions()["crafts"] == "Say it.\nNow."


def test_a_file_that_is_nowhere_is_one_block(here):
    with pytest.raises(HoldfastError, match="names a file that does not exist") as error:
        resolve.load(str(study(here, safety={"source": "nowhere.csv"})))
    assert "beside the study" in error.value.expected


def test_folders_of_a_dataset_may_hold_packed_files(tmp_path):
    for name in ("train.csv.gz", "test.jsonl", "notes.txt", "train.yaml", "other.csv"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in sources.local_files("agnews", str(tmp_path))] == ["test.jsonl", "train.csv.gz"]


@pytest.mark.dag
@pytest.mark.parametrize("how", ["from elsewhere", "--directory"])
def test_snakemake_may_be_called_from_another_folder(tmp_path, how):
    project, other = tmp_path / "with blanks" / "p", tmp_path / "else where"
    other.mkdir()
    project.parent.mkdir()
    copy_project(project)
    command = [SNAKEMAKE, "-s", project / "Snakefile", "-n", "--quiet", "all", "--config", "study=smoke"]
    command += [] if how == "from elsewhere" else ["--directory", other]
    cwd = other if how == "from elsewhere" else project
    out = subprocess.run(
        [*map(str, command), "--profile", str(project / "profiles/default")], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-1500:] + out.stderr[-1500:]
    shutil.rmtree(project)
