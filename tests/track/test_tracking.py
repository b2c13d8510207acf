"""MLflow as a view of the files: idempotent, complete, parallel-safe, and never in the way."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cells import POINTS, cell

from holdfast.track import importing, live, store


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An initialised store, made once: creating one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.create_store({"study": "s"}, folder / "store.json")
    patch.undo()
    return folder


@pytest.fixture
def opened(template, tmp_path, monkeypatch):
    import shutil

    shutil.copy(template / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return store.create_store({"study": "s"}, tmp_path / "store.json")


def _runs(opened):
    client = store.client_of(opened["uri"])
    return client, client.search_runs([opened["experiment_id"]])


def test_the_store_is_absolute_and_made_once(opened, tmp_path):
    assert opened["uri"] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store.create_store({"study": "s"}, tmp_path / "again.json") == opened


def test_a_store_whose_making_was_killed_is_made_again(tmp_path, monkeypatch):
    """Between two of MLflow's migrations a database is of no use to anyone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "from pathlib import Path; from holdfast.track import store; store.create_store({'study': 's'}, Path('x.json'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    half = tmp_path / "mlflow.db.tmp"
    while process.poll() is None and not (half.exists() and half.stat().st_size > 20_000):
        time.sleep(0.005)
    process.kill()
    assert process.wait() != 0 and half.exists() and not (tmp_path / "mlflow.db").exists()
    opened = store.create_store({"study": "s"}, tmp_path / "store.json")
    assert (tmp_path / "mlflow.db").exists() and not half.exists()
    assert store.client_of(opened["uri"]).get_experiment_by_name("s").experiment_id == opened["experiment_id"]


def test_importing_twice_changes_nothing_and_no_point_is_lost(opened, tmp_path):
    path = cell(tmp_path, "full")
    first = importing.import_cell(opened, path, {"a": 1}, print)
    assert importing.import_cell(opened, path, {"a": 1}, print) == first
    client, runs = _runs(opened)
    assert [r.info.status for r in runs] == ["FINISHED"]
    assert len(client.get_metric_history(first, "train/loss")) == POINTS
    assert runs[0].data.params["setting.trainable"] == "all" and runs[0].data.metrics["safety/refusal_rate"] == 0.5


def test_changed_files_replace_the_run_and_a_rename_survives(opened, tmp_path):
    path = cell(tmp_path, "full")
    first = importing.import_cell(opened, path, {}, print)
    client, _ = _runs(opened)
    client.set_tag(first, "mlflow.runName", "my favourite")
    client.set_tag(first, "mlflow.note.content", "look at step 3")
    client.set_tag(first, "paper", "figure 2")
    assert importing.import_cell(opened, path, {}, print) == first
    cell(tmp_path, "full", rate=0.7, points=POINTS + 5)
    second = importing.import_cell(opened, path, {}, print)
    _, runs = _runs(opened)
    # What the user added moves to the new run.
    assert runs[0].info.run_name == "my favourite" and runs[0].data.tags["paper"] == "figure 2"
    assert runs[0].data.tags["mlflow.note.content"] == "look at step 3"
    assert second != first and [r.info.run_id for r in runs] == [second]
    assert len(client.get_metric_history(second, "train/loss")) == POINTS + 5


def test_an_interrupted_import_is_replaced(opened, tmp_path):
    path = cell(tmp_path, "full")
    client, _ = _runs(opened)
    client.create_run(opened["experiment_id"], tags={store.CELL: "s/t/full/seed0"})  # RUNNING for ever
    kept = importing.import_cell(opened, path, {}, print)
    _, runs = _runs(opened)
    assert [(r.info.run_id, r.info.status) for r in runs] == [(kept, "FINISHED")]


def _import(arguments):
    opened, path, folder = arguments
    import os

    os.chdir(folder)
    return importing.import_cell(opened, Path(path), {}, lambda _: None)


