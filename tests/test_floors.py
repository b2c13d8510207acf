"""The house: a module imports lower floors only, scripts stay thin, each engine has one door."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from holdfast.documents import house

SRC = ROOT / "src" / "holdfast"
FLOORS = house.floors(ROOT)
GROUND = [name for name in FLOORS if not (SRC / name).is_dir()]
WINGS = [name for name in FLOORS if (SRC / name).is_dir()]
MODULES = sorted(SRC.rglob("*.py"))


def room(path):
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names)


def test_every_module_lies_in_a_wing():
    assert {room(p) for p in MODULES} == {*FLOORS, "__init__"}
    assert {p.stem for p in SRC.glob("*.py")} == {*GROUND, "__init__"}
    assert not [p for p in MODULES if len(p.relative_to(SRC).parts) > 2], "a wing has no folders of its own"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_down(path):
    # The front door, when it is asked for a judge.
    mine = FLOORS.index("study" if room(path) == "__init__" else room(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "holdfast" and len(parts) > 1 and parts[1] in FLOORS:
            assert FLOORS.index(parts[1]) <= mine, f"{path.name} ({room(path)}) imports {name}"


def test_the_check_that_everyone_runs_says_the_same():
    """`make check` has import-linter look, with the floors that this file reads."""
    said = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_engines_have_one_door(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert "snakemake" not in roots
    if "dvc" in roots:
        assert path == SRC / "engines/dvc.py"
    if "mlflow" in roots:
        assert room(path) == "track"
    if room(path) == "methods":
        assert not any(n.startswith("holdfast.methods.") for n in imports(path))


def test_every_wing_has_a_question_and_newcomers_read_it():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    for name in WINGS:
        assert f"| `{name}/` | {house.question(ROOT, name)} |" in guide and "?" in house.question(ROOT, name), name


def test_tests_mirror_the_wings():
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == {*WINGS, "dag"}, folders ^ {*WINGS, "dag"}
    assert not [name for name in folders if not list((ROOT / "tests" / name).glob("test_*.py"))]
    files = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) == len(set(files)), "pytest tells test files apart by their names"


def test_rules_and_snakefile_import_light_modules_only():
    allowed = {
        "names.GRAMS", "errors.INTERRUPTED", "stage.alive", "stage.interrupt", "stage.screen", "stage.sharing",
        "stage.words", "study.preflight", "study.registry", "study.inputs",
        "study.attacks", "study.attacking", "record.portable", "record.provenance", "track.reach",
    }  # fmt: skip
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        for wing, what in re.findall(r"^from holdfast\.(\S+) import (.+)$", path.read_text(), re.M):
            found = {wing} if "." in wing else {f"{wing}.{n.strip().split(' ')[0]}" for n in what.split(",")}
            assert found <= allowed, (path.name, found)


def test_importing_the_package_is_cheap():
    heavy = "{'torch', 'pandas', 'mlflow', 'transformers', 'scipy', 'pyarrow'}"
    for names in ("holdfast", "holdfast.cli.main, holdfast.study.resolve, holdfast.study.preflight"):
        code = f"import sys, {names}; print(sorted({heavy} & set(sys.modules)))"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert out.stdout.strip() == "[]", (names, out.stdout)


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_scripts_are_thin(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert ast.get_docstring(ast.parse(text)).startswith("Stage ")
    assert "def main(io: SimpleNamespace) -> None:" in text and re.search(
        r"main\(job\.start(_models)?\(snakemake", text
    )


def test_library_files_stay_readable():
    assert not [p.name for p in MODULES if len(p.read_text().splitlines()) > 350]


def test_nothing_unsafe_or_local_is_named():
    banned = re.compile(r"torch\.load\(|pickle|trust_remote_code=True|CUDA_VISIBLE_DEVICES\s*=|/home/|<<<<<<<")
    for path in [*MODULES, *(ROOT / "scripts").glob("*.py"), *(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile"]:
        assert not banned.search(path.read_text()), path.name


def test_a_comment_changes_no_digest_and_code_does(tmp_path):
    from holdfast.record import provenance

    path = tmp_path / "m.py"
    digests = []
    for text in ("x = 1\n", "# why\nx = 1  # here\n", '"""Doc."""\n\nx = 1\n', "x = 2\n"):
        path.write_text(text)
        provenance._parsed.cache_clear()
        digests.append(provenance.code_digest(path))
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_code_is_parsed_once_for_all_processes_and_a_damaged_memory_is_none(tmp_path):
    ask = (
        "import ast, sys\nfrom pathlib import Path\nfrom holdfast.record import provenance\n"
        "parsed, parse = [], ast.parse\nast.parse = lambda *a: parsed.append(a) or parse(*a)\n"
        "print(provenance.code_digest(Path(sys.argv[1]), provenance.PACKAGE / 'methods/warp.py'), len(parsed))"
    )
    script = tmp_path / "mine.py"
    script.write_text("from holdfast.record import tables\n")

    def asked(cache="cache"):
        env = os.environ | {"HOLDFAST_CACHE": str(tmp_path / cache)}
        command = [sys.executable, "-c", ask, str(script)]
        digest, parsed = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
        return digest, int(parsed)

    first, again = asked(), asked()
    assert first[0] == again[0] and first[1] > 5 and again[1] == 0
    script.write_text("from holdfast.record import tables\nx = 1\n")
    changed = asked()
    assert changed[0] != first[0] and changed[1] == 1 and asked() == (changed[0], 0)
    (memory,) = (tmp_path / "cache/code").iterdir()
    for damaged in ("{", "3", "[1]"):
        memory.write_text(damaged)
        assert asked() == (changed[0], first[1])
    (tmp_path / "file").write_text("")  # where no folder can be made
    assert asked("file") == (changed[0], first[1])


def test_the_code_of_a_stage_includes_what_it_imports_and_not_other_methods():
    from holdfast.record import provenance

    names = {p.name for p in provenance.code_files(ROOT / "scripts" / "finetune.py", SRC / "methods" / "warp.py")}
    assert {"finetune.py", "loop.py", "chat.py", "optimizer.py", "warp.py", "tables.py"} <= names
    assert not names & {"lora.py", "safety_mix.py", "page.py", "importing.py", "keys.py"}


def test_the_digest_does_not_know_where_the_project_lies(tmp_path):
    """In a copy that runs an installed package, as an experiment of DVC does, nothing has changed."""
    from holdfast.record import provenance

    for name in ("aa", "zz"):
        (tmp_path / name).mkdir()
        script = tmp_path / name / "finetune.py"
        script.write_text((ROOT / "scripts/finetune.py").read_text())
        method = SRC / "methods/warp.py"
        assert provenance.code_digest(script, method) == provenance.code_digest(ROOT / "scripts/finetune.py", method)


def test_no_model_depends_on_a_judge():
    """Another judge must not train anything again."""
    from holdfast.record import provenance

    judges = set((SRC / "judges").glob("*.py")) - {SRC / "judges/__init__.py"}
    for stage in ("base", "aligned", "gram", "basis", "importance", "finetune", "realign", "neurons", "respond"):
        assert not judges & set(provenance.code_files(ROOT / "scripts" / f"{stage}.py")), stage


def test_peak_memory_is_that_of_this_process_and_not_of_its_parent():
    ask = "from holdfast.record import provenance; print(provenance.peak_resident())"
    big = f"import subprocess, sys; x = b'1' * (400 << 20); subprocess.run([sys.executable, '-c', {ask!r}])"
    own = subprocess.run([sys.executable, "-c", "x = b'1' * (400 << 20); " + ask], capture_output=True, text=True)
    child = subprocess.run([sys.executable, "-c", big], capture_output=True, text=True)
    assert int(child.stdout) < 200 << 20 < 400 << 20 < int(own.stdout)
