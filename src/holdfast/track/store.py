"""The MLflow store: where it is, how it is opened, and the one serial step that makes it.

This wing is the only one that imports mlflow, and the files of a study never depend on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from holdfast.engines import proxies, versions
from holdfast.errors import ArtifactError, EngineError
from holdfast.record import jsonfiles, provenance
from holdfast.record.files import whole
from holdfast.track import described

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

Say = Callable[[str], None]
CELL, DIGEST, STATUS = "cell", "files_digest", "pipeline_status"  # tags of a run
OWNER = "holdfast.owner"  # tag of an experiment or a registered model that several users may see: who made it
_SQLITE = "sqlite:///"
# How MLflow says that a database has another schema than it would make.
_SCHEMA = re.compile(r"database schema \(found version (\w+), but expected (\w+)\)")


def default_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or an sqlite store at an absolute path in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{root.resolve() / 'mlflow.db'}"


def database(uri: str) -> Path | None:
    """The file of an sqlite store, without what its address says besides; None for any other store.

    >>> database("sqlite:////data/x.db?timeout=30"), database("http://127.0.0.1:5000")
    (PosixPath('/data/x.db'), None)
    """
    parts = urlsplit(uri)
    if parts.scheme.split("+")[0] != "sqlite" or parts.path in ("", "/", "/:memory:"):
        return None
    return Path(unquote(parts.path[1:]))  # three slashes: relative to here, four: absolute


def without_password(uri: str) -> str:
    """The address without a name and password in it: what may be written down."""
    return re.sub(r"//[^/?#]*@", "//", uri)


def shared(uri: str) -> bool:
    """Whether a store may have several users: any but a database file.

    >>> shared("sqlite:////data/x.db"), shared("http://127.0.0.1:5000")
    (False, True)
    """
    return urlsplit(uri).scheme.split("+")[0] not in ("sqlite", "file", "")


def user() -> str:
    """Who writes to a store: the name that a server knows, or that of this machine."""
    from mlflow.utils.credentials import read_mlflow_creds

    with contextlib.suppress(KeyError, OSError):  # of an account without a name
        return str(read_mlflow_creds().username or getpass.getuser())
    return str(os.getuid())


def client_of(uri: str) -> MlflowClient:
    """MLflow's client of a store, quiet."""
    versions.check("mlflow", "The way MLflow keeps a store is")
    proxies.spare_this_machine()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_DISABLE_AUTO_LOGGING", "true")
    import logging

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def lock(uri: str, name: str) -> Iterator[None]:
    """One holder per store and name on this machine: creating a store or a run twice at once breaks it."""
    import tempfile

    path = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{provenance.digest([uri, name])}.lock"
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _new_database(path: Path) -> None:
    """MLflow makes its tables in dozens of steps, and a database that was left between two of them never works
    again: so it appears whole."""
    with whole(path) as temporary:
        for ending in ("", "-journal", "-wal", "-shm"):  # of a run that was killed
            temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
        client_of(f"{_SQLITE}{temporary}").search_experiments(max_results=1)


@contextlib.contextmanager
def answering(study: str) -> Iterator[str]:
    """The store's address; what goes wrong with it becomes one block. Credentials are MLflow's own variables."""
    from mlflow.exceptions import MlflowException

    uri = default_uri(Path())
    try:
        yield uri
    except (MlflowException, OSError) as error:
        if schema := _SCHEMA.search(str(error)):
            raise EngineError(
                f"The database at {without_password(uri)} was made by another version of MLflow.",
                found=f"schema {schema[1]} (mlflow {version('mlflow')})",
                expected=f"schema {schema[2]} (tested with mlflow {', '.join(versions.TESTED['mlflow'])})",
                do=f"copy it, then: mlflow db upgrade {without_password(uri)}, or use that version again",
            ) from None
        cure = {
            "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            "PERMISSION_DENIED": "ask its administrator for the permission",
        }.get(getattr(error, "error_code", ""), "start or repair it")
        raise ArtifactError(
            f"The MLflow store at {without_password(uri)} cannot be written. No tensor, table or report hangs on it.",
            found=f"{type(error).__name__}: {error}"[:200], expected="a store that answers, with room for artifacts",
            do=f"{cure}, or set MLFLOW_TRACKING_URI, then: snakemake --config study={study}",
        ) from None  # fmt: skip