def test_parallel_imports_of_the_same_and_of_other_cells(opened, tmp_path):
    paths = [cell(tmp_path, f"arm{i % 3}") for i in range(6)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_import, [(opened, str(p), str(tmp_path)) for p in paths])
    client, runs = _runs(opened)
    assert len(runs) == 3 and {r.info.status for r in runs} == {"FINISHED"}
    assert all(len(client.get_metric_history(r.info.run_id, "train/loss")) == POINTS for r in runs)


def test_live_curves_appear_while_training(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LIVE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(live, "LIVE_EVERY_SECONDS", 0.1)
    path = cell(tmp_path, "full")
    curve = path.with_name("train.jsonl")
    lines = curve.read_text().splitlines(keepends=True)
    partial = curve.with_name("train.jsonl.partial")
    partial.write_text("".join(lines[:10]) + '{"step": 1')  # and a line being written
    seen = 0
    with live.live({"study": "s", "cell": "s/t/full/seed0"}, curve, print):
        client, _ = _runs(opened)
        end = time.monotonic() + 20
        while time.monotonic() < end and seen < 10:
            runs = client.search_runs([opened["experiment_id"]])
            seen = len(client.get_metric_history(runs[0].info.run_id, "train/loss")) if runs else 0
            time.sleep(0.1)
    assert seen == 10
    importing.import_cell(opened, path, {}, print)
    _, runs = _runs(opened)
    assert len(runs) == 1 and len(client.get_metric_history(runs[0].info.run_id, "train/loss")) == POINTS


def test_points_of_a_real_training_are_in_mlflow_before_it_ends(
    opened, model, tokenizer, encoded, tmp_path, monkeypatch
):
    from holdfast.train import loop

    monkeypatch.setattr(live, "LIVE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(live, "LIVE_EVERY_SECONDS", 0.1)
    client, _ = _runs(opened)
    curve, step, seen = tmp_path / "cell" / "train.jsonl", [0], []

    def look(model):
        """At step 20 of 30 the training waits until its first points are there, then goes on."""
        step[0] += 1
        end = time.monotonic() + 30
        while step[0] == 20 and not seen and time.monotonic() < end:
            for run in client.search_runs([opened["experiment_id"]]):
                if client.get_metric_history(run.info.run_id, "train/loss"):
                    seen.append(run.info.status)
            time.sleep(0.1)

    with live.live({"study": "s", "cell": "s/t/full/seed0"}, curve, print):
        loop.train(
            model, tokenizer, encoded, loop.TrainSettings(learning_rate=1e-3, epochs=10, batch_size=8), seed=0,
            log_file=curve, checkpoints=tmp_path / "checkpoints", identity="x", after_step=look,
        )  # fmt: skip
    assert step[0] == 30 and seen == ["RUNNING"]


def test_training_does_not_notice_a_store_that_is_down(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "LIVE_AFTER_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/no/such/folder/mlflow.db")
    said, started = [], time.monotonic()
    with live.live({"study": "s", "cell": "c"}, tmp_path / "train.jsonl", said.append):
        while not said and time.monotonic() - started < 30:
            time.sleep(0.05)
    assert "live curves" in said[0]


@pytest.mark.parametrize(
    "uri", ["sqlite:///{}/m.db?timeout=30", "sqlite:////{}/m.db", "sqlite+pysqlite:///{}/m.db", "sqlite:///{}/a%20b.db"]
)
def test_a_store_may_be_named_as_any_address_of_sqlite(tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    address = uri.format(str(tmp_path)) if "////" not in uri else uri.format(str(tmp_path)[1:])
    assert store.database(address).parent == tmp_path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    made = store.create_store({"study": "s"}, tmp_path / "store.json")
    assert store.database(address).is_file() and made["experiment"] == "s"


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "postgresql://h/db", "sqlite://", "sqlite:///:memory:", "file:///x"]
)
def test_other_stores_have_no_file_of_ours(uri):
    assert store.database(uri) is None
