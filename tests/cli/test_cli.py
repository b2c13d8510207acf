"""The one door: every verb helps, ends with the code it promises, and says a mistake in one block."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT
from soak import HOLDFAST

from holdfast import __version__
from holdfast.archive import audit, remote, snapshot
from holdfast.cli import arguments
from holdfast.cli import main as door
from holdfast.cli.main import EPILOG, VERBS, main
from holdfast.errors import HoldfastError
from holdfast.evaluate import harness
from holdfast.record import files
from holdfast.study import resolve


def test_the_verbs_are_the_files():
    files = {p.stem for p in Path(door.__file__).parent.glob("*.py")} - {"__init__", "main", "arguments"}
    assert set(VERBS) == files and max(Counter(VERBS).values()) == 1


def test_help_is_quick_light_and_lists_every_verb_with_a_whole_sentence(capsys):
    assert main(["--help"]) == 0 == main([])
    said = capsys.readouterr().out
    for verb in VERBS:
        assert re.search(rf"^  {verb}  +[A-Z].*\.$", said, re.M), verb
    assert "..." not in said.replace("[ARGS]...", "") and "Exit codes" in said and "_HOLDFAST_COMPLETE" in said
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([HOLDFAST, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    print(f"holdfast --help: {min(seconds):.2f} s")  # a target of the README, not a test: machines differ
    code = "import sys; from holdfast.cli.main import main; main(['--help']); print(sorted({'torch', 'pandas', 'mlflow', 'numpy'} & set(sys.modules)))"  # noqa: E501
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [[v] for v in VERBS] + [["snapshot", "save"], ["snapshot", "restore"]], ids=" ".join)
def test_every_verb_helps(words, capsys):
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: holdfast {' '.join(words)}")
    first = said.split("\n\n")[1].strip()
    assert first[0].isupper() and first.endswith(".")


def test_verbs_that_end_with_one_say_so(capsys):
    for verb in ("audit", "gate", "harness", "documents"):
        main([verb, "--help"])
        assert "xit code 1" in " ".join(capsys.readouterr().out.split()), verb


def test_the_version(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"holdfast {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tabel"], "did you mean 'table'?"),
        (["demo"], "holdfast table demo"),
        (["xyzzy"], "holdfast --help"),
        (["table", "a", "b"], "unexpected extra argument"),
        (["plan", "demo", "--tflops", "fast"], "'fast' is not a valid float"),
        (["plan", "demo", "--tflops", "0"], "not in the range"),
        (["snapshot", "keep"], "No such command 'keep'"),
        (["snapshot"], "Missing command"),
        (["crate"], "Missing argument 'STUDY'"),
        (["fit"], "Missing argument 'FILES...'"),
        (["--loud"], "No such option '--loud'"),
    ],
)
def test_a_mistake_is_one_block_with_exit_code_two(words, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("UsageError: ") and says in said.err
    assert re.search(r"^  do:       holdfast|^  do:       did you mean", said.err, re.M)


def test_an_error_of_the_library_is_its_block(capsys):
    assert main(["plan", "no-such-study"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("StudyError: ") and "Traceback" not in said.err


def test_a_reader_that_has_seen_enough_sees_no_traceback():
    command = f"'{HOLDFAST}' audit --help | true; '{HOLDFAST}' plan smoke --tflops 1 | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "smoke: " in done.stdout and done.stderr == ""


def test_anything_else_is_a_fault_of_ours_and_keeps_its_traceback(monkeypatch, capsys):
    """With an exit code that is neither a mistake (2) nor a verdict (1 and 3)."""

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("holdfast.archive.why.ask", broken)
    assert main(["why", "x"]) == 70
    assert "Traceback" in (said := capsys.readouterr().err) and "ZeroDivisionError" in said


def test_audit_ends_with_one_where_there_is_a_problem_and_shows_twelve_of_a_kind(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    problems = [audit.Problem("orphan", f"f{i}", "no rule", f"rm f{i}") for i in range(14)]
    monkeypatch.setattr(audit, "audit", lambda _: problems)
    assert main(["audit", "demo"]) == 1
    said = capsys.readouterr().out
    assert "orphan   f11" in said and "f12" not in said and "and 2 more (--all)" in said
    assert "0 missing, 0 stale, 0 corrupt, 14 orphan, 0 remote" in said
    assert main(["audit", "demo", "--all"]) == 1 and "f13" in capsys.readouterr().out
    monkeypatch.setattr(audit, "audit", lambda _: [])
    assert main(["audit", "demo"]) == 0


def test_harness_ends_with_one_where_scores_differ(monkeypatch, capsys):
    row = {"filter": "strict", "theirs": 1, "ours": 2, "n": 4, "different": ["a"]}
    monkeypatch.setattr(harness, "check", lambda _: [("gsm8k", row)])
    assert main(["harness", "x"]) == 1
    assert "harness 25.00 %, holdfast 50.00 % of 4; different in a" in capsys.readouterr().out
    monkeypatch.setattr(harness, "check", lambda _: [("gsm8k", row | {"different": []})])
    assert main(["harness", "x"]) == 0


def test_pull_ends_with_two_where_something_is_corrupt(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(remote, "pull", lambda *_, **__: (["base"], snapshot.Found(ok=["a"], corrupt=["b"])))
    assert main(["pull", "demo"]) == 2
    said = capsys.readouterr()
    assert said.out == "pulled base\nrestore: 1 ok, 1 corrupt\n" and "b is not what a job wrote" in said.err


def test_push_says_what_stays_and_what_git_should_take(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    asked = []
    monkeypatch.setattr(remote, "push", lambda study, only, **_: asked.append(only) or ["base", "results"])
    assert main(["push", "smoke-methods", "base", "results"]) == 0
    said = capsys.readouterr().out
    assert asked == [("base", "results")] and "not pushed: models weakened on purpose" in said
    assert "git add provenance.json dvc/smoke-methods/dvc.yaml dvc/smoke-methods/dvc.lock" in said


def complete(words: str) -> list[str]:
    """What bash would offer for the last word."""
    parts = words.split(" ")
    asked = {"_HOLDFAST_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    out = subprocess.run([HOLDFAST], env={**os.environ, **asked}, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.split(",", 1)[1] for line in out.stdout.splitlines()]


def test_bash_completes_verbs_studies_and_options():
    assert complete("holdfast p") == ["plan", "push", "pull", "prefer"]
    assert "smoke" in complete("holdfast table sm") and "demo" not in complete("holdfast table sm")
    assert not [name for name in complete("holdfast plan ") if name.startswith("chosen")]
    assert complete("holdfast snapshot r") == ["restore"]
    assert complete("holdfast audit --") == ["--all", "--help"]
    out = subprocess.run(
        [HOLDFAST], env={**os.environ, "_HOLDFAST_COMPLETE": "bash_source"}, capture_output=True, text=True
    )
    assert out.returncode == 0 and "complete -o nosort -F" in out.stdout


def test_every_verb_stands_among_the_commands_and_no_module_is_a_command():
    commands = (ROOT / "docs/commands.md").read_text()
    assert not [verb for verb in VERBS if f"holdfast {verb}" not in commands]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", commands, re.M)}
    assert codes == {int(code) for code in re.findall(r"(?:^|[:;] )(\d+) ", " ".join(EPILOG.split()))}
    for path in [
        ROOT / "README.md",
        ROOT / "examples/README.md",
        ROOT / "Makefile",
        ROOT / "dvc.yaml",
        *ROOT.glob("docs/*.md"),
        ROOT / "CONTRIBUTING.md",
    ]:
        assert "python -m holdfast" not in path.read_text(), path
    mains = [p.name for p in (ROOT / "src").rglob("*.py") if "__main__" in p.read_text()]
    assert sorted(mains) == ["server.py", "vllm_worker.py"], "which are programs of their own"


def test_the_makefile_calls_the_verbs():
    makefile = (ROOT / "Makefile").read_text()
    for verb in ("table", "plan", "push", "pull", "audit", "crate", "documents"):
        assert re.search(rf"\$\(BIN\)/holdfast {verb}\b", makefile), verb


def test_no_error_class_is_without_a_use():
    source = "".join(p.read_text() for p in (ROOT / "src").rglob("*.py") if p.name != "errors.py")
    assert not [e.__name__ for e in HoldfastError.__subclasses__() if f"{e.__name__}(" not in source]


@pytest.mark.parametrize(
    ("online", "begun", "study"),
    [(True, None, "real-small"), (False, None, "real-small-gguf"), (True, "real-small-gguf", "real-small-gguf"),
     (False, "real-small", "real-small")],
)  # fmt: skip
def test_the_real_study_is_the_one_that_can_run_and_stays_it(online, begun, study, tmp_path, monkeypatch, capsys):
    from holdfast.model import hub

    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda source, revision: online)
    if begun:
        (tmp_path / "work" / begun / "base").mkdir(parents=True)
        (tmp_path / "work" / begun / "base/model.safetensors").touch()
    assert main(["real"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{study}\n" and said.err.startswith(f"{study}: ")
    if not online and not begun:
        assert "a rounded copy of HuggingFaceTB/SmolLM2-135M-Instruct" in said.err


@pytest.mark.parametrize("verb", ["fit", "prefer"])
def test_a_place_that_is_none_is_told_and_no_fault_of_ours(verb, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    rows = tmp_path / "rows.csv"
    if verb == "fit":
        rows.write_text("prompt,response,label\n" + "".join(
            f"how to {i},{said},{label}\n" for i in range(3)
            for said, label in (("I cannot help with that.", "full_refusal"), ("First do this.", "compliance"))
        ))  # fmt: skip
    else:
        rows.write_text("prompt,response\nhow to,I cannot help with that.\nhow to,First do this and then that.\n")
    assert main([verb, str(rows), "--out", str(tmp_path / "file" / "out.csv")]) == 2
    said = capsys.readouterr().err
    assert "cannot be read or written" in said and "file" in said and "Traceback" not in said
    assert (
        main([verb, str(rows), "--out", "/proc/own/out.csv"]) == 2 == main([verb, str(rows), "--out", "/proc/out.csv"])
    )
    said = capsys.readouterr().err
    assert said.count("cannot be read or written") == 2 and "Traceback" not in said
    for place in (f"{tmp_path}/./file/out.csv", f"{tmp_path}//file//out.csv", f"{tmp_path}/{'a' * 300}.csv",
                  f"{tmp_path}/{'b/' * 3000}out.csv"):  # fmt: skip
        assert main([verb, str(rows), "--out", place]) == 2
        said = capsys.readouterr().err
        assert "cannot be read or written" in said and ".tmp" not in said
    if verb == "fit":
        assert main([verb, str(rows), "--out", ""]) == 2
        assert main([verb, str(rows), "--out", str(tmp_path)]) == 2
        assert not list(tmp_path.parent.glob("*.tmp"))
    fault = FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "file2"))
    assert files.no_place(fault, [verb, "--out", str(tmp_path)]) is None, "below a place that was named"
    fault = FileExistsError(errno.EEXIST, "File exists", "/nobody/named/this")
    assert files.no_place(fault, [verb, "--out", str(tmp_path)]) is None, "a fault of ours keeps its traceback"
    assert files.no_place(PermissionError(errno.EACCES, "Permission denied", "results/x"), [verb]) is not None


def test_a_home_is_a_home_wherever_a_path_stands(tmp_path, monkeypatch, capsys):
    """`--out=~/x` and `study=~/x.yaml` reach us with their `~`: shells open one only where a word begins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(
        "prompt,response\nhow to,I cannot help with that.\nhow to,First do this and then that.\n"
    )
    (tmp_path / "own.yaml").write_text(f"extends: {ROOT / 'config/smoke.yaml'}\n")
    assert main(["prefer", "~/rows.csv", "--out=~/pairs.csv"]) == 0 and (tmp_path / "pairs.csv").exists()
    assert main(["plan", "~/own.yaml", "--model-config=~/config.json"]) == 2
    assert f"'{tmp_path / 'config.json'}' does not exist" in " ".join(capsys.readouterr().err.split())
    assert resolve.load("~/own.yaml").name == "own"
    (tmp_path / "labels.csv").write_text("prompt,response,label\n" + "".join(
        f"how to {i},{said},{label}\n" for i in range(3)
        for said, label in (("I cannot help with that.", "full_refusal"), ("First do this.", "compliance"))
    ))  # fmt: skip
    assert main(["fit", "~/labels.csv", "--out=~/"]) == 2 and "cannot be read or written" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_a_folder_where_a_file_was_to_be_is_called_one(tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,response\nhow to,I cannot help with that.\n")
    assert main(["prefer", str(rows), "--out", str(tmp_path)]) == 2
    assert re.search(r"found: +a folder$", capsys.readouterr().err, re.M)
    assert main(["prefer", str(rows), "--out", str(rows)]) == 2
    assert re.search(r"found: +a file that is there$", capsys.readouterr().err, re.M)
    monkeypatch.setattr(arguments, "judged", lambda study: (tmp_path, []))
    assert main(["label", "smoke", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and re.search(r"found: +a folder$", said, re.M)
    assert main(["label", "smoke", "--out", str(rows)]) == 2
    assert "perhaps with labels" in capsys.readouterr().err


def test_a_verb_without_its_packages_says_what_to_install():
    """In a process of its own: what other tests have imported is there already."""
    without = "import sys; sys.modules['scipy'] = sys.modules['scipy.stats'] = None\n"
    command = without + "from holdfast.cli.main import main\nsys.exit(main(['plan', 'demo', '--tflops', '1']))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    said = done.stderr
    assert "scipy" in said and "pip install 'holdfast[pipeline,tracking]'" in said and "Traceback" not in said
