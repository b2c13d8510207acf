"""Insides of Snakemake, DVC and MLflow: what the installed versions write just now is what holdfast reads."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT
from soak import SNAKEMAKE

from holdfast.engines import dvc, snakemake, versions
from holdfast.errors import ArtifactError, EngineError
from holdfast.record import provenance
from holdfast.track import store

WORKFLOW = """\
rule all:
    input: "work/s/b.txt"
rule a:
    input: "source.txt"
    output: "work/s/a.txt"
    params: cfg={"n": 1}
    shell: "cp {input} {output}"
rule b:
    input: "work/s/a.txt"
    output: "work/s/b.txt"
    shell: "ls .snakemake/locks > {output}"
"""


# ---- versions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", versions.TESTED)
def test_the_pinned_version_is_the_last_that_was_tested(engine):
    pinned = re.search(rf"^{engine}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert versions.TESTED[engine][-1] == pinned


@pytest.mark.parametrize("engine", versions.TESTED)
def test_another_major_version_is_one_block(engine, monkeypatch):
    versions.check(engine, "Its files are")
    monkeypatch.setattr(versions, "version", lambda _: "99.1.0")
    with pytest.raises(EngineError) as error:
        versions.check(engine, "Its files are")
    block = error.value.block()
    assert f"{engine} 99.1.0" in block and versions.TESTED[engine][-1] in block and "constraints.txt" in block


# ---- Snakemake --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A folder in which the installed Snakemake just ran two jobs."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "Snakefile").write_text(WORKFLOW)
    (folder / "source.txt").write_text("x\n")
    out = subprocess.run([SNAKEMAKE, "--cores", "1"], cwd=folder, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return folder


def test_records_have_the_format_and_the_keys_that_are_read(ran):
    found = dict(snakemake.records(ran))
    assert set(found) == {"work/s/a.txt", "work/s/b.txt"}
    record = found["work/s/a.txt"]
    assert set(snakemake.KEPT) <= record.keys() and "starttime" in record
    assert record["record_format_version"] == snakemake.FORMAT and record["incomplete"] is False
    assert record["input_checksums"] == {"source.txt": f"sha256:{provenance.file_digest(ran / 'source.txt')}"}
    assert abs(record["endtime"] - (ran / "work/s/a.txt").stat().st_mtime) < 1e-3
    assert snakemake.record_file(ran, "work/s/a.txt").is_file()


def test_locks_lie_where_the_guard_looks_for_them(ran):
    names = (ran / "work/s/b.txt").read_text().split()
    assert names and all(name.endswith(".lock") for name in names)
    assert Path(".snakemake/locks") == snakemake.LOCKS


def test_what_it_prints_of_a_dry_run_is_read(ran, tmp_path, monkeypatch):
    shutil.copytree(ran, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    assert snakemake.dry_run("all", None) == []
    text = Path("Snakefile").read_text()
    Path("Snakefile").write_text(text.replace('{"n": 1}', '{"n": 2}'))
    first, *rest = snakemake.dry_run("all", None)
    assert (first.rule, first.inputs, first.outputs) == ("a", ("source.txt",), ("work/s/a.txt",))
    assert "'n': 1" in first.reasons["params"] and "'n': 2" in first.reasons["params"]
    assert [job.rule for job in rest] == ["b", "all"] and "follows" in rest[0].reasons


def test_its_summary_is_read(ran, monkeypatch):
    monkeypatch.chdir(ran)
    assert snakemake.summary(Path("x.yaml")) == {"work/s/a.txt": ("ok", False), "work/s/b.txt": ("ok", False)}


@pytest.mark.parametrize("said", ["Nichts zu tun.\n", ""])
def test_a_dry_run_in_other_words_is_one_block(said, monkeypatch):
    done = subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    monkeypatch.setattr(snakemake.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(EngineError, match="dry run is not as holdfast knows it"):
        snakemake.dry_run("all", None)
    with pytest.raises(EngineError, match="summary is not as holdfast knows it"):
        snakemake.summary(Path("x.yaml"))


# ---- DVC --------------------------------------------------------------------------------------------


@pytest.fixture
def committed(tmp_path, monkeypatch) -> Path:
    """A folder whose file and subfolder the installed DVC just committed and pushed."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("f/a.txt", "a"), ("f/sub/b.txt", "b"), ("one.txt", "1")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("dvc.yaml").write_text("stages: {s: {cmd: 'true', outs: [f, one.txt]}}\n")
    for command in (["init", "--no-scm", "--quiet"], ["remote", "add", "--default", "r", str(tmp_path / "remote")],
                    ["commit", "--force", "--quiet"], ["push", "--quiet"]):  # fmt: skip
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)
    return tmp_path


