"""`make check` notices: every kind of fault it is there for, planted in a copy of the project, ends in an error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BIN = Path(sys.executable).parent
RUFF = [BIN / "ruff", "check", "."]
FORMAT = [BIN / "ruff", "format", "--check", "src"]
FLOORS = [BIN / "lint-imports", "--no-cache"]
DOCUMENTS = [BIN / "holdfast", "documents", "--check"]
LINT = [sys.executable, "tests/lint.py"]
SPELLING = [BIN / "codespell"]
RULES = [BIN / "snakefmt", "--check", "Snakefile", "rules"]
TYPES = [BIN / "mypy"]
ERRORS = [sys.executable, "tests/bad_input.py", "--check"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean") / "p"
    kept = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "work", "results", "logs", "ml*", "dist", "build", "site"
    )
    shutil.copytree(ROOT, folder, ignore=kept)
    return folder


@pytest.fixture
def project(clean, tmp_path) -> Path:
    shutil.copytree(clean, tmp_path / "p")
    return tmp_path / "p"


def look(project: Path, command: list[object]) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run([*map(str, command)], cwd=project, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def append(path: str, text: str):
    def plant(project: Path) -> None:
        file = project / path
        file.write_text(file.read_text() + text)

    return plant


def replace(path: str, old: str, new: str):
    def plant(project: Path) -> None:
        file = project / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    return plant


UNUSED = '\n\ndef nobody_calls_this(path: Path) -> Path:\n    """The same path."""\n    return path\n'
UNTYPED = '\n\ndef whole_again(path):\n    """The same path."""\n    return whole(path)\n'
FAULTS = {
    "an unused function": (append("src/holdfast/record/files.py", UNUSED), LINT, "nobody_calls_this"),
    "an unused method of a study": (
        replace("src/holdfast/study/resolve.py", "    def dump(self)", '    def never(self) -> int:\n        """One."""\n        return 1\n\n    def dump(self)'),
        LINT, "never",
    ),
    "an unused function named like many": (append("src/holdfast/warp/gram.py", '\n\ndef load(a: Tensor) -> Tensor:\n    """The same."""\n    return a\n'), LINT, "warp/gram.py: nothing uses load"),
    "a function that only calls itself": (append("src/holdfast/warp/gram.py", '\n\ndef write(a: Tensor) -> Tensor:\n    """The same."""\n    return write(a)\n'), LINT, "nothing uses write"),
    "an unused constant": (append("src/holdfast/archive/audit.py", "\nKINDS_TOO = 1\n"), LINT, "KINDS_TOO"),
    "an unused private constant": (append("src/holdfast/archive/audit.py", "\n_SHOWN = 1\n"), LINT, "nothing uses _SHOWN"),
    "an import by name": (append("src/holdfast/record/files.py", '\n\ndef _late() -> None:\n    import importlib\n\n    importlib.import_module("holdfast.study.resolve")\n'), RUFF, "TID251"),
    "pandas beside the one table reader": (append("src/holdfast/record/files.py", "\nimport pandas as pd  # noqa: E402, F401\n"), RUFF, "TID251"),
    "a wrong type": (append("src/holdfast/names.py", '\n\ndef _count() -> int:\n    return "one"\n'), [*TYPES, "src/holdfast/names.py"], "Incompatible return value type"),
    "a type that is missing": (append("src/holdfast/names.py", "\n\ndef _count(x):\n    return x\n"), [*TYPES, "src/holdfast/names.py"], "missing a type annotation"),
    "a key of a new model with half a description": (
        replace("src/holdfast/study/keys.py", "class Study(Strict):\n    \"\"\"A whole study file.\"\"\"\n", 'class Extra(Strict):\n    """Something new."""\n\n    depth: int = Field(1, description="how deep")\n\n\nclass Study(Strict):\n    """A whole study file."""\n\n    extra: Extra = Extra()\n'),
        DOCUMENTS, "Extra.depth is not a whole sentence",
    ),
    "a stale list of errors": (append("docs/errors.md", "\nMore.\n"), ERRORS, "errors.md is stale"),
    "an unused import": (replace("src/holdfast/warp/masks.py", "import numpy as np\n", "import numpy as np\nimport json\n"), RUFF, "F401"),
    "an upward import": (append("src/holdfast/warp/masks.py", "\nfrom holdfast.compare import table  # noqa: E402, F401\n"), FLOORS, "warp is not allowed to import holdfast.compare"),
    "an upward import inside a function": (
        append("src/holdfast/record/files.py", "\n\ndef _late() -> None:\n    from holdfast.study import resolve\n\n    resolve.load('x')\n"),
        FLOORS, "record is not allowed to import holdfast.study",
    ),
    "a method that imports another": (append("src/holdfast/methods/lora.py", "\nfrom holdfast.methods import full  # noqa: E402, F401\n"), FLOORS, "methods.lora"),
    "two modules of one wing in a circle": (append("src/holdfast/study/reading.py", "\nfrom holdfast.study import resolve  # noqa: E402, F401\n"), FLOORS, "holdfast.study"),
    "a module outside the wings": (lambda p: (p / "src/holdfast/helpers.py").write_text('"""Helpers."""\n'), FLOORS, "helpers"),
    "mlflow outside its door": (append("src/holdfast/report/plots.py", "\nimport mlflow  # noqa: E402, F401, TID251\n"), FLOORS, "mlflow"),
    "torch where planning looks": (append("src/holdfast/study/costs.py", "\n\ndef _late() -> None:\n    import torch\n\n    torch.zeros(1)\n"), RUFF, "TID251"),
    "pandas where planning looks": (append("src/holdfast/archive/why.py", "\nimport pandas as pd  # noqa: E402, F401\n"), RUFF, "TID251"),
    "snakemake in the library": (append("src/holdfast/stage/alive.py", "\nimport snakemake.utils  # noqa: E402, F401\n"), RUFF, "TID251"),
    "an untyped public function": (append("src/holdfast/record/files.py", UNTYPED), RUFF, "ANN001"),
    "a public function without a docstring": (append("src/holdfast/warp/basis.py", "\n\ndef naked(a: Tensor) -> Tensor:\n    return a\n"), RUFF, "D103"),
    "a name in another style": (append("src/holdfast/warp/basis.py", '\n\ndef badName(a: Tensor) -> Tensor:\n    """The same."""\n    return a\n'), RUFF, "N802"),
    "an unsorted import": (replace("src/holdfast/archive/audit.py", "from collections.abc import Iterator\nfrom dataclasses import dataclass\n", "from dataclasses import dataclass\nfrom collections.abc import Iterator\n"), RUFF, "I001"),
    "code in another style": (replace("src/holdfast/record/files.py", "import contextlib", "import   contextlib"), FORMAT, "files.py"),
    "half a sentence about a key": (replace("src/holdfast/study/models.py", '"Documents of the world."', '"Documents of the"'), DOCUMENTS, "Pretraining.documents is not a whole sentence"),
    "half a sentence about a model": (replace("src/holdfast/study/keys.py", '"""A whole study file."""', '"""A whole study file, which"""'), DOCUMENTS, "Study is not a whole sentence"),
    "half a sentence about a method": (replace("src/holdfast/methods/full.py", 'description="All weights, or those of basis.modules only."', 'description="All weights, or"'), DOCUMENTS, "full.Settings.trainable"),
    "half a question of a wing": (replace("src/holdfast/track/__init__.py", "What does MLflow show of the files?", "What does MLflow"), DOCUMENTS, "track/__init__.py is not a whole sentence"),
    "half a description of a study": (replace("config/smoke.yaml", "its numbers mean nothing.", "its numbers mean"), DOCUMENTS, "smoke.yaml is not a whole sentence"),
    "a stale document": (replace("src/holdfast/study/models.py", '"Documents of the world."', '"Texts of the world."'), DOCUMENTS, "Texts of the world."),
    "a number of a page that its file does not have": (replace("docs/results.md", "[96 %](demo/", "[97 %](demo/"), DOCUMENTS, "results.md"),
    "a spelling mistake": (append("docs/judges.md", "\nA rec" + "ieved answer.\n"), SPELLING, "==> received"),
    "a rule in another style": (replace("rules/finetune.smk", "threads: TOGETHER", "threads:    TOGETHER"), RULES, "would be changed"),
    "a rule with a log missing": (replace("rules/finetune.smk", '    log:\n        f"{L}/{{rep}}finetune/{{task}}/{{arm}}/seed{{seed}}.log",\n', ""), LINT, "rule finetune"),
}  # fmt: skip


OF_LINT = {name: fault for name, fault in FAULTS.items() if fault[1] is LINT}  # which looks at everything, once
ALONE = {name: fault for name, fault in FAULTS.items() if name not in OF_LINT}


@pytest.mark.parametrize(("plant", "command", "says"), ALONE.values(), ids=ALONE.keys())
def test_a_planted_fault_is_noticed(project, plant, command, says):
    plant(project)
    code, said = look(project, command)
    assert code != 0 and says in re.sub(r"\x1b\[\d+m", "", said), said[-3000:]


def test_planted_faults_are_noticed_together(project):
    for plant, *_ in OF_LINT.values():
        plant(project)
    code, said = look(project, LINT)
    assert code != 0 and len(OF_LINT) > 5
    assert [name for name, (_, _, says) in OF_LINT.items() if says not in said] == [], said[-3000:]


def test_every_command_here_is_one_of_make_check():
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    for command in (RUFF, FORMAT, RULES, FLOORS, SPELLING, DOCUMENTS, ERRORS, LINT, TYPES):
        words = [Path(str(command[0])).name, *map(str, command[1:])]
        assert " ".join(words[:2]) in check if "lint-imports" not in words[0] else "lint-imports" in check, words
    assert "make check" in (ROOT / ".ci/run").read_text()
