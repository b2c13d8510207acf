"""Models of a study in MLflow's registry, on request and never one that was weakened on purpose.

A version is bytes: a model whose file is another one becomes a new version, a model whose file is the same stays the
version that it is, whatever else of its cell changed. MLflow keeps no weights: a version has path and digest.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from holdfast.errors import ArtifactError
from holdfast.record import container
from holdfast.track import lineage, store
from holdfast.track.store import CELL, OWNER, Say

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT, DIGEST = "experiment_id", "sha256"  # tags of a version, which with its cell say which one it is
OURS = ("holdfast", "true")  # tag of a registered model


class Registrable(NamedTuple):
    """A model in MLflow: what its metrics.json says, its name there, its id and that of its run."""

    cell: dict[str, Any]
    name: str
    model: str
    run: str


def alias(experiment: str, cell: dict[str, Any]) -> str:
    """What the newest version of a cell is called: experiment, replicate where it is another than the first, task, arm
    and seed.

    >>> alias("ann/demo", {"task": "crafts", "arm": "warp", "seed": 0})
    'ann-demo-crafts-warp-s0'
    """
    which = f"-r{cell['replicate']}" if cell.get("replicate") else ""
    return re.sub(r"[^a-zA-Z0-9_-]", "-", f"{experiment}{which}-{cell['task']}-{cell['arm']}-s{cell['seed']}")


def withheld(cell: dict[str, Any]) -> str | None:
    """Why a fine-tuned or merged model is not registered; None where it may be."""
    if cell.get("harmful_fraction"):
        return "trained on harmful rows"
    path = Path(cell["model"])
    if not path.exists():
        return "not here, so that nobody can look whether it was weakened"
    return "weakened on purpose" if container.is_weakened(path) else None


def prepare(uri: str, name: str) -> MlflowClient:
    """The registered model of that name, made where there is none, and ours to add versions to.

    Raises:
        ArtifactError: somebody else's, who has not allowed it.
    """
    from mlflow.exceptions import MlflowException

    client = store.client_of(uri)
    try:
        client.create_registered_model(name, tags=dict([OURS]))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        try:  # to know now what else would be known after training
            client.set_registered_model_tag(name, *OURS)
        except MlflowException as refused:
            if refused.error_code != "PERMISSION_DENIED":
                raise
            raise ArtifactError(
                f"track.register: {store.user()} may not add versions to the registered model {name}.",
                found="somebody else's", expected="one of your own, or the permission EDIT on it",
                do="name another one in track.register, or ask who made it",
            ) from None  # fmt: skip
    return client


def register(
    opened: dict[str, Any], name: str, models: Sequence[Registrable], say: Say, *, arms: Collection[str] | None = None
) -> None:  # fmt: skip
    """Make the registry hold these models of arms as versions of `name`, each once; aliases and tags that a user gave a
    version stay on it.

    Args:
        opened: the experiment (`store.experiment`).
        arms: only these, as the study file names them; None: all.
    """
    with store.lock(opened["uri"], f"registered {name}"):
        client = prepare(opened["uri"], name)
        there: dict[tuple[str, str], list[ModelVersion]] = {}
        for version in _every(client, name):
            if version.tags.get(EXPERIMENT) == opened["experiment_id"]:
                there.setdefault((version.tags.get(CELL, ""), version.tags.get(DIGEST, "")), []).append(version)
        aliases = {k: str(v) for k, v in client.get_registered_model(name).aliases.items()}
        new, left = 0, []
        for made in models:
            cell = made.cell
            if cell["task"] is None or (arms is not None and cell["family"] not in arms):
                continue
            if why := withheld(cell):
                left.append(f"{made.name} ({why})")
                continue
            digest = _digest(client, made)
            same = there.get((made.name, digest), [])
            kept = next((v for v in same if v.source == f"models:/{made.model}"), None)
            if kept is None:
                kept, new = _version(client, name, made, digest, opened, same), new + 1
            going = {str(v.version) for v in same} - {str(kept.version)}
            wanted = {given for given, version in aliases.items() if version in going}
            for given in sorted(wanted | {alias(opened["experiment"], cell)}):
                if aliases.get(given) != str(kept.version):
                    client.set_registered_model_alias(name, given, str(kept.version))
                    aliases[given] = str(kept.version)
            for gone in sorted(going):  # of the same bytes, whose run or model was made anew
                client.delete_model_version(name, gone)
        say(f"registered as {name}: {new} new version(s)")
        for line in left:
            say(f"not registered: {line}")


def _every(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a registered model."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _digest(client: MlflowClient, made: Registrable) -> str:
    """The sha256 of a model's file, as it was when it was imported, or now where it was not here then."""
    known = client.get_logged_model(made.model).tags.get(DIGEST, "None")
    return known if known != "None" else str(lineage.checkpoint(Path(made.cell["model"]))["sha256"])


def _version(
    client: MlflowClient, name: str, made: Registrable, digest: str, opened: dict[str, Any],
    same: Sequence[ModelVersion],
) -> ModelVersion:  # fmt: skip
    """A version that refers to a model and its run; what a user added to one of the same bytes goes along."""
    cell = made.cell
    tags = {
        CELL: made.name, EXPERIMENT: opened["experiment_id"], DIGEST: digest, "study": cell["study"],
        "task": cell["task"], "arm": cell["arm"], "method": str(cell["method"]), "seed": str(cell["seed"]),
        "replicate": str(cell.get("replicate", 0)), "address": cell["model"], OWNER: store.user(),
    }  # fmt: skip
    added = {k: v for version in same for k, v in version.tags.items()}
    note = client.get_logged_model(made.model).tags.get("mlflow.note.content")
    return client.create_model_version(
        name, f"models:/{made.model}", made.run, tags=added | tags, description=note, model_id=made.model
    )
