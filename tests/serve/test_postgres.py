"""A private PostgreSQL: made, killed, started again, ended; and what it is refused for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from holdfast.errors import EngineError
from holdfast.serve import postgres


@pytest.fixture
def folder():
    """A short path that another user may pass through."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def _ask(data: Path, question: str) -> str:
    import sqlalchemy

    with sqlalchemy.create_engine(postgres.address(data), isolation_level="AUTOCOMMIT").connect() as connection:
        found = connection.execute(sqlalchemy.text(question))
        return str(found.scalar()) if found.returns_rows else ""


@pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL is installed")
def test_it_is_private_keeps_what_it_has_and_comes_back_after_a_kill(folder):
    data, log = folder / "a b%c" / "data", folder / "log"
    data.parent.mkdir()
    data.parent.chmod(0o711)
    try:
        if os.geteuid() == 0 and not Path("/etc/passwd").read_text().count("\npostgres:"):
            pytest.skip("root, and no user postgres")
        half = data.with_name("data.new")
        half.mkdir()  # of a start that was killed
        (half / "PG_VERSION").touch()
        for _ in range(2):
            postgres.start(data, log, connections=77)
        assert postgres.running(data) and _ask(data, "show max_connections") == "77"
        assert _ask(data, "show listen_addresses") == "" and data.stat().st_mode & 0o077 == 0
        _ask(data, "create table kept (a int)")
        killed = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60  # until it is gone, which takes a while on a busy machine
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(killed).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
                time.sleep(0.05)
        postgres.start(data, log, connections=77)
        assert _ask(data, "select count(*) from kept") == "0"
        postgres.stop(data)
        assert not postgres.running(data) and log.stat().st_mode & 0o077 == 0
    finally:
        postgres.stop(data)


@pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL is installed")
def test_it_comes_back_where_nobody_collects_the_killed_process(folder, monkeypatch):
    """The marks of a process that is dead and still counted, as those of a server under an idle first process."""
    if os.geteuid() == 0 and not Path("/etc/passwd").read_text().count("\npostgres:"):
        pytest.skip("root, and no user postgres")
    data, log = folder / "data", folder / "log"
    dead = subprocess.Popen(["true"], **postgres._owner(folder))  # of its user, and nobody waits for it
    try:
        postgres.start(data, log, connections=7)
        marks = {p: p.read_text() for p in (data / "postmaster.pid", data / f".s.PGSQL.{postgres.PORT}.lock")}
        postgres.stop(data)
        for mark, text in marks.items():
            mark.write_text("\n".join([str(dead.pid), *text.splitlines()[1:]]) + "\n")
            mark.chmod(0o644)
        monkeypatch.setattr(postgres, "PATIENCE_SECONDS", 0.5)
        postgres.start(data, log, connections=7)
        assert _ask(data, "select 1") == "1"
    finally:
        postgres.stop(data)
        dead.wait()


def test_without_its_programs_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(postgres, "_PACKAGES", folder)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(EngineError, match="apt-get install postgresql"):
        postgres.start(folder / "data", folder / "log", connections=9)


@pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL is installed")
def test_a_folder_that_no_socket_fits_in_or_nobody_else_may_enter_is_refused(folder):
    with pytest.raises(EngineError, match="too long for a socket"):
        postgres.start(folder / ("x" * 100), folder / "log", connections=9)
    if os.geteuid() == 0:
        folder.chmod(0o700)
        with pytest.raises(EngineError, match="cannot reach"):
            postgres.start(folder / "data", folder / "log", connections=9)
    assert not list(folder.iterdir())


@pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL is installed")
def test_a_program_that_fails_is_one_block_with_its_last_line(folder, monkeypatch):
    (folder / "data").mkdir()
    subprocess.run(["chmod", "711", folder], check=True)
    with pytest.raises(EngineError) as failed:  # no cluster of ours
        postgres.start(folder / "data", folder / "log", connections=9)
    assert "pg_ctl failed" in failed.value.block() and "Traceback" not in failed.value.block()
