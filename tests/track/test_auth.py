"""An MLflow server with passwords: nobody gets in without one, the importer does with it, and it is written nowhere."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import stress
from cells import cell

from holdfast.errors import HoldfastError
from holdfast.record import jsonfiles
from holdfast.track import importing, reach, registered, store

USER, PASSWORD = "admin", "not-to-be-found-anywhere"
SETTINGS = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Address of a server that asks for a password."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.ini").write_text(SETTINGS.format(folder=folder, user=USER, password=PASSWORD))
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(folder / "auth.ini"))
    patch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "of this test")
    port = stress.free_port()
    server = stress.server(folder, port, "--app-name", "basic-auth")
    patch.undo()
    yield f"http://127.0.0.1:{port}"
    stress.kill(server)


def _status(address: str, password: str | None) -> int:
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/search?max_results=1")
    if password is not None:
        code = base64.b64encode(f"{USER}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {code}")
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


def test_nobody_gets_in_without_the_password(guarded):
    assert [_status(guarded, p) for p in (None, "guessed", PASSWORD)] == [401, 401, 200]


def _import(folder: Path, **track: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "table.csv").write_text("a,b\n1,2\n")
    store.create_store({"study": "s"}, folder / "store.json")
    importing.import_study(
        [cell(folder, "full")], extra=[folder / "table.csv"],
        resolved={"study": "s", "track": track},
        out=folder / "mlflow.json", say=lambda _: None,
    )  # fmt: skip
    return folder / "mlflow.json"


def test_a_refused_importer_says_so_and_a_known_one_leaves_no_password(guarded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    with pytest.raises(HoldfastError) as refused:
        _import(tmp_path)
    assert "guessed" not in refused.value.block() and "MLFLOW_TRACKING_PASSWORD" in refused.value.block()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    runs = jsonfiles.read_json(_import(tmp_path))["runs"]
    run = store.client_of(guarded).get_run(runs["s/t/full/seed0"])
    assert run.data.metrics["safety/refusal_rate"] == 0.5
    assert PASSWORD not in str(run.to_dictionary())
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert written and not [p for p in written if PASSWORD.encode() in p.read_bytes()]


@pytest.fixture
def known(guarded, tmp_path, monkeypatch):
    """Be a user of the server, who is made where there is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)

    def be(name: str) -> None:
        body = json.dumps({"username": name, "password": f"password of {name}"}).encode()
        code = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {code}", "Content-Type": "application/json"}
        with contextlib.suppress(urllib.error.HTTPError):  # is there
            urllib.request.urlopen(urllib.request.Request(f"{guarded}/api/2.0/mlflow/users/create", body, headers))
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"password of {name}")

    return be


def test_two_users_with_a_study_of_one_name_stand_side_by_side(guarded, known, tmp_path):
    found = {}
    for name in ("ann", "bob", "bob"):
        known(name)
        record = jsonfiles.read_json(_import(tmp_path / name))
        assert record["view"].startswith(guarded)
        assert found.setdefault(name, record) == record  # again nothing is made
    ann, bob = found["ann"]["experiment"], found["bob"]["experiment"]
    assert bob == "bob/s" and ann in ("s", "ann/s")  # the administrator may have s, of the test above
    client = store.client_of(guarded)
    for name, record in found.items():
        runs = client.search_runs([client.get_experiment_by_name(record["experiment"]).experiment_id])
        assert {r.info.run_id for r in runs} == set(record["runs"].values())
        assert {r.data.tags.get("mlflow.user", name) for r in runs} == {name}


def test_a_registered_model_is_refused_where_it_is_somebody_elses(guarded, known, tmp_path, capsys):
    known("ann")
    assert reach.asked(["other", "safe"]) == 0 and reach.asked(["other", "safe"]) == 0
    known("bob")
    assert reach.asked(["other", "safe"]) == 2
    assert (
        "ArtifactError: track.register: bob may not add versions to the registered model safe."
        in capsys.readouterr().err
    )
    with pytest.raises(HoldfastError, match="bob may not"):
        registered.prepare(guarded, "safe")


def test_before_the_first_job_a_run_that_cannot_be_tracked_ends(guarded, known, tmp_path, monkeypatch, capfd):
    known("ann")
    reach.before("s", ["finetune", "import_runs"], None)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "guessed")
    reach.before("s", ["finetune"], None)  # which writes nothing there
    for address, cure in ((guarded, "MLFLOW_TRACKING_PASSWORD"), (f"http://127.0.0.1:{stress.free_port()}", "repair")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            reach.before("s", ["create_store"], None)
        said = capfd.readouterr().err
        assert ended.value.code == 2 and said.startswith("ArtifactError: ") and cure in said and "guessed" not in said
        assert len(said.splitlines()) == 4 and time.monotonic() - started < 60


@pytest.mark.parametrize("written", [str, shlex.quote])
def test_the_interpreter_is_found_in_a_folder_with_a_blank(written, tmp_path, monkeypatch):
    """Quoted, as the Snakefile leaves it, and as it is."""
    python = tmp_path / "a blank/python"
    python.parent.mkdir()
    python.touch()
    ran: list[str] = []
    monkeypatch.setattr(reach.sys, "executable", written(str(python)))
    monkeypatch.setattr(
        reach.subprocess, "run", lambda command, **_: ran.append(command[0]) or SimpleNamespace(returncode=0)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    reach.before("s", ["import_runs"], None)
    assert ran == [str(python)]
