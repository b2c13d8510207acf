"""Provenance between machines: a workflow runs on A, its files go to B, and Snakemake there knows what made them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from soak import HOLDFAST, SNAKEMAKE

from holdfast.archive import snapshot
from holdfast.engines import snakemake
from holdfast.errors import ArtifactError
from holdfast.record import provenance

SNAKEFILE = """
B = config.get("power", 1)

rule all:
    input: "work/s/c.txt"

rule a:
    input: "source.txt"
    output: "work/s/a.txt"
    params: cfg={}
    shell: "cat {input} > {output}"

rule b:
    input: "work/s/a.txt"
    output: "work/s/b.txt"
    params: cfg={"b": B}
    shell: "cat {input} > {output}; echo {params.cfg[b]} >> {output}"

rule c:
    input: "work/s/b.txt"
    output: "work/s/c.txt"
    params: cfg={}
    shell: "cat {input} > {output}"
"""
FLAGS = [
    "-c1",
    "--rerun-triggers",
    "mtime",
    "params",
    "input",
    "--max-checksum-file-size",
    "100GB",
    "--rerun-incomplete",
]


def run(folder: Path, *flags: str) -> set[str]:
    """The rules Snakemake ran or, with -n, would run."""
    out = subprocess.run([SNAKEMAKE, *FLAGS, *flags], cwd=folder, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return set(re.findall(r"^(?:local)?rule (\w+):", out.stdout + out.stderr, re.M)) - {"all"}


@pytest.fixture(scope="module")
def machine_a(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("a")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "source.txt").write_text("one\n")
    assert run(folder) == {"a", "b", "c"}
    assert sorted(snapshot.save(folder).rebuilt) == ["work/s/a.txt", "work/s/b.txt", "work/s/c.txt"]
    return folder


@pytest.fixture
def machine_b(machine_a, tmp_path) -> Path:
    """A clone at another path: the same files, times in a bad order, no memory of Snakemake."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(machine_a, folder, ignore=shutil.ignore_patterns(".snakemake"))
    for age, name in enumerate(("source.txt", "work/s/a.txt", "work/s/b.txt", "work/s/c.txt")):
        os.utime(folder / name, (2e9 - age * 1e6,) * 2)
    return folder


def test_a_clone_knows_what_made_its_files(machine_b):
    os.utime(machine_b / "source.txt", (1e9, 1e9))
    assert len(snapshot.restore(machine_b).ok) == 3
    assert run(machine_b, "-n") == set()
    assert run(machine_b, "-n", "--config", "power=2") == {"b", "c"}
    assert run(machine_b, "--config", "power=2") == {"b", "c"}
    assert run(machine_b, "-n", "--config", "power=2") == set()
    found = snapshot.restore(machine_b)
    assert (found.ok, found.rebuilt) == (["work/s/a.txt"], ["work/s/b.txt", "work/s/c.txt"])
    assert run(machine_b, "-n") == {"b", "c"}, "what was rebuilt with power=2 is not what power=1 asks for"


def test_a_clone_without_a_restore_would_miss_the_change(machine_b):
    """Why restore exists: no records, and times as git and DVC leave them, mean no rerun."""
    for name in ("source.txt", "work/s/a.txt", "work/s/b.txt", "work/s/c.txt"):
        os.utime(machine_b / name, (1e9, 1e9))
    assert run(machine_b, "-n", "--config", "power=2") == set()


def test_files_that_were_not_pulled_are_not_made_again(machine_b):
    (machine_b / "work/s/a.txt").unlink()
    os.utime(machine_b / "source.txt", (1e9, 1e9))
    found = snapshot.restore(machine_b)
    assert found.absent == ["work/s/a.txt"] and len(found.ok) == 2
    assert run(machine_b, "-n") == set()
    entries = json.loads((machine_b / snapshot.FILE).read_text())
    assert snapshot.save(machine_b).absent == ["work/s/a.txt"]
    assert json.loads((machine_b / snapshot.FILE).read_text()) == entries


