"""Locks of killed Snakemakes go away, those of living ones stay, and a job ends with its Snakemake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from holdfast.stage import alive

GUARD = (
    "import sys; from holdfast.stage import alive; alive.guard(sys.argv[1]); print('up', flush=True); sys.stdin.read()"
)
JOB = (
    "from holdfast.stage import alive; alive.end_with_snakemake(); print('up', flush=True); import time; time.sleep(60)"
)


def start(code: str, *arguments: str, **variables: str) -> subprocess.Popen:
    env = {k: v for k, v in os.environ.items() if k != alive.VARIABLE} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout.readline() == "up\n"
    return process


def locks(state):
    return list((state / "locks").glob("*.lock"))


def lock(state):
    (state / "locks").mkdir(exist_ok=True)
    (state / "locks/0.output.lock").write_text("results/x\n")


@pytest.fixture
def state(tmp_path):
    lock(tmp_path)
    return tmp_path


def test_a_killed_snakemake_leaves_no_lock(state):
    dead = start(GUARD, str(state))
    assert not locks(state)
    lock(state)
    dead.kill()
    dead.wait()
    start(GUARD, str(state)).kill()
    assert not locks(state)
    assert not (state / f"alive-{alive._host()}-{dead.pid}").exists()


def test_a_living_one_keeps_its_locks(state):
    first = start(GUARD, str(state))
    lock(state)
    second = start(GUARD, str(state))
    assert locks(state)
    first.kill()
    first.wait()
    third = start(GUARD, str(state))  # the second still lives, and whose the locks are nobody says
    assert locks(state)
    second.kill(), third.kill()
    second.wait(), third.wait()
    start(GUARD, str(state)).kill()
    assert not locks(state)


def test_one_on_another_machine_counts_as_alive(state):
    (state / "alive-elsewhere-1").touch()
    start(GUARD, str(state)).kill()
    assert locks(state)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_ends_with_its_snakemake(state, how):
    parent = start(GUARD, str(state))
    path = state / f"alive-{alive._host()}-{parent.pid}"
    job = start(JOB, **{alive.VARIABLE: str(path)})
    time.sleep(0.3)
    assert job.poll() is None
    parent.send_signal(how)
    assert job.wait(timeout=5) == 1


def test_a_job_on_another_machine_or_without_a_snakemake_goes_on():
    for variables in ({}, {alive.VARIABLE: "/nowhere/alive-elsewhere-1"}):
        job = start(JOB, **variables)
        time.sleep(0.3)
        assert job.poll() is None
        job.kill()


def test_a_job_asks_for_no_lock_of_its_own(state, monkeypatch):
    """Else the next Snakemake would take it for one that lives."""
    parent = start(GUARD, str(state))
    lock(state)
    said = str(state / f"alive-{alive._host()}-{parent.pid}")
    job = start(GUARD, str(state), **{alive.VARIABLE: said})
    assert [p.name for p in state.glob("alive-*")] == [said.rpartition("/")[2]] and locks(state)
    job.kill()


def test_without_locks_nobody_is_taken_for_gone(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    (tmp_path / "held").touch()
    monkeypatch.setattr(alive.fcntl, "flock", unsupported)
    ended = threading.Event()
    alive.end_with(tmp_path / "held", ended.set)
    assert not ended.wait(0.5)
    alive.end_with(tmp_path / "gone", ended.set)
    assert ended.wait(30)


def test_a_file_system_without_locks_is_left_alone(state, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(alive.fcntl, "flock", unsupported)
    monkeypatch.delenv(alive.VARIABLE, raising=False)
    alive.guard(state)
    assert locks(state) and alive.VARIABLE not in os.environ
