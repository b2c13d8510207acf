"""What is wrong with a study's files and what would repair each: `holdfast audit STUDY`.

missing   Snakemake needs it and it is not here
stale     made with other parameters, code or inputs than the study now has
corrupt   its bytes are not those a job wrote: by provenance.json, or by what the job that read it noted
orphan    no rule of the study makes it any more
remote    the DVC remote lacks it, or holds other bytes under its name

Nothing is changed. The remote's objects are read and hashed here: DVC trusts that an object that exists is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast import names
from holdfast.archive import objects, remote, snapshot
from holdfast.engines import dvc, snakemake
from holdfast.model import adapter, folders
from holdfast.record import provenance
from holdfast.study import resolve

KINDS = ("missing", "stale", "corrupt", "orphan", "remote")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the command that repairs it."""

    kind: str
    path: str
    why: str
    repair: str


def remote_problems(study: resolve.Resolved, known: objects.Pushed, store: dvc.Store | None) -> Iterator[Problem]:
    """Objects the remote lacks or holds with other bytes; every one is read."""
    weakened = tuple(remote.families(study).get(remote.WEAKENED, ("", []))[1])
    for what, path, state in objects.damaged(known, store) if store else ():
        why = f"the remote has no {path}" if state == "absent" else f"other bytes than their name says: {path}"
        family = f" {remote.WEAKENED}" if what.startswith(weakened) else ""
        option = "" if state == "absent" else " --verify"
        yield Problem("remote", what, why, f"holdfast push {study.name}{family}{option} (where the file is)")


def local_problems(study: resolve.Resolved, known: objects.Pushed) -> Iterator[Problem]:
    """Missing, stale, corrupt and orphaned files of a study."""
    planned = snakemake.summary(study.path)
    recorded, records = snapshot.read(Path()), dict(snakemake.records(Path()))
    noted: dict[str, set[str]] = {}  # what jobs that read a file saw in it
    for of in records.values():
        for name, checksum in (of.get("input_checksums") or {}).items():
            noted.setdefault(name, set()).add(checksum.removeprefix("sha256:"))

    def make(path: str) -> str:
        return f"snakemake --config study={study.name} -- {path}"

    for path, (status, pending) in sorted(planned.items()):
        if not Path(path).is_file():
            if pending:
                yield Problem("missing", path, "not here and needed", _fetch(study, path, known) or make(path))
            continue
        if pending and status != "ok":  # those that only follow from others are not listed
            yield Problem("stale", path, status, make(path))
        record = records.get(path)
        digest = provenance.file_digest(path) if path in recorded or path in noted else ""
        rebuilt = record is not None and snapshot.made_here(Path(path), record)
        if path in recorded:
            bad = snapshot.condition(Path(path), digest, recorded[path], record) == "corrupt"
        else:
            bad = path in noted and digest not in noted[path] and not rebuilt
        if bad:
            repair = _fetch(study, path, known) or f"rm {path} && {make(path)}"
            yield Problem("corrupt", path, "other bytes than recorded", repair)
    for path in _orphans(study, set(planned)):
        yield Problem("orphan", path, "no rule of the study makes it", f"rm {path}")


def _fetch(study: resolve.Resolved, path: str, known: objects.Pushed) -> str | None:
    """The pull that brings a file back, where it was pushed."""
    if path not in known.files:
        return None
    family = known.files[path][0]
    away = f"rm -f {path} && " if Path(path).exists() else ""
    return f"{away}make pull STUDY={study.name} ONLY={family}"


def _orphans(study: resolve.Resolved, outputs: set[str]) -> Iterator[str]:
    places = {str(Path(o).parent) for o in outputs if Path(o).name == folders.FILES[-1]}
    low_rank = [f"{adapter.BESIDE}/{name}" for name in (adapter.CONFIG, adapter.WEIGHTS)]
    beside = {f"{folder}/{name}" for folder in places for name in (*folders.FILES, *folders.CARD, *low_rank)}
    beside |= {str(Path(o).with_name(names.PRELUDE)) for o in outputs if Path(o).name == "train.jsonl"}
    # A target of its own where the study does not ask for it, and what people label.
    beside |= {f"results/{study.name}/{name}" for name in ("gate.json", names.TO_LABEL)}
    unfinished, routed = (f"work/{study.name}/checkpoints/",), f"results/{study.name}/{names.ROUTING}"
    for top in (f"work/{study.name}", f"results/{study.name}"):
        for path in sorted(p for p in Path(top).rglob("*") if p.is_file()):
            name = path.as_posix()
            mine = name in outputs or name in beside or name.startswith(unfinished)
            mine = mine or (name.startswith(routed) and path.suffix in (".csv", ".svg"))
            if not mine and not path.name.startswith((".snakemake", ".gitignore")):
                yield name


def audit(study: resolve.Resolved) -> list[Problem]:
    """Every problem of a study's files, here and on the remote."""
    lock = remote.lock(study)
    cache, store = dvc.stores() if dvc.locked(lock) else (None, None)
    known = objects.pushed(lock, [cache, store])
    return [*local_problems(study, known), *remote_problems(study, known, store)]
