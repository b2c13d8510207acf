"""MLflow as a view of the files: idempotent, complete, parallel-safe, and never in the way."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cells import POINTS, cell

from holdfast.engines import snakemake
from holdfast.record import provenance
from holdfast.track import importing, live, store


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


def test_a_note_of_ours_is_replaced_and_one_of_the_users_stays(opened, tmp_path):
    note, path = "mlflow.note.content", cell(tmp_path, "full")
    first = importing.import_cell(opened, path, {}, print)
    client, runs = _runs(opened)
    assert "refuses 50.0 % [40.0, 60.0] of held-out hazards" in runs[0].data.tags[note]
    assert "solves 50.0 % [40.0, 60.0] of the task" in runs[0].data.tags[note]
    cell(tmp_path, "full", rate=0.7)
    second = importing.import_cell(opened, path, {}, print)
    assert second != first and "refuses 70.0 %" in client.get_run(second).data.tags[note]
    client.set_tag(second, note, "")  # which the user emptied
    cell(tmp_path, "full", rate=0.8)
    assert client.get_run(importing.import_cell(opened, path, {}, print)).data.tags[note] == ""


@pytest.fixture
def study(opened, tmp_path):
    """A study of two replicates with two seeds: base, aligned, full and a merge of it, with its rows and weights."""
    from safetensors.numpy import save_file

    from holdfast.record import csvfiles, tables

    files, rows = [], [{"id": f"r{i}", "question": f"{i}?", "answer": "#### 1", "split": "train"} for i in range(7)]
    (tmp_path / "data").mkdir()
    for name in ("task", "safety0", "safety1", "prompts"):
        tables.write(rows, tmp_path / f"data/{name}.parquet", "gsm8k", check=False)
    data = {"prompts": "data/prompts.parquet", "tasks": {"t": "data/task.parquet"},
            "safety": {"0": "data/safety0.parquet", "1": "data/safety1.parquet"}}  # fmt: skip
    for replicate in (0, 1):
        shared = {"replicate": replicate, "unit": replicate, "base": 0, "aligned": replicate}
        for arm, task, seed, of in (
            *((role, None, 0, None) for role in ("base", "aligned") if role == "aligned" or replicate == 0),
            *(("full", "t", s, None) for s in (0, 1)), *(("back", "t", s, "full") for s in (0, 1)),
        ):  # fmt: skip
            weights = tmp_path / f"work/{replicate}/{arm}-{seed}/model.safetensors"
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_file({"w": np.full(3, replicate + seed)}, weights, metadata={
                "holdfast": json.dumps({"weakened": arm == "back"})
            })  # fmt: skip
            more = shared | {"task": task, "seed": seed, "of": of, "model": weights.relative_to(tmp_path).as_posix()}
            files.append(cell(tmp_path, arm, **more))
    table = [
        {"study": "s", "task": "t", "arm": arm, "method": "full", "learning_rate": 1e-3, "seeds": 2, "replicates": 2,
         "safety/refusal_rate": 0.5, "safety/refusal_rate_low": 0.3, "safety/refusal_rate_high": 0.7,
         "utility": 0.5, "utility_low": 0.4, "utility_high": 0.6, "weights/changed_fraction": 0.9}
        for arm in ("base", "aligned", "full", "back")
    ]  # fmt: skip
    csvfiles.write_csv(tmp_path / "table.csv", table)

    def imported(merges_first=True) -> dict[str, str]:
        importing.import_study(
            files[:: -1 if merges_first else 1], table=tmp_path / "table.csv",
            extra=[tmp_path / "table.csv"], resolved={"study": "s"}, tables=data, study_file="config/s.yaml",
            out=tmp_path / "mlflow.json", say=lambda _: None,
        )  # fmt: skip
        return json.loads((tmp_path / "mlflow.json").read_text())["runs"]

    return imported


def test_an_arm_stands_above_its_models_with_mean_and_interval(opened, study, tmp_path):
    runs = study()
    client, found = _runs(opened)
    assert len(runs) == len(found) == 11 + 3 + 1  # base is one model
    full = client.get_run(runs["s/t/full"])
    assert full.data.metrics["safety/refusal_rate_low"] == 0.3 and full.data.metrics["utility_high"] == 0.6
    assert full.data.metrics["weights/changed_fraction"] == 0.9 and full.data.metrics["cost/seconds"] == 1.5
    assert "2 seed(s), 2 replicate(s)" in full.data.tags["mlflow.note.content"]
    below = {r.data.tags["cell"] for r in found if r.data.tags.get("mlflow.parentRunId") == runs["s/t/full"]}
    assert below == {f"s/{r}t/full/seed{s}" for r in ("", "replicate1/") for s in (0, 1)}
    aligned = client.get_run(runs["s/-/aligned"])
    assert "utility" not in aligned.data.metrics  # which is another one in every task
    assert study(merges_first=False) == runs  # and nothing is made twice
    view = json.loads((tmp_path / "mlflow.json").read_text())["view"]
    assert view.endswith(
        f"/experiments/{opened['experiment_id']}/runs?viewStateShareKey=holdfast&workflowType=machine_learning"
    )


def test_every_suite_has_metrics_of_its_own_in_runs_of_models_and_of_arms(opened, tmp_path):
    from holdfast.record import csvfiles

    rates = {f"safety/refusal_rate{end}": v for end, v in (("", 0.25), ("_low", 0.1), ("_high", 0.5), ("_n", 9))}
    files = [cell(tmp_path, "full", seed=seed, by_suite={"xstest": rates}) for seed in (0, 1)]
    row = {"study": "s", "task": "t", "arm": "full", "method": "full", "seeds": 2, "replicates": 1,
           "safety/refusal_rate": 0.5, "safety/refusal_rate_low": 0.4, "safety/refusal_rate_high": 0.6}  # fmt: skip
    csvfiles.write_csv(tmp_path / "table.csv", [row])
    none = {"safety/over_refusal": "", "safety/over_refusal_low": ""}
    of = [{"study": "s", "task": "t", "arm": "full", "suite": suite} | rates | none | {"safety/refusal_rate": rate}
          for suite, rate in (("xstest", 0.25), ("advbench", 0.75))]  # fmt: skip
    csvfiles.write_csv(tmp_path / "suites.csv", of)
    importing.import_study(
        files, table=tmp_path / "table.csv", suites=tmp_path / "suites.csv", extra=[],
        resolved={"study": "s"}, out=tmp_path / "mlflow.json", say=lambda _: None,
    )  # fmt: skip
    runs = json.loads((tmp_path / "mlflow.json").read_text())["runs"]
    client, _ = _runs(opened)
    of_cell, of_arm = (client.get_run(runs[name]).data.metrics for name in ("s/t/full/seed1", "s/t/full"))
    assert of_cell["safety/xstest/refusal_rate"] == 0.25 and of_cell["safety/xstest/refusal_rate_n"] == 9
    assert of_cell["safety/refusal_rate"] == of_arm["safety/refusal_rate"] == 0.5
    assert of_arm["safety/advbench/refusal_rate"] == 0.75 and of_arm["safety/advbench/refusal_rate_low"] == 0.1
    assert not any("over_refusal" in name for name in of_arm)  # which the suites have not


def test_a_run_says_what_it_came_from_and_what_it_made(opened, study, tmp_path):
    runs = study()
    client, _ = _runs(opened)
    back = client.get_run(runs["s/replicate1/t/back/seed1"])
    assert back.data.tags["mlflow.source.name"] == "config/s.yaml"
    given = [(d.dataset, d.tags[0].value) for d in back.inputs.dataset_inputs]
    inputs = {(d.name, json.loads(d.source)["uri"], what) for d, what in given}
    assert inputs == {
        ("t (gsm8k)", "data/task.parquet", "training"), ("safety prompts", "data/prompts.parquet", "evaluation")
    }  # fmt: skip
    assert all(json.loads(d.profile) == {"num_rows": 7} for d, _ in given)
    aligned = client.get_run(runs["s/replicate1/-/aligned/seed0"])
    assert "data/safety1.parquet" in {json.loads(d.dataset.source)["uri"] for d in aligned.inputs.dataset_inputs}

    def model_of(name):
        return client.get_logged_model(client.get_run(runs[name]).outputs.model_outputs[0].model_id)

    made = model_of("s/replicate1/t/back/seed1")
    assert made.tags["address"] == "work/1/back-1/model.safetensors" and made.tags["weakened"] == "true"
    assert made.tags["sha256"] == provenance.file_digest(tmp_path / made.tags["address"])
    assert {m.key: m.value for m in made.metrics}["safety/refusal_rate"] == 0.5 and made.model_type == "merged"
    on = {m.key: m.dataset_name for m in made.metrics}
    assert on["safety/refusal_rate"] == "safety prompts" and on["utility"] == "t (gsm8k)" and on["cost/seconds"] is None
    assert made.tags["mlflow.source.name"] == "config/s.yaml" and "refuses 50.0 %" in made.tags["mlflow.note.content"]
    # It was merged from a model of its own replicate and seed, and from the aligned model of its replicate.
    assert {m.model_id for m in back.inputs.model_inputs} == {
        model_of("s/replicate1/t/full/seed1").model_id, model_of("s/replicate1/-/aligned/seed0").model_id
    }  # fmt: skip
    assert {m.model_id for m in aligned.inputs.model_inputs} == {model_of("s/-/base/seed0").model_id}


def test_a_model_that_changed_takes_along_what_was_made_from_it(opened, study, tmp_path):
    runs = study()
    client, _ = _runs(opened)
    of = {name: client.get_run(run).outputs.model_outputs for name, run in runs.items() if "/seed" in name}
    old = of["s/t/full/seed0"][0].model_id
    path = tmp_path / "full-replicate0-seed0/metrics.json"
    path.write_text(path.read_text().replace("0.5", "0.55"))
    again = study()
    changed = {name for name in again if again[name] != runs[name]}
    assert changed == {"s/t/full/seed0", "s/t/back/seed0", "s/t/full", "s/t/back"}
    # No model is left behind of a run that is gone.
    left = {m.model_id for m in client.search_logged_models([opened["experiment_id"]])}
    assert old not in left and len(left) == 11


def test_an_experiment_opens_as_one_of_trained_models_with_its_columns(opened):
    client, _ = _runs(opened)
    tags = client.get_experiment(opened["experiment_id"]).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(tags["mlflow.sharedViewState.holdfast"])
    assert "metrics.`safety/refusal_rate`" in view["selectedColumns"] and view["orderByAsc"] is False
    client.set_experiment_tag(opened["experiment_id"], "mlflow.sharedViewState.holdfast", "mine")
    store.experiment(opened["uri"], "s")
    assert client.get_experiment(opened["experiment_id"]).tags["mlflow.sharedViewState.holdfast"] == "mine"


def test_times_are_those_of_the_stages(opened, tmp_path):
    """A merge has no curve; when it was made and how long it took says Snakemake's record."""
    weights = "work/s/t/back/seed0/model.safetensors"
    path = cell(tmp_path, "back", points=0, of="full", model=weights)
    for output, start, end in ((weights, 100.0, 130.5), ("back/responses.parquet", 140.0, 150.0)):
        record = snakemake.record_file(tmp_path, output)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({
            "record_format_version": snakemake.FORMAT, "starttime": start, "endtime": end, "incomplete": False
        }))  # fmt: skip
    run = store.client_of(opened["uri"]).get_run(importing.import_cell(opened, path.relative_to(tmp_path), {}, print))
    assert (run.info.start_time, run.info.end_time) == (100_000, 150_000)
    assert run.data.metrics["stage/model_seconds"] == 30.5 and run.data.metrics["stage/answers_seconds"] == 10
    assert "stage/verdicts_seconds" not in run.data.metrics


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