def create_store(cfg: dict[str, Any], out: Path) -> dict[str, Any]:
    """Create the store and the study's experiment; the one serial step before anything parallel.

    Writes {uri, experiment, experiment_id} for the importers.
    """
    with answering(cfg["study"]) as uri:
        store = experiment(uri, cfg["study"])
    jsonfiles.write_json(out, store | {"uri": without_password(uri)})
    return store


def experiment(uri: str, study: str) -> dict[str, Any]:
    """{uri, experiment, experiment_id} of a study; made where it is not there.

    Where several users share a store each has an experiment of their own: named like the study, and where that is
    somebody else's, after the user too (`ann/demo`).
    """
    with lock(uri, "store"):
        path = database(uri)
        if path is not None and not path.exists():
            _new_database(path)
        client = client_of(uri)
        if shared(uri):
            me = user()
            found = known(client, uri, study) or _own(client, study, me) or _own(client, f"{me}/{study}", me)
        else:
            found = client.get_experiment_by_name(study)
            if found is not None and found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            if found is None:
                artifacts = (Path().resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
                found = client.get_experiment(client.create_experiment(study, artifact_location=artifacts))
        if found is None:
            raise ArtifactError(
                f"The MLflow store at {without_password(uri)} has no place for the study {study}.",
                found=f"{study} and {me}/{study} are others', or {me} may make none",
                expected="an experiment of one's own",
                do="ask the server's administrator, or give the study's file another name",
            )  # fmt: skip
        if found.tags.get(described.KIND) is None:  # what a user changed later stays
            described.prepare(client, found.experiment_id)
    return {"uri": uri, "experiment": found.name, "experiment_id": found.experiment_id}


def known(client: MlflowClient, uri: str, study: str) -> Experiment | None:
    """The experiment that a study has already."""
    if not shared(uri):
        return client.get_experiment_by_name(study)
    me = user()
    return _own(client, f"{me}/{study}", me, make=False) or _own(client, study, me, make=False)


def _own(client: MlflowClient, name: str, me: str, *, make: bool = True) -> Experiment | None:
    """The experiment of that name if it is ours; made where there is none; None where it is somebody else's."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(name)
        if found is None and not make:
            return None
        if found is None:
            found = client.get_experiment(client.create_experiment(name, tags={OWNER: me}))
        owner = found.tags.get(OWNER)
        if owner not in (None, me):
            return None
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        if owner is None:  # made by hand, or by a version that knew one user only
            client.set_experiment_tag(found.experiment_id, OWNER, me)
        return found
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":  # made since we asked, by whomever
            return _own(client, name, me, make=False)
        if error.error_code == "PERMISSION_DENIED":
            return None
        raise


def points(curve: Path) -> list[Metric]:
    """Metric points of train.jsonl with their own steps and times, so that a replay is the same points."""
    from mlflow.entities import Metric

    found = []
    for line in curve.read_text(encoding="utf-8").splitlines() if curve.exists() else ():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # a line still being written
            continue
        stamp = int(record["time"] * 1000)
        for key in ("loss", "learning_rate", "grad_norm"):
            found.append(Metric(f"train/{key}", float(record[key]), stamp, int(record["step"])))
    return found


def runs_of(client: MlflowClient, experiment: str, cell: str) -> list[Run]:
    """Every run of a cell in an experiment, finished or not."""
    return client.search_runs([experiment], filter_string=f"tags.{CELL} = '{cell}'", max_results=100)


def log_points(client: MlflowClient, run_id: str, points: list[Metric]) -> None:
    """Log metric points in batches that MLflow takes."""
    for start in range(0, len(points), 900):
        client.log_batch(run_id, metrics=points[start : start + 900])
