"""Does the tracking server answer, and take what this user will write? Asked before the first job of a run.

In a process of its own, so that Snakemake's stays without MLflow.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from holdfast.errors import EngineError, HoldfastError
from holdfast.track import store

WRITERS = {"create_store", "import_runs"}  # rules
_ASK = "import sys; from holdfast.track import reach; sys.exit(reach.asked(sys.argv[1:]))"
# A server that does not answer is waited for during a run, for minutes; nobody has begun to wait for this one.
_SOON = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def before(study: str, rules: Collection[str], registered: str | None) -> None:
    """Leave with exit code 2, having said why in one block, where a run of these rules could not be tracked. A database
    file is made by its rule, and cannot be refused by anybody.

    Args:
        registered: name of the model that the study registers, if it does.
    """
    uri = store.default_uri(Path())
    if not WRITERS & set(rules) or not store.shared(uri):
        return
    # The Snakefile quotes it.
    python = sys.executable if Path(sys.executable).exists() else shlex.split(sys.executable)[0]
    command = [python, "-c", _ASK, study, *([registered] if registered else [])]
    code = subprocess.run(command, env=_SOON | os.environ, check=False).returncode
    if code:
        sys.exit(code)


def check(study: str, registered: str | None) -> None:
    """Make the experiment and the registered model that a study writes to, or find that they are ours.

    Raises:
        ArtifactError: no answer, a wrong password, a permission that is lacking. EngineError: no driver for a database.
    """
    with store.answering(study) as uri:
        try:
            store.experiment(uri, study)
            if registered:
                from holdfast.track import registered as registry

                registry.prepare(uri, registered)
        except ModuleNotFoundError as error:  # of a database that is named without a server before it
            raise EngineError(
                f"MLflow cannot open {store.without_password(uri)}.", found=f"{error.name} is not installed",
                expected="its driver", do="pip install psycopg2-binary (PostgreSQL), or set MLFLOW_TRACKING_URI",
            ) from None  # fmt: skip


def asked(arguments: list[str]) -> int:
    """Exit code 2, and the block, where the check fails."""
    try:
        check(arguments[0], next(iter(arguments[1:]), None))
    except HoldfastError as error:
        sys.stderr.write(error.block() + "\n")
        return error.exit_code
    return 0
