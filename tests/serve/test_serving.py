"""What a tracking server is told, and what it is refused for, without one."""

from __future__ import annotations

import configparser
import socket

import pytest

from holdfast.cli.main import main
from holdfast.errors import EngineError, HoldfastError
from holdfast.record import jsonfiles
from holdfast.serve import postgres, tracking


def test_secrets_are_made_once_and_read_by_nobody_else(tmp_path):
    server = tracking.Server(tmp_path / "a%b")
    server.folder.mkdir()
    server._secrets()
    first = {path: path.read_text() for path in (server.auth, server.key, server.password)}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in first)
    server._secrets()
    assert {path: path.read_text() for path in first} == first
    read = configparser.ConfigParser()  # as MLflow reads it
    read.read(server.auth)
    told = read["mlflow"]
    assert told["admin_password"] == first[server.password] and told["default_permission"] == "READ"
    assert told["database_uri"] == postgres.address(server.data)


def test_every_request_that_is_answered_at_a_time_finds_a_connection():
    """A worker has 40 threads, and three stores with a pool each."""
    assert sum(int(size) for size in tracking.POOL.values()) >= 40
    assert tracking.CONNECTIONS > tracking.WORKERS * 3 * 40


def test_a_taken_port_and_a_lacking_package_are_refused(tmp_path, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(EngineError, match="--port"):
            tracking.Server(tmp_path).start(port=other.getsockname()[1])
    assert not (tmp_path / "postgresql").exists()
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="psycopg2-binary"):
        tracking.Server(tmp_path).start()


def test_settings_are_kept_and_where_nothing_runs_nothing_is_stopped(tmp_path, capsys):
    jsonfiles.write_json(tmp_path / "server.json", {"port": 5003, "host": "0.0.0.0"})
    server = tracking.Server(tmp_path)
    assert server.address == "http://127.0.0.1:5003" and not server.settings["artifacts"]
    assert main(["server", "stop", "--folder", str(tmp_path)]) == 0 and capsys.readouterr().out == "did not run\n"
    with pytest.raises(HoldfastError, match="did not make the user ann"):
        server.add_user("ann")
