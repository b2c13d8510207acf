"""Text is UTF-8 whatever the machine's locale says: no file is opened with a guess, no digest depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bad_input import GOOD
from conftest import ROOT
from soak import HOLDFAST

# Python takes ASCII for the encoding of files under this one, and says where a file is opened without one.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONWARNDEFAULTENCODING": "1"}
SRC = str(ROOT / "src")


def run(*command: object, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ASCII, "PYTHONPATH": SRC, **more}
    return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, encoding="utf-8")


def ours(said: str) -> list[str]:
    """Warnings about files that this project opens."""
    places = (SRC, str(ROOT / "scripts"), str(ROOT / "Snakefile"), str(ROOT / "rules"))
    return [line for line in said.splitlines() if "EncodingWarning" in line and line.startswith(places)]


def test_the_locale_of_this_file_is_one_that_knows_no_umlaut():
    out = run(sys.executable, "-c", "import locale; print(locale.getpreferredencoding(False))")
    assert "ascii" in out.stdout.lower() or "ansi_x3.4" in out.stdout.lower()


@pytest.mark.parametrize(
    "command",
    [
        [HOLDFAST, "documents", "--check"],
        [HOLDFAST, "plan", "smoke", "--tflops", "1"],
        [HOLDFAST, "audit", "--help"],
        [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--config", "study=smoke-methods"],
    ],
    ids=lambda c: " ".join(map(str, c[1:3])),
)
def test_commands_work_and_open_no_file_by_guess(command):
    out = run(*command)
    assert out.returncode == 0, out.stderr[-2000:]
    assert not ours(out.stderr), out.stderr


def test_letters_the_terminal_may_not_know_are_no_error(tmp_path):
    (tmp_path / "results/s").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/s.yaml").write_text(yaml.safe_dump(GOOD), encoding="utf-8")
    row = "task,arm,split,seeds,weights/changed_fraction\nagnews,full,test,1,0.5\n"
    (tmp_path / "results/s/table.csv").write_text(row, encoding="utf-8")
    out = run(HOLDFAST, "table", "s", cwd=tmp_path)
    assert out.returncode == 0 and "\N{EN DASH}" in out.stdout  # for a cell without a number
    out = run(HOLDFAST, "table", "\N{SNOWMAN}", cwd=tmp_path)
    assert out.returncode == 2 and "Error: " in out.stderr and "Traceback" not in out.stderr


def test_digests_do_not_depend_on_the_locale():
    code = (
        "from pathlib import Path; from holdfast.record import provenance; from holdfast.study import resolve\n"
        "r = resolve.load('smoke'); print(provenance.digest(r.dump()))\n"
        "print(provenance.code_digest(*sorted(Path('scripts').glob('*.py'))))"
    )
    plain = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert run(sys.executable, "-c", code).stdout == plain.stdout


def test_text_with_letters_of_all_kinds_survives_a_stage(tmp_path):
    code = (
        "from pathlib import Path; from holdfast.record import csvfiles, files, jsonfiles, tables\n"
        "text = '\\u00fc \\u4f60\\u597d \\U0001f600'; p = Path('t.txt'); files.write_text(p, text)\n"
        "assert p.read_bytes().decode('utf-8') == text\n"
        "jsonfiles.write_json('j.json', {'a': text}); assert jsonfiles.read_json('j.json') == {'a': text}\n"
        "csvfiles.write_csv(Path('c.csv'), [{'a': text}]); assert csvfiles.read_csv(Path('c.csv')) == [{'a': text}]\n"
        "tables.write([{'prompt': text, 'response': text, 'id': 'x'}], 'x.parquet', 'judge_examples')\n"
        "assert tables.read('x.parquet', 'judge_examples')[0]['prompt'] == text\n"
    )
    out = run(sys.executable, "-W", "error::EncodingWarning:holdfast", "-c", code, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