def test_another_input_makes_what_depends_on_it_stale(machine_b):
    (machine_b / "source.txt").write_text("two\n")
    found = snapshot.restore(machine_b)
    assert found.stale == ["work/s/a.txt"] and len(found.ok) == 2
    assert run(machine_b) == {"a", "b", "c"}
    assert (machine_b / "work/s/c.txt").read_text() == "two\n1\n"


def test_the_same_bytes_from_other_inputs_have_a_new_record(machine_a, tmp_path):
    folder = tmp_path / "here"
    shutil.copytree(machine_a, folder)
    (folder / "Snakefile").write_text(SNAKEFILE.replace('cat {input} > {output}"\n', 'echo the same > {output}"\n'))
    shutil.rmtree(folder / "work")
    assert run(folder) == {"a", "b", "c"}
    snapshot.save(folder)
    same = (folder / "work/s/c.txt").read_bytes()
    assert run(folder, "--config", "power=2") == {"b", "c"} and (folder / "work/s/c.txt").read_bytes() == same
    assert snapshot.save(folder).rebuilt == ["work/s/b.txt", "work/s/c.txt"]
    clone = tmp_path / "there"
    shutil.copytree(folder, clone, ignore=shutil.ignore_patterns(".snakemake"))
    assert len(snapshot.restore(clone).ok) == 3
    assert run(clone, "-n", "--config", "power=2") == set()


@pytest.mark.parametrize("keep_time", [False, True])
def test_bytes_no_job_wrote_are_corrupt(machine_a, tmp_path, keep_time):
    folder = tmp_path / "copy"
    shutil.copytree(machine_a, folder)
    path = folder / "work/s/b.txt"
    times = path.stat()
    path.write_text("one\n9\n")
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = (folder / snapshot.FILE).read_text()
    assert snapshot.save(folder).corrupt == ["work/s/b.txt"]
    assert (folder / snapshot.FILE).read_text() == before
    found = snapshot.restore(folder)
    assert found.corrupt == ["work/s/b.txt"] and found.stale == ["work/s/c.txt"]
    assert path.read_text() == "one\n9\n", "restore never writes an output"


def test_the_command_says_what_is_corrupt(machine_b):
    (machine_b / "work/s/b.txt").write_text("")
    out = subprocess.run([HOLDFAST, "snapshot", "restore", "s"], cwd=machine_b, capture_output=True, text=True)
    assert out.returncode == 2 and "work/s/b.txt is not what a job wrote" in out.stderr
    assert out.stdout == "restore: 1 ok, 1 stale, 1 corrupt\n"


def test_a_conflict_in_the_file_is_one_block(machine_b):
    path = machine_b / snapshot.FILE
    path.write_text("<" * 7 + " ours\n" + path.read_text())
    with pytest.raises(ArtifactError, match=r"provenance\.json cannot be read"):
        snapshot.restore(machine_b)
    out = subprocess.run([HOLDFAST, "snapshot", "save"], cwd=machine_b, capture_output=True, text=True)
    assert out.returncode == 2 and out.stderr.startswith("ArtifactError: ") and "Traceback" not in out.stderr


def test_a_link_into_a_cache_is_never_written_through(machine_b, tmp_path):
    """DVC may link files to its cache: their records are new files, their bytes stay."""
    path = machine_b / "work/s/a.txt"
    cached = tmp_path / "cache-object"
    shutil.move(path, cached)
    path.symlink_to(cached)
    digest = provenance.file_digest(cached)
    os.utime(machine_b / "source.txt", (1e9, 1e9))
    snapshot.restore(machine_b)
    assert run(machine_b, "-n") == set() and provenance.file_digest(cached) == digest


@example(["x" * 184])  # a name of 252 characters: the last part of a record's path may be as long as names get
@example(["x" * 375])
@given(st.lists(st.text("abcdefgh-0123456789.", min_size=1, max_size=60), min_size=1, max_size=12))
def test_a_record_is_found_again_whatever_the_length_of_its_name(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("r")
    output = "work/" + "/".join(parts)
    record = {"rule": "x", "endtime": 1.0, "incomplete": False, "record_format_version": snakemake.FORMAT}
    snakemake.remember(root, output, record)
    assert list(snakemake.records(root)) == [(output, record)]
