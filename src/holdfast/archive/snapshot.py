"""What made each file, carried between machines: `holdfast snapshot save | restore`.

Snakemake remembers in .snakemake/metadata with which parameters, code and inputs it made a file, and reruns
what differs. A clone has no such memory: with restored files and no records Snakemake reruns nothing, whatever
changes. `save` copies the records of all outputs, with the sha256 of each, into provenance.json, which git
tracks; `restore` checks the files that are here against it and gives Snakemake its memory back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.engines import snakemake
from holdfast.errors import ArtifactError
from holdfast.record import files, provenance

FILE = "provenance.json"
_SAME_TIME = 1e-3


@dataclass
class Found:
    """Outputs by what a save or a restore found: paths relative to the project."""

    ok: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)  # another job made them since
    stale: list[str] = field(default_factory=list)  # an input is not the one they were made from
    corrupt: list[str] = field(default_factory=list)  # nobody rebuilt them, and their bytes differ


def read(root: Path) -> dict[str, dict[str, Any]]:
    """provenance.json: output -> {sha256, record}; empty where there is none.

    Raises:
        ArtifactError: the file is not what `save` writes, for instance after a merge with conflicts.
    """
    path = root / FILE
    if not path.exists():
        return {}
    try:
        known: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for entry in known.values():
            if not isinstance(entry["sha256"], str) or not isinstance(entry["record"]["input_checksums"], dict):
                raise ValueError("an entry that is no record")
            float(entry["record"]["endtime"])
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read.", found=str(error)[:160], expected="what `make push` wrote",
            do="take one side of the merge (git checkout --ours provenance.json) and save again",
        ) from None  # fmt: skip
    return known


def made_here(path: Path, record: dict[str, Any]) -> bool:
    """Whether the job of this record was the last to write the file: Snakemake notes the time it then had."""
    ended: float = record["endtime"]
    return abs(ended - path.stat().st_mtime) < _SAME_TIME


def corrupt(output: str) -> ArtifactError:
    """The error for an output whose bytes no job wrote."""
    return ArtifactError(
        f"{output} is not what a job wrote.", found="other bytes than recorded", expected="the file as it was made",
        do=f"dvc checkout --force {output}, or delete it and run the study again",
    )  # fmt: skip


def condition(path: Path, digest: str, entry: dict[str, Any], local: dict[str, Any] | None) -> str:
    """`ok`, `rebuilt` or `corrupt`: a present output against its entry. A job that ran since has left a record with
    the time of the file; other bytes without such a record were not written by a job."""
    if digest == entry["sha256"]:
        return "ok"
    if local is None or local["endtime"] == entry["record"]["endtime"]:
        return "corrupt"
    return "rebuilt" if made_here(path, local) else "corrupt"


def save(root: Path, under: Iterable[str] = ("",)) -> Found:
    """Write provenance.json: every output that is here and was made by a job, beside the entries of outputs
    that are not here. Bytes no job wrote are listed as corrupt and not recorded."""
    under, known, found = tuple(under), read(root), Found()
    for output, record in snakemake.records(root):
        path = root / output
        if not output.startswith(under) or not path.is_file():
            continue
        digest, entry = provenance.file_digest(path), known.get(output)
        if entry is None:
            state = "rebuilt" if made_here(path, record) else "corrupt"
        else:
            state = condition(path, digest, entry, record)
            if state == "ok" and record["endtime"] != entry["record"]["endtime"] and made_here(path, record):
                state = "rebuilt"  # from other inputs, with the same bytes
        getattr(found, state).append(output)
        if state == "rebuilt":
            known[output] = {"sha256": digest, "record": {k: record.get(k) for k in snakemake.KEPT}}
    found.absent = [o for o in known if o.startswith(under) and not (root / o).exists()]
    if known:
        files.write_text(root / FILE, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return found


def restore(root: Path, under: Iterable[str] = ("",)) -> Found:
    """Give Snakemake the records of the files that are here.

    A file with the recorded bytes, made from the inputs that are here, gets its record and one common time, so
    that nothing looks newer than anything. One whose input differs gets its record and an old time: Snakemake
    compares the input's checksum and makes it again. An absent file gets its record only, so that nobody needs
    it before something above it changes. Rebuilt and corrupt files are left alone.
    """
    under, known, found = tuple(under), read(root), Found()
    local = dict(snakemake.records(root))
    digests: dict[str, str] = {}

    def digest(name: str) -> str:
        if name not in digests:
            digests[name] = provenance.file_digest(root / name)
        return digests[name]

    now = time.time()
    for output, entry in known.items():
        path = root / output
        if not output.startswith(under):
            continue
        if not path.is_file():
            found.absent.append(output)
            snakemake.remember(root, output, entry["record"])
            continue
        state = condition(path, digest(output), entry, local.get(output))
        if state == "ok" and any(
            (root / name).is_file() and f"sha256:{digest(name)}" != checksum
            for name, checksum in entry["record"]["input_checksums"].items()
        ):
            state = "stale"
        getattr(found, state).append(output)
        if state in ("ok", "stale"):
            snakemake.remember(root, output, entry["record"])
            moment = now if state == "ok" else 1.0
            for follow in (True, False) if path.is_symlink() else (True,):
                os.utime(path, (moment, moment), follow_symlinks=follow)
    return found


def prefixes(studies: Iterable[str]) -> list[str]:
    """The beginnings of the paths of these studies, by name or file; all paths where none is named."""
    names = [Path(s).stem if s.endswith((".yaml", ".yml")) else s for s in studies]
    return [f"{top}/{name}/" for name in names for top in ("work", "results")] or [""]
