"""Tensors and results to and from a DVC remote: `holdfast push`, `holdfast pull`.

DVC keeps the bytes, one stage per family; provenance.json keeps what made them (`snapshot`). The demo's
stages are dvc.yaml itself; another study's are dvc/<study>/dvc.yaml, written by its first push.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from holdfast.archive import objects, snapshot
from holdfast.engines import dvc
from holdfast.errors import ArtifactError
from holdfast.record import files
from holdfast.study import resolve

DEMO = "demo"
WEAKENED = "weakened"
HEAD = """\
# DVC versions tensors and results; Snakemake makes them. One stage per family: `dvc repro` gives Snakemake its memory
# back, runs the family's target and keeps what Snakemake then remembers; on a finished study there is nothing to do.
# persist: true keeps the old files until new ones exist. Written by holdfast (`make documents` for the demo, `make
# push` for other studies).
"""


def families(study: resolve.Resolved) -> dict[str, tuple[str, list[str]]]:
    """Family -> (Snakemake target, folders that hold it), in the order they are made.

    `weakened` are the models that were trained on purpose on answers they should refuse, or tuned to refuse less.
    """
    tasks = study.study.tasks
    bases, aligned, all_of = (
        [f"work/{study.name}/{f}" for f in folders]
        for folders in (study.homes("base"), study.homes("aligned"), study.folders)
    )
    out = {
        "data": ("prepare", [f"{work}data" for work in aligned]),
        "base": ("base", [f"{work}base" for work in bases] if study.study.has_base else []),
        "aligned": ("aligned", [f"{w}{name}" for w in aligned for name in dict.fromkeys((study.speaker, "aligned"))
                                if name != "base"]),
        "gram": ("gram", [f"{work}gram" for work in aligned]),
        "basis": ("basis", [f"{work}basis" for work in aligned]),
        "masks": ("masks", [
            f"{work}{what}"
            for work in aligned
            for what, made in (
                ("importance", study.masks), ("neurons", study.neuron_masks),
                ("masks", study.masks or study.neuron_masks),
            )
            if made
        ]),
        "models": ("models", [f"{w}{name}" for w in all_of for name, t in tasks.items() if not t.harmful_fraction]),
        WEAKENED: ("models attack" if study.study.attack else "models", [
            *(f"{work}unaligned" for work in aligned if "unaligned" in study.roles),
            *(f"{work}{name}" for work in all_of for name, t in tasks.items() if t.harmful_fraction),
            *(f"{work}attack" for work in all_of if study.study.attack),
        ]),
        "judge": ("report", [f"work/{study.name}/judge"] if study.judging.trains_constitution else []),
        "results": ("report", [f"results/{study.name}"]),
    }  # fmt: skip
    return {name: (target, folders) for name, (target, folders) in out.items() if folders}


def definition(study: resolve.Resolved, project: Path = Path()) -> str:
    """The text of the study's dvc.yaml; its paths are relative to the project."""
    root, folder = study.name == DEMO, Path(os.path.relpath(study.path.parent, project))
    config, chosen = str(folder / study.path.name), [os.path.relpath(file, project) for file in study.study.chosen]
    stages: dict[str, Any] = {}
    before: list[str] = []
    for name, (target, folders) in families(study).items():
        run = "snakemake" if root else f"snakemake --config {shlex.quote(f'study={config}')}"
        stage: dict[str, Any] = {} if root else {"wdir": "../.."}
        stages[name] = stage | {
            "cmd": [
                f"holdfast snapshot restore {study.name}",
                f"{run} --quiet rules -- {target}",
                f"holdfast snapshot save {study.name}",
            ],
            "deps": [config, *(chosen if name in ("masks", "models") else []), *before],
            "outs": [{folder: {"persist": True}} for folder in folders],
        }
        if name != WEAKENED:  # which a clone need not have
            before = folders
    up = "" if root else "../../"
    about = {"params": [up + config], "metrics": [f"{up}results/{study.name}/summary.json"]}
    return HEAD + yaml.safe_dump({"stages": stages} | about, sort_keys=False, width=110)


def stages_file(study: resolve.Resolved) -> Path:
    """The dvc.yaml with the stages of a study."""
    return Path("dvc.yaml") if study.name == DEMO else Path(f"dvc/{study.name}/dvc.yaml")


def lock(study: resolve.Resolved) -> Path:
    """The dvc.lock that says what of a study was pushed."""
    return stages_file(study).with_suffix(".lock")


def _whole(study: resolve.Resolved) -> list[str]:
    """The families that are here with all that they are made from: dvc takes no other."""
    found: list[str] = []
    complete = True
    for name, (_, folders) in families(study).items():
        here = all(Path(f).is_dir() for f in folders)
        if here and (complete or name in (WEAKENED, "judge")):
            found.append(name)
        complete &= here or name in (WEAKENED, "judge")
    return found


def push(study: resolve.Resolved, only: Sequence[str] = (), *, verify: bool = False, say: objects.Say) -> list[str]:
    """Record, commit and push every family that is here whole, or `only` some; returns their names. Weakened models
    leave this machine only when they are named. `verify` as of `objects.send`."""
    whole = _whole(study)
    absent = sorted(set(only) - set(whole))
    here = [name for name in whole if name in only] if only else [name for name in whole if name != WEAKENED]
    if absent or not here:
        raise ArtifactError(
            f"{absent[0]} is not here." if absent else f"Nothing of the study {study.name} is here.",
            found=" ".join(whole) or "no family of files", expected="families of a finished study",
            do=f"make demo STUDY={study.name}",
        )  # fmt: skip
    cache, store = dvc.both()  # before anything is written
    found = snapshot.save(Path.cwd(), snapshot.prefixes([study.name]))
    if found.corrupt:
        raise snapshot.corrupt(found.corrupt[0])
    path = stages_file(study)
    if study.name != DEMO:
        files.write_text(path, definition(study))
    dvc.run("commit", "--force", *(f"{path}:{name}" for name in here))
    known = objects.pushed(lock(study), [cache], here)
    objects.send(known, cache, store, verify=verify, say=say, again=f"holdfast push {study.name}")
    return here


def pull(
    study: resolve.Resolved, only: Sequence[str] = (), *, verify: bool = False, say: objects.Say
) -> tuple[list[str], snapshot.Found]:
    """Fetch the families that were pushed (or `only` some of them) and give Snakemake its memory back. `verify` as of
    `objects.fetch`."""
    path, known = stages_file(study), lock(study)
    there = list(dict.fromkeys(out.stage for out in dvc.locked(known)))
    unknown = sorted(set(only) - set(there))
    if unknown or not there:
        raise ArtifactError(
            f"{(unknown or ['This study'])[0]} was not pushed.", found=f"{known}: {' '.join(there) or 'not there'}",
            expected="a family that was pushed, its dvc.lock committed", do="make push on the machine that has it",
        )  # fmt: skip
    wanted = list(only) or there
    cache, store = dvc.both()
    parts = objects.pushed(known, [cache, store], wanted)
    objects.fetch(parts, cache, store, verify=verify, say=say, heal=f"holdfast push {study.name} --verify")
    dvc.run("checkout", *(f"{path}:{name}" for name in wanted))
    return wanted, snapshot.restore(Path.cwd(), snapshot.prefixes([study.name]))
