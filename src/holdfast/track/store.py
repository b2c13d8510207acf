"""MLflow is a view of the files: this module imports them, and is the only one that imports mlflow.

Importing is idempotent (a run is found by its `cell` tag and a digest of its files) and safe in
parallel (one lock per store and cell). Training writes train.jsonl and never waits for MLflow; while
a long run trains, a background thread copies new points, and every failure of it is only logged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import ArtifactError
from holdfast.evaluate import capabilities
from holdfast.record import artifact, provenance
from holdfast.record.files import whole

CELL, DIGEST, STATUS, NAMED = "cell", "files_digest", "pipeline_status", "named"
_NOTE = "mlflow.note.content"
LIVE_AFTER_SECONDS, LIVE_EVERY_SECONDS = 30.0, 15.0
Say = Callable[[str], None]
_SQLITE = "sqlite:///"
_BESIDE = ("train.json", "train.jsonl", "verdicts.parquet", "capabilities.parquet")  # of a cell, beside metrics.json


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or an sqlite store at an absolute path in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{root.resolve() / 'mlflow.db'}"


def _without_password(uri: str) -> str:
    """The address without a name and password in it: what may be written down."""
    return re.sub(r"//[^/?#]*@", "//", uri)


def _client(uri: str):
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_DISABLE_AUTO_LOGGING", "true")
    import logging

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _lock(uri: str, name: str) -> Iterator[None]:
    """One holder per store and name on this machine: creating a store or a run twice at once breaks it."""
    import tempfile

    path = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{provenance.digest([uri, name])}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _new_database(path: Path) -> None:
    """MLflow makes its tables in dozens of steps, and a database that was left between two of them never works
    again: so it appears whole."""
    with whole(path) as temporary:
        for ending in ("", "-journal", "-wal", "-shm"):  # of a run that was killed
            temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
        _client(f"{_SQLITE}{temporary}").search_experiments(max_results=1)


@contextlib.contextmanager
def _answering(study: str) -> Iterator[str]:
    """The store's address; what goes wrong with it becomes one block. Credentials are MLflow's own variables."""
    from mlflow.exceptions import MlflowException

    uri = default_uri(Path())
    try:
        yield uri
    except (MlflowException, OSError) as error:
        refused = re.search(r"\b(401|403)\b|PERMISSION_DENIED|UNAUTHENTICATED", str(error))
        cure = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if refused else "repair it"
        raise ArtifactError(
            f"The MLflow store at {_without_password(uri)} cannot be written. No tensor, table or report hangs on it.",
            found=f"{type(error).__name__}: {error}"[:200], expected="a store that answers, with room for artifacts",
            do=f"{cure}, or set MLFLOW_TRACKING_URI, then: snakemake --config study={study}",
        ) from None  # fmt: skip


def create_store(cfg: dict[str, Any], out: Path) -> dict[str, Any]:
    """Create the store and the study's experiment; the one serial step before anything parallel.

    Writes {uri, experiment, experiment_id} for the importers.
    """
    with _answering(cfg["study"]) as uri:
        store = _experiment(uri, cfg["study"])
    artifact.write_json(out, store | {"uri": _without_password(uri)})
    return store


def _experiment(uri: str, study: str) -> dict[str, Any]:
    """{uri, experiment, experiment_id} of a study; made where it is not there."""
    with _lock(uri, "store"):
        if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
            _new_database(Path(uri.removeprefix(_SQLITE)))
        client = _client(uri)
        found = client.get_experiment_by_name(study)
        if found is not None and found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if found is None:
            artifacts = (Path().resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
            client.create_experiment(study, artifact_location=artifacts)
        experiment = client.get_experiment_by_name(study)
    return {"uri": uri, "experiment": study, "experiment_id": experiment.experiment_id}


# ---- importing ----------------------------------------------------------------------------------------


def cell_name(cell: dict[str, Any]) -> str:
    return f"{cell['study']}/{cell['task'] or '-'}/{cell['arm']}/seed{cell['seed']}"


def _points(curve: Path):
    """Metric points of train.jsonl with their own steps and times, so that a replay is the same points."""
    from mlflow.entities import Metric

    points = []
    for line in curve.read_text().splitlines() if curve.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a line still being written
            continue
        stamp = int(record["time"] * 1000)
        for key in ("loss", "learning_rate", "grad_norm"):
            points.append(Metric(f"train/{key}", float(record[key]), stamp, int(record["step"])))
    return points


def _runs(client, experiment: str, cell: str) -> list[Any]:
    return client.search_runs([experiment], filter_string=f"tags.{CELL} = '{cell}'", max_results=100)


def _title(old: list[Any], title: str) -> str:
    """The name a user gave to an earlier run of the cell, or `title`."""
    given = [r.info.run_name for r in old if NAMED in r.data.tags and r.info.run_name != r.data.tags[NAMED]]
    return given[0] if given else title


def _added(old: list[Any]) -> dict[str, str]:
    """Tags and notes a user added to earlier runs of the cell."""
    mine = {CELL, DIGEST, STATUS, NAMED, "task", "arm", "method", "seed", "study"}
    tags = [(k, v) for r in reversed(old) for k, v in r.data.tags.items()]
    return {k: v for k, v in tags if k not in mine and (k == _NOTE or not k.startswith("mlflow."))}


def _log_points(client, run_id: str, points: list[Any]) -> None:
    for start in range(0, len(points), 900):
        client.log_batch(run_id, metrics=points[start : start + 900])


def import_cell(store: dict[str, Any], metrics_file: Path, resolved: dict[str, Any], say: Say) -> str:
    """Make exactly one finished run of a cell hold what its files say; returns its run id.

    A run whose files have not changed is left alone, whatever the user renamed or added. Otherwise a
    new run is made complete first and older ones (live, interrupted, outdated) are deleted after.
    """
    from mlflow.entities import Metric, Param, RunTag

    cell = artifact.read_json(metrics_file)
    folder = metrics_file.parent
    files = [p for p in (metrics_file, *(folder / name for name in _BESIDE)) if p.exists()]
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files])
    name = cell_name(cell)
    with _lock(store["uri"], name):
        client = _client(store["uri"])
        old = _runs(client, store["experiment_id"], name)
        done = [r for r in old if r.data.tags.get(DIGEST) == digest and r.info.status == "FINISHED"]
        if done:
            for run in old:
                if run.info.run_id != done[0].info.run_id:
                    client.delete_run(run.info.run_id)
            return done[0].info.run_id
        points = _points(folder / "train.jsonl")
        title = f"{cell['task'] or 'all'} {cell['arm']} s{cell['seed']}"
        started = min((p.timestamp for p in points), default=int(metrics_file.stat().st_mtime * 1000))
        ended = max((p.timestamp for p in points), default=started)
        run = client.create_run(
            store["experiment_id"],
            start_time=started,
            run_name=_title(old, title),
            tags=_added(old) | {
                CELL: name, STATUS: "importing", "task": cell["task"] or "all", "arm": cell["arm"],
                "method": str(cell["method"]), "seed": str(cell["seed"]), "study": cell["study"], NAMED: title,
            },
        )  # fmt: skip
        run_id = run.info.run_id
        values = dict(cell["metrics"])
        record = folder / "train.json"
        if record.exists():
            kept = artifact.read_json(record)
            values |= {k: kept[k] for k in (names.SECONDS, names.PEAK_MEMORY, "cost/train_seconds") if k in kept}
            values |= {k: kept[k] for k in ("frozen_fraction", "frozen_drift") if k in kept}
        if (folder / "capabilities.parquet").exists():
            values |= capabilities.rates(folder / "capabilities.parquet")
        _log_points(client, run_id, points + [Metric(k, float(v), ended, 0) for k, v in sorted(values.items())])
        params = {
            "task": cell["task"], "arm": cell["arm"], "family": cell["family"], "method": cell["method"],
            "seed": cell["seed"], "learning_rate": cell["learning_rate"], "split": cell["split"],
            **{f"setting.{k}": v for k, v in (cell.get("settings") or {}).items()},
            **{f"training.{k}": v for k, v in (cell.get("training_settings") or {}).items()},
        }  # fmt: skip
        client.log_batch(run_id, params=[Param(k, str(v)[:6000]) for k, v in params.items() if v is not None])
        for path in files:
            client.log_artifact(run_id, str(path))
        client.log_dict(run_id, resolved, "study.json")
        if cell.get("model"):
            client.log_dict(run_id, _checkpoint(Path(cell["model"])), "checkpoint.json")
        client.log_batch(run_id, tags=[RunTag(DIGEST, digest), RunTag(STATUS, "imported")])
        client.set_terminated(run_id, "FINISHED", end_time=max(ended, started))
        for run in old:
            client.delete_run(run.info.run_id)
        say(f"imported {name}: {len(points)} points")
        return run_id


def _checkpoint(path: Path) -> dict[str, Any]:
    """A reference to the checkpoint: MLflow keeps the address and the digest, DVC keeps the bytes."""
    if not path.exists():
        return {"path": str(path), "sha256": None}
    return {"path": str(path), "sha256": provenance.file_digest(path), "bytes": path.stat().st_size}


def import_study(
    store_file: Path, metrics_files: list[Path], *, extra: list[Path], resolved: dict[str, Any], out: Path, say: Say
) -> None:
    """Import every cell and, as one run named `comparison`, the study's tables, plots and report."""
    with _answering(resolved["study"]) as uri:
        # The file says which experiment; where it is now need not be where it was when the file was written.
        store = _experiment(uri, artifact.read_json(store_file)["experiment"])
        runs = {}
        for path in metrics_files:
            cell = artifact.read_json(path)
            runs[cell_name(cell)] = import_cell(store, path, resolved, say)
        runs["comparison"] = _import_comparison(store, extra, resolved)
    artifact.write_json(out, {"uri": _without_password(store["uri"]), "experiment": store["experiment"], "runs": runs})


