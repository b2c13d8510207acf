"""What a run came from and what it made, in MLflow's own words: data sets, models, source, time."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.engines import snakemake
from holdfast.record import container, jsonfiles, provenance
from holdfast.track import store
from holdfast.track.store import CELL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

Cell = dict[str, Any]
TRAINING, EVALUATION = "training", "evaluation"
_LONGEST_DIGEST = 36  # that MLflow takes


@functools.cache
def _table(path: str) -> tuple[str, int]:
    """(digest, rows) of a parquet file."""
    from pyarrow import parquet

    return provenance.file_digest(path)[:_LONGEST_DIGEST], parquet.read_metadata(path).num_rows


def tables(cell: Cell, data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, file, what for) of the rows a model was made from and asked.

    Args:
        data: `tasks` and `safety` (replicate's number -> file), and `prompts`.
    """
    task, start = cell["task"], str(cell.get("aligned", 0))
    found = [("safety prompts", data["prompts"], EVALUATION)]
    if task:
        found.append((f"{task} ({cell['datasets'][task]})", data["tasks"][task], TRAINING))
    elif cell["arm"] == "aligned":
        found.append(("safety rows", data["safety"][start], TRAINING))
    return found


def datasets(cell: Cell, data: Mapping[str, Any]) -> list[DatasetInput]:
    """The tables of a model that are on this machine, as MLflow's inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    out = []
    for name, file, context in tables(cell, data):
        if Path(file).is_file():
            digest, rows = _table(file)
            dataset = Dataset(name, digest, "local", json.dumps({"uri": file}), profile=json.dumps({"num_rows": rows}))
            out.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    return out


def asked_of(metric: str, inputs: Sequence[DatasetInput]) -> tuple[str, str] | None:
    """(name, digest) of the table that a metric was measured on, where it is among a run's inputs."""
    what = EVALUATION if metric.startswith("safety/") else TRAINING if metric.startswith("utility") else None
    for given in inputs:
        if any(tag.value == what for tag in given.tags):
            return given.dataset.name, given.dataset.digest
    return None


def checkpoint(path: Path) -> dict[str, Any]:
    """A reference to the checkpoint: MLflow keeps the address and the digest, DVC keeps the bytes."""
    if not path.exists():
        return {"path": str(path), "sha256": None}
    return {"path": str(path), "sha256": provenance.file_digest(path), "bytes": path.stat().st_size}


def models_of(client: MlflowClient, experiment_id: str, cell: str) -> list[str]:
    """Ids of the models that were logged of a cell."""
    found = client.search_logged_models([experiment_id], filter_string=f"tags.{CELL} = '{cell}'")
    return [m.model_id for m in found]


def log_model(opened: dict[str, Any], run_id: str, cell: Cell, name: str, tags: Mapping[str, str]) -> str:
    """A model of MLflow whose files lie elsewhere: its address, digest and role; returns its id.

    Args:
        tags: what else it says: its description, and where the study came from.
    """
    import mlflow

    mlflow.set_tracking_uri(opened["uri"])
    path = Path(cell["model"])
    where, weakened = checkpoint(path), path.exists() and container.is_weakened(path)
    kind = "role" if cell["task"] is None else "merged" if cell.get("of") else "fine-tuned"
    params = {"learning_rate": cell["learning_rate"], **(cell.get("settings") or {})}
    model = mlflow.create_external_model(
        name=re.sub(r"[/:.%\"']", "_", name), source_run_id=run_id, model_type=kind,
        experiment_id=opened["experiment_id"], params={k: str(v) for k, v in params.items() if v is not None},
        tags={
            **tags, CELL: name, "address": where["path"], "sha256": str(where["sha256"]), "method": str(cell["method"]),
            "role": cell["arm"] if cell["task"] is None else "finetuned", "weakened": str(weakened).lower(),
        },
    )  # fmt: skip
    return str(model.model_id)


def parents(cell: Cell, models: Mapping[str, str], cell_name: Callable[[Cell], str]) -> list[str]:
    """Ids of the models that this one was made from, as far as they are in the store.

    Args:
        models: cell -> id of its model; `cell_name` says what a cell is called.
    """
    if cell["task"] is None:
        before = {"aligned": "base", "unaligned": "aligned"}.get(cell["arm"])
        wanted = [{"arm": before, "replicate": cell.get(before, 0)}] if before else []
    else:
        wanted = [{"task": None, "arm": "aligned", "seed": 0, "replicate": cell.get("aligned", 0)}]
        wanted += [{"arm": cell["of"]}] if cell.get("of") else []
    names = [cell_name(cell | of) for of in wanted]
    return [models[name] for name in names if name in models]


def source(study_file: str) -> dict[str, str]:
    """Tags that say which file and commit a study came from, and who imported it."""
    tags = {"mlflow.source.name": study_file, "mlflow.source.type": "LOCAL", "mlflow.user": store.user()}
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return tags
    return tags | ({"mlflow.source.git.commit": found.stdout.strip()} if found.returncode == 0 else {})


def record_of(metrics_file: Path) -> dict[str, Any]:
    """What the training or merge beside a metrics.json recorded; nothing where it recorded nothing."""
    record = metrics_file.with_name("train.json")
    return jsonfiles.read_json(record) if record.exists() else {}


def stages(cell: Cell, metrics_file: Path) -> dict[str, tuple[float, float]]:
    """Stage -> (start, end) in seconds of the clock, as Snakemake noted them here."""
    made = {
        "model": cell["model"],
        "answers": metrics_file.with_name("responses.parquet").as_posix(),
        "verdicts": metrics_file.with_name("verdicts.parquet").as_posix(),
    }
    found = {stage: snakemake.times(Path(), output) for stage, output in made.items()}
    return {stage: time for stage, time in found.items() if time}
