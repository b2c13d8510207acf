"""The one place that knows DVC's insides: what dvc.lock says, how objects are named and kept, how it fails."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast.engines import versions
from holdfast.errors import ArtifactError, EngineError

SCHEMA, HASH = "2.0", "md5"  # of a dvc.lock that is understood here
FOLDER = ".dir"  # ends the name of an object that lists a folder
_PIECE = 1 << 22


@dataclass(frozen=True)
class Output:
    """One line of dvc.lock: a file or folder that a stage made."""

    stage: str
    path: str
    md5: str


def run(*arguments: str) -> None:
    """Call dvc.

    Raises:
        ArtifactError: it failed; with the line in which it said why.
    """
    command = [sys.executable, "-m", "dvc", *arguments]  # not --quiet, which hides why it fails
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = [line.strip() for line in re.split(r"[\r\n]+", f"{done.stdout}\n{done.stderr}") if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit code {done.returncode}"]
        raise ArtifactError(
            f"dvc {arguments[0]} did not finish.", found=said[-1].removeprefix("ERROR: ")[:240],
            expected="a DVC project with a reachable remote that has these files",
            do=f"dvc {' '.join(arguments)}; dvc remote list; dvc remote modify NAME url WHERE",
        )  # fmt: skip


def locked(lock: Path) -> list[Output]:
    """What a dvc.lock says was made; nothing where there is none.

    Raises:
        EngineError: it has another form than the tested versions write.
    """
    if not lock.exists():
        return []
    try:
        content = yaml.safe_load(lock.read_text(encoding="utf-8"))
        form = str(content["schema"])
        outs = [(name, out) for name, stage in content["stages"].items() for out in stage.get("outs", [])]
        kinds = sorted({out["hash"] for _, out in outs})
        found = [Output(name, out["path"], out["md5"]) for name, out in outs]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise _unknown(lock, f"no {error}" if isinstance(error, KeyError) else str(error)[:120]) from None
    if form != SCHEMA or kinds not in ([], [HASH]):
        raise _unknown(lock, f"schema {form}, hashes {' '.join(kinds)}")
    return found


def _unknown(lock: Path, found: str) -> EngineError:
    return versions.refuse("dvc", f"{lock} is", found=found, expected=f"schema {SCHEMA}, hashes {HASH}")


def stores() -> tuple[Any, Any]:
    """(DVC's cache here, the store of the default remote); None for what there is not.

    Raises:
        EngineError: DVC is of a version whose objects are not known here.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    versions.check("dvc", "The way DVC keeps objects is")
    try:
        repository = Repo(".")
    except DvcException:  # not a repository: nothing was ever pushed
        return None, None
    there = repository.cloud.get_remote_odb() if repository.config["core"].get("remote") else None
    return repository.cache.local, there


def listing(places: Iterable[Any], md5: str) -> list[dict[str, str]]:
    """[{relpath, md5}] of the object that lists a folder, from the first store that has it whole."""
    for store in places:
        try:
            with store.fs.open(store.oid_to_path(md5), "rb") as file:
                raw = file.read()
        except OSError:
            continue
        if hashlib.md5(raw).hexdigest() == md5.removesuffix(FOLDER):
            entries: list[dict[str, str]] = json.loads(raw)
            if not all({"relpath", "md5"} <= entry.keys() for entry in entries):
                raise versions.refuse("dvc", f"The list of a folder ({md5}) is", found=str(entries)[:80],
                                      expected="entries with relpath and md5")  # fmt: skip
            return entries
    return []


def state(store: Any, md5: str) -> tuple[str, str]:
    """(its path, `ok` | `absent` | `other`) of an object; all of it is read and hashed, since DVC trusts that an
    object that exists is right."""
    path, digest = store.oid_to_path(md5), hashlib.md5()
    try:
        with store.fs.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return path, "absent"
    return path, "ok" if digest.hexdigest() == md5.removesuffix(FOLDER) else "other"
