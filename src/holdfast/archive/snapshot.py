"""What made each file, carried between machines: `python -m holdfast.snapshot save | restore`.

Snakemake remembers in .snakemake/metadata with which parameters, code and inputs it made a file, and reruns
what differs. A clone has no such memory: with restored files and no records Snakemake reruns nothing, whatever
changes. `save` copies the records of all outputs, with the sha256 of each, into provenance.json, which git
tracks; `restore` checks the files that are here against it and gives Snakemake its memory back.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import ArtifactError
from holdfast.record import files, provenance

FILE = "provenance.json"
RECORDS = Path(".snakemake/metadata")
# Of a record, what another machine can use.
KEPT = (
    "rule", "input", "log", "shellcmd", "params", "code", "record_format_version", "conda_env", "container_img_url",
    "software_stack_hash", "endtime", "incomplete", "input_checksums",
)  # fmt: skip
_LONGEST_NAME = 254
_SAME_TIME = 1e-3


@dataclass
class Found:
    """Outputs by what a save or a restore found: paths relative to the project."""

    ok: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)  # another job made them since
    stale: list[str] = field(default_factory=list)  # an input is not the one they were made from
    corrupt: list[str] = field(default_factory=list)  # nobody rebuilt them, and their bytes differ


def record_file(root: Path, output: str) -> Path:
    """Where Snakemake keeps the record of an output: base64 of its path, cut where names get too long."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return root.joinpath(RECORDS, *("@" + p for p in parts[:-1]), parts[-1])


def records(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(output, record) of every finished output Snakemake remembers here."""
    folder = root / RECORDS
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        try:
            output, record = base64.urlsafe_b64decode(name).decode(), json.loads(path.read_text())
        except ValueError:  # not a record, or one that was being written when everything was killed
            continue
        if not record.get("incomplete") and record.get("endtime") is not None:
            yield output, record


def read(root: Path) -> dict[str, dict[str, Any]]:
    """provenance.json: output -> {sha256, record}; empty where there is none.

    Raises:
        ArtifactError: the file is not what `save` writes, for instance after a merge with conflicts.
    """
    path = root / FILE
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text())
        if not all({"sha256", "record"} <= known[output].keys() for output in known):
            raise ValueError("an entry without sha256 and record")
    except (ValueError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read.", found=str(error)[:160], expected="what `make push` wrote",
            do="take one side of the merge (git checkout --ours provenance.json) and save again",
        ) from None  # fmt: skip
    return known


def made_here(path: Path, record: dict[str, Any]) -> bool:
    """Whether the job of this record was the last to write the file: Snakemake notes the time it then had."""
    return abs(record["endtime"] - path.stat().st_mtime) < _SAME_TIME


def corrupt(output: str) -> ArtifactError:
    """The error for an output whose bytes no job wrote."""
    return ArtifactError(
        f"{output} is not what a job wrote.", found="other bytes than recorded", expected="the file as it was made",
        do=f"dvc checkout --force {output}, or delete it and run the study again",
    )  # fmt: skip


def condition(path: Path, digest: str, entry: dict[str, Any], local: dict[str, Any] | None) -> str:
    """ok | rebuilt | corrupt: a present output against its entry. A job that ran since has left a record with
    the time of the file; other bytes without such a record were not written by a job."""
    if digest == entry["sha256"]:
        return "ok"
    newer = local is not None and local["endtime"] != entry["record"]["endtime"]
    return "rebuilt" if newer and made_here(path, local) else "corrupt"


def save(root: Path, under: Iterable[str] = ("",)) -> Found:
    """Write provenance.json: every output that is here and was made by a job, beside the entries of outputs
    that are not here. Bytes no job wrote are listed as corrupt and not recorded."""
    under, known, found = tuple(under), read(root), Found()
    for output, record in records(root):
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
            known[output] = {"sha256": digest, "record": {k: record.get(k) for k in KEPT}}
    found.absent = [o for o in known if o.startswith(under) and not (root / o).exists()]
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
    local = dict(records(root))
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
            _remember(root, output, entry["record"])
            continue
        state = condition(path, digest(output), entry, local.get(output))
        if state == "ok" and any(
            (root / name).is_file() and f"sha256:{digest(name)}" != checksum
            for name, checksum in entry["record"]["input_checksums"].items()
        ):
            state = "stale"
        getattr(found, state).append(output)
        if state in ("ok", "stale"):
            _remember(root, output, entry["record"])
            moment = now if state == "ok" else 1.0
            for follow in (True, False) if path.is_symlink() else (True,):
                os.utime(path, (moment, moment), follow_symlinks=follow)
    return found


def _remember(root: Path, output: str, record: dict[str, Any]) -> None:
    path = record_file(root, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file in place of the old: Snakemake writes records in place, perhaps through a link. A temporary name
    # beside a record would be too long for some.
    temporary = root / ".snakemake" / "record.tmp"
    temporary.write_text(json.dumps(record))
    temporary.replace(path)


def prefixes(studies: Iterable[str]) -> list[str]:
    """The beginnings of the paths of these studies; all paths where none is named."""
    return [f"{top}/{study}/" for study in studies for top in ("work", "results")] or [""]


def report(what: str, found: Found) -> int:
    """Print what was found; the exit code is 2 where something is corrupt."""
    counts = ", ".join(f"{len(v)} {k}" for k, v in vars(found).items() if v)
    sys.stdout.write(f"{what}: {counts or 'nothing recorded'}\n")
    for output in found.corrupt:
        sys.stderr.write(corrupt(output).block() + "\n")
    return 2 if found.corrupt else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="holdfast.snapshot", description=__doc__)
    parser.add_argument("what", choices=["save", "restore"])
    parser.add_argument("studies", nargs="*", help="only files of these studies")
    args = parser.parse_args(arguments)
    try:
        return report(args.what, (save if args.what == "save" else restore)(Path.cwd(), prefixes(args.studies)))
    except ArtifactError as error:
        sys.stderr.write(error.block() + "\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
