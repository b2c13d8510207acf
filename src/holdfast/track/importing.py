"""Finished cells into MLflow: a view of the files, made after them.

Importing is idempotent (a run is found by its `cell` tag and a digest of its files) and safe in parallel (one lock per
store and cell).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.evaluate import capabilities
from holdfast.record import jsonfiles, provenance
from holdfast.study import replicates
from holdfast.track import store
from holdfast.track.store import CELL, DIGEST, STATUS

if TYPE_CHECKING:
    from mlflow.entities import Run

NAMED = "named"  # the tag that holds the name a run was given here
_NOTE = "mlflow.note.content"
Say = Callable[[str], None]
_BESIDE = ("train.json", "train.jsonl", "verdicts.parquet", "capabilities.parquet")  # of a cell, beside metrics.json


def cell_name(cell: dict[str, Any]) -> str:
    """What a cell is called in MLflow: study, replicate where it is another than the first, task (`-` for a role), arm
    and seed."""
    place = replicates.folder(cell.get("replicate", 0))
    return f"{cell['study']}/{place}{cell['task'] or '-'}/{cell['arm']}/seed{cell['seed']}"


def _title(old: list[Run], title: str) -> str:
    """The name a user gave to an earlier run of the cell, or `title`."""
    given = [r.info.run_name for r in old if NAMED in r.data.tags and r.info.run_name != r.data.tags[NAMED]]
    return given[0] if given else title


def _added(old: list[Run]) -> dict[str, str]:
    """Tags and notes a user added to earlier runs of the cell."""
    mine = {CELL, DIGEST, STATUS, NAMED, "task", "arm", "method", "seed", "study", "replicate"}
    tags = [(k, v) for r in reversed(old) for k, v in r.data.tags.items()]
    return {k: v for k, v in tags if k not in mine and (k == _NOTE or not k.startswith("mlflow."))}


def import_cell(opened: dict[str, Any], metrics_file: Path, resolved: dict[str, Any], say: Say) -> str:
    """Make exactly one finished run of a cell hold what its files say; returns its run id.

    A run whose files have not changed is left alone, whatever the user renamed or added. Otherwise a
    new run is made complete first and older ones (live, interrupted, outdated) are deleted after.
    """
    from mlflow.entities import Metric, Param, RunTag

    cell = jsonfiles.read_json(metrics_file)
    folder = metrics_file.parent
    files = [p for p in (metrics_file, *(folder / name for name in _BESIDE)) if p.exists()]
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files])
    name = cell_name(cell)
    with store.lock(opened["uri"], name):
        client = store.client_of(opened["uri"])
        old = store.runs_of(client, opened["experiment_id"], name)
        done = [r for r in old if r.data.tags.get(DIGEST) == digest and r.info.status == "FINISHED"]
        if done:
            for run in old:
                if run.info.run_id != done[0].info.run_id:
                    client.delete_run(run.info.run_id)
            return str(done[0].info.run_id)
        points = store.points(folder / "train.jsonl")
        which = f"r{cell['replicate']} s{cell['seed']}" if cell.get("replicate") else f"s{cell['seed']}"
        title = f"{cell['task'] or 'all'} {cell['arm']} {which}"
        started = min((p.timestamp for p in points), default=int(metrics_file.stat().st_mtime * 1000))
        ended = max((p.timestamp for p in points), default=started)
        run = client.create_run(
            opened["experiment_id"],
            start_time=started,
            run_name=_title(old, title),
            tags=_added(old) | {
                CELL: name, STATUS: "importing", "task": cell["task"] or "all", "arm": cell["arm"],
                "method": str(cell["method"]), "seed": str(cell["seed"]), "study": cell["study"], NAMED: title,
                "replicate": str(cell.get("replicate", 0)),
            },
        )  # fmt: skip
        run_id: str = run.info.run_id
        values = dict(cell["metrics"])
        record = folder / "train.json"
        if record.exists():
            kept = jsonfiles.read_json(record)
            values |= {k: kept[k] for k in (names.SECONDS, names.PEAK_MEMORY, "cost/train_seconds") if k in kept}
            values |= {k: kept[k] for k in ("frozen_fraction", "frozen_drift") if k in kept}
        if (folder / "capabilities.parquet").exists():
            values |= capabilities.rates(folder / "capabilities.parquet")
        store.log_points(client, run_id, points + [Metric(k, float(v), ended, 0) for k, v in sorted(values.items())])
        params = {
            "task": cell["task"], "arm": cell["arm"], "family": cell["family"], "method": cell["method"],
            "seed": cell["seed"], "replicate": cell.get("replicate", 0),
            "learning_rate": cell["learning_rate"], "split": cell["split"],
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
    with store.answering(resolved["study"]) as uri:
        # The file says which experiment; where it is now need not be where it was when the file was written.
        opened = store.experiment(uri, jsonfiles.read_json(store_file)["experiment"])
        runs = {}
        for path in metrics_files:
            cell = jsonfiles.read_json(path)
            runs[cell_name(cell)] = import_cell(opened, path, resolved, say)
        runs["comparison"] = _import_comparison(opened, extra, resolved)
    jsonfiles.write_json(
        out, {"uri": store.without_password(opened["uri"]), "experiment": opened["experiment"], "runs": runs}
    )


def _import_comparison(opened: dict[str, Any], files: list[Path], resolved: dict[str, Any]) -> str:
    digest = provenance.digest([[p.name, provenance.file_digest(p)] for p in files])
    name = f"{resolved['study']}/comparison"
    with store.lock(opened["uri"], name):
        client = store.client_of(opened["uri"])
        old = store.runs_of(client, opened["experiment_id"], name)
        for run in old:
            if run.data.tags.get(DIGEST) == digest and run.info.status == "FINISHED":
                return str(run.info.run_id)
        run = client.create_run(
            opened["experiment_id"], run_name="comparison", tags={CELL: name, "study": resolved["study"]}
        )
        for path in files:
            client.log_artifact(run.info.run_id, str(path))
        client.log_dict(run.info.run_id, resolved, "study.json")
        client.set_tag(run.info.run_id, DIGEST, digest)
        client.set_terminated(run.info.run_id, "FINISHED")
        for previous in old:
            client.delete_run(previous.info.run_id)
        return str(run.info.run_id)