def test_a_lock_and_its_objects_are_read(committed):
    found = {out.path: out for out in dvc.locked(Path("dvc.lock"))}
    assert set(found) == {"f", "one.txt"} and {out.stage for out in found.values()} == {"s"}
    assert found["f"].md5.endswith(dvc.FOLDER) and not found["one.txt"].md5.endswith(dvc.FOLDER)
    cache, remote = dvc.stores()
    one, listed = found["one.txt"].md5, found["f"].md5
    for place in (cache, remote):
        assert sorted(e["relpath"] for e in dvc.listing([None, place], listed)) == ["a.txt", "sub/b.txt"]
        assert place.state(one) == "ok" and place.sizes([one, "0" * 32]) == {one: 1}
    path = Path(remote.path(one))
    path.chmod(0o644)
    path.write_text("2")
    assert remote.states([one, listed]) == {one: "other", listed: "ok"}
    remote.remove([listed])
    assert not Path(remote.path(listed)).exists() and dvc.listing([remote], listed) is None
    path.unlink()
    assert remote.state(one) == "absent" and remote.sizes([one]) == {}
    path.mkdir()  # which cannot be read, and that is not the same as absent
    with pytest.raises(ArtifactError, match="cannot be read"):
        remote.state(one)


@pytest.mark.parametrize(
    ("old", "new"), [("schema: '2.0'", "schema: '3.0'"), ("hash: md5", "hash: blake3"), ("stages:", "steps:"),
                     ("md5: ", "digest: ")],
)  # fmt: skip
def test_a_lock_of_another_form_is_one_block(committed, old, new):
    lock = Path("dvc.lock")
    assert old in lock.read_text()
    lock.write_text(lock.read_text().replace(old, new))
    with pytest.raises(EngineError, match="not as holdfast knows it"):
        dvc.locked(lock)


@pytest.mark.parametrize(
    ("prepare", "arguments", "says"),
    [
        (lambda: None, ("push",), "not inside of a DVC repository"),
        (lambda: _with_remote("/nowhere"), ("push", "absent"), "absent"),
        (lambda: _with_remote("s3://nobody/nothing"), ("push",), "dvc-s3"),
    ],
    ids=["no project", "no such stage", "no plugin"],
)  # fmt: skip
def test_what_dvc_says_of_its_failure_is_shown(tmp_path, monkeypatch, prepare, arguments, says):
    monkeypatch.chdir(tmp_path)
    prepare()
    with pytest.raises(ArtifactError, match="did not finish") as error:
        dvc.run(*arguments)
    assert says in error.value.found and "no message" not in error.value.block()


def _with_remote(address: str) -> None:
    for command in (["init", "--no-scm", "-q"], ["remote", "add", "-d", "r", address, "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)
    Path("a.txt").write_text("a")
    subprocess.run([sys.executable, "-m", "dvc", "add", "a.txt", "-q"], check=True, capture_output=True)


# ---- MLflow -----------------------------------------------------------------------------------------


def test_a_database_of_the_installed_mlflow_is_whole_in_one_file(tmp_path, monkeypatch):
    """The store is made beside its name and renamed: nothing of it may lie in another file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = store.create_store({"study": "s"}, tmp_path / "store.json")
    assert {p.name for p in tmp_path.iterdir()} == {"mlflow.db", "store.json"}
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        assert {"alembic_version", "experiments", "runs", "metrics", "tags"} <= tables
        assert database.execute("select name from experiments where name = 's'").fetchall() == [("s",)]
    assert made["uri"].endswith("mlflow.db") and version("mlflow").split(".")[0] == "3"


def test_a_database_of_another_version_is_one_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.create_store({"study": "s"}, tmp_path / "store.json")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = 'cafe'")
    code = (
        "from pathlib import Path; from holdfast.errors import EngineError; from holdfast.track import store\n"
        "try: store.create_store({'study': 't'}, Path('again.json'))\nexcept EngineError as e: print(e.block())"
    )  # in a process of its own, as the next run is: MLflow looks once
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "made by another version of MLflow" in said and "mlflow db upgrade sqlite:///" in said
    assert "schema cafe" in said and f"tested with mlflow {versions.TESTED['mlflow'][-1]}" in said
    assert not (tmp_path / "again.json").exists()


def test_what_the_snakefile_takes_away_is_there():
    """Its limit of submissions, without which it does not plan again and again (docs/performance.md)."""
    from snakemake.scheduling.job_scheduler import JobScheduler

    for method in (JobScheduler.__init__, JobScheduler.schedule, JobScheduler.job_selector):
        assert "job_rate_limiter" in method.__code__.co_names
    assert "workflow.scheduler.job_rate_limiter = None" in (ROOT / "Snakefile").read_text()