def _import_comparison(store: dict[str, Any], files: list[Path], resolved: dict[str, Any]) -> str:
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files])
    name = f"{resolved['study']}/comparison"
    with _lock(store["uri"], name):
        client = _client(store["uri"])
        old = _runs(client, store["experiment_id"], name)
        for run in old:
            if run.data.tags.get(DIGEST) == digest and run.info.status == "FINISHED":
                return run.info.run_id
        run = client.create_run(
            store["experiment_id"], run_name="comparison", tags={CELL: name, "study": resolved["study"]}
        )
        for path in files:
            client.log_artifact(run.info.run_id, str(path))
        client.log_dict(run.info.run_id, resolved, "study.json")
        client.set_tag(run.info.run_id, DIGEST, digest)
        client.set_terminated(run.info.run_id, "FINISHED")
        for previous in old:
            client.delete_run(previous.info.run_id)
        return run.info.run_id


# ---- live curves --------------------------------------------------------------------------------------


@contextlib.contextmanager
def live(cfg: dict[str, Any] | None, curve: Path, say: Say) -> Iterator[None]:
    """While the body trains, copy new points of `curve` to MLflow from a background thread.

    Starts after half a minute, so that short runs never pay for importing mlflow; a store that is
    missing, locked or broken is reported in the log and costs the training nothing.
    """
    stop = threading.Event()

    def follow() -> None:
        if stop.wait(LIVE_AFTER_SECONDS):
            return
        try:
            uri = default_uri(Path())
            client, run_id, sent = _client(uri), None, 0
            experiment = client.get_experiment_by_name(cfg["study"])
            if experiment is None:
                say("live curves: no experiment yet, skipped")
                return
            while True:
                points = _points(curve.with_name(curve.name + ".partial"))
                if run_id is None and points:
                    with _lock(uri, cfg["cell"]):
                        for run in _runs(client, experiment.experiment_id, cfg["cell"]):
                            if run.info.status == "RUNNING":
                                client.delete_run(run.info.run_id)
                        tags = {CELL: cfg["cell"], STATUS: "training", "study": cfg["study"]}
                        run = client.create_run(
                            experiment.experiment_id, start_time=points[0].timestamp,
                            run_name=f"{cfg['cell']} (training)", tags=tags,
                        )  # fmt: skip
                        run_id = run.info.run_id
                if run_id is not None and len(points) > sent:
                    _log_points(client, run_id, points[sent:])
                    sent = len(points)
                if stop.wait(LIVE_EVERY_SECONDS):
                    return
        except Exception as error:  # noqa: BLE001 - tracking must never stop a training run
            say(f"live curves stopped: {type(error).__name__}: {str(error)[:160]}")

    thread = threading.Thread(target=follow, daemon=True) if cfg else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread:
            thread.join(timeout=5)
