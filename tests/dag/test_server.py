"""A tracking server on PostgreSQL, two users with a study of one name, kills: nothing is lost, nothing is mixed.

`make tracking-server-test` runs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import soak
import stress
import yaml

from holdfast.record import jsonfiles
from holdfast.serve import postgres, tracking
from holdfast.track import store

ASKED, USERS = "HOLDFAST_SERVER", ("ann", "bob")
pytestmark = [
    pytest.mark.dag, pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get(ASKED), reason=f"{ASKED} is not set: make tracking-server-test"),
    pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL is installed"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))  # short, and others may pass through
    folder.chmod(0o711)
    found = tracking.Server(folder / "server")
    try:
        found.start(port=stress.free_port())
        found.users = {name: found.add_user(name) for name in USERS}
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder)


@pytest.fixture
def as_user(server, monkeypatch):
    """The environment of a user, and this process as one."""

    def be(name: str) -> dict[str, str]:
        password = server.users.get(name) or server.password.read_text()
        own = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_TRACKING_USERNAME": name,
               "MLFLOW_TRACKING_PASSWORD": password}  # fmt: skip
        for key, value in own.items():
            monkeypatch.setenv(key, value)
        return os.environ | own

    return be


def _kill(server: tracking.Server) -> None:
    """Everything of it at once, as a machine that goes off."""
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    for process in server.processes():
        process.kill()


def test_two_imports_at_once_survive_a_server_that_is_killed(server, as_user, tmp_path, monkeypatch):
    monkeypatch.setattr(stress, "CELLS", 4)
    monkeypatch.setattr(stress, "POINTS", 1000)
    running = {}
    for name in USERS:
        (tmp_path / name).mkdir()
        cells = stress.planted(tmp_path / name)
        as_user(name)
        running[name] = (cells, stress.importer(tmp_path / name, cells))
    as_user("admin")
    client, until = store.client_of(server.address), time.monotonic() + 900
    while time.monotonic() < until:  # both have begun, neither is done
        number = [e.experiment_id for e in client.search_experiments() if e.name in ("s", "ann/s", "bob/s")]
        if len(number) == 2 and len(client.search_runs(number)) > 2:
            break
        time.sleep(0.2)
    _kill(server)
    assert {process.poll() for _, process in running.values()} == {None}, "an import ended before the server was killed"
    time.sleep(10)
    server.start()
    for name, (cells, process) in running.items():
        as_user(name)
        code = process.wait()
        while code:  # one that gave up; the same command again is all
            assert code == 1  # of Python, which the stage makes a block
            code = stress.importer(tmp_path / name, cells).wait()
    experiments = {e.name: e for e in client.search_experiments() if "s" in e.name.split("/")}
    assert len(experiments) == 2 and {e.tags[store.OWNER] for e in experiments.values()} == set(USERS)
    for name in experiments:
        as_user("admin")
        stress.complete(server.address, name)


def _snakemake(folder: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [soak.SNAKEMAKE, "--cores", "2", "--config", "study=smoke", *arguments], cwd=folder, capture_output=True,
        text=True, env=env | {"PYTHONPATH": str(folder / "src")},
    )  # fmt: skip


def test_a_study_of_two_users_is_registered_side_by_side_and_a_wrong_password_ends_it_first(
    server, as_user, project, tmp_path
):
    found = {}
    for name in USERS:
        folder = tmp_path / name
        shutil.copytree(project, folder, symlinks=True)
        for path in (folder / "results/smoke").glob("mlflow*.json"):
            path.unlink()
        config = folder / "config/smoke.yaml"
        study = yaml.safe_load(config.read_text())
        config.write_text(yaml.safe_dump(study | {"track": {"register": f"safe-{name}", "arms": ["warp", "full"]}}))
        refused = _snakemake(folder, as_user(name) | {"MLFLOW_TRACKING_PASSWORD": "guessed"}, "--", "mlflow")
        assert refused.returncode == 2 and "MLFLOW_TRACKING_PASSWORD" in refused.stderr, refused.stderr[-3000:]
        assert not (folder / "results/smoke/mlflow-store.json").exists() and "guessed" not in refused.stderr
        done = _snakemake(folder, as_user(name), "--", "mlflow")
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = jsonfiles.read_json(folder / "results/smoke/mlflow.json")
    assert {record["experiment"] for record in found.values()} == {"smoke", "bob/smoke"}
    server.stop()
    server.start()
    for name, record in found.items():
        as_user(name)
        client = store.client_of(server.address)
        for run in record["runs"].values():
            assert client.get_run(run).info.status == "FINISHED"
        assert "table.csv" in {f.path for f in client.list_artifacts(record["runs"]["comparison"])}
        versions = client.search_model_versions(f"name = 'safe-{name}'")
        assert {(v.tags["arm"], v.tags["task"]) for v in versions} == {
            (arm, task) for arm in ("full", "warp") for task in ("agnews", "crafts")
        }  # fmt: skip
        aliases = client.get_registered_model(f"safe-{name}").aliases
        assert len(aliases) == 4 and f"{record['experiment'].replace('/', '-')}-crafts-warp-s0" in aliases
    # What ann made bob reads and does not change.
    as_user("bob")
    with pytest.raises(Exception, match="403"):
        store.client_of(server.address).set_tag(next(iter(found["ann"]["runs"].values())), "mine", "now")
    server.stop()
    assert not server.processes() and not postgres.running(server.data)
