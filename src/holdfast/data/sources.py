"""What a source names, and where the rows of a task lie on this machine.

Light: the Snakefile asks for it at every start.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast import data, names
from holdfast.record import paths
from holdfast.record.userfiles import FORMATS, PACKED

WORLD, HUB = "world", "hub"
REMOTE = "https://"  # how a source on the web begins
SUITES = "suites"  # evaluation prompts of published suites
PUBLISHED = (SUITES, "safe-instr")  # what `suites.published` knows by name


def is_file(source: str) -> bool:
    """Whether a source of safety rows, pairs or prompts is a file of the user's."""
    return source != WORLD and source not in PUBLISHED and not source.startswith(REMOTE)


def local_folder(dataset: str, source: str) -> Path | None:
    """Folder or file with the rows of `source`; None means the hub.

    `hub` reads the folder of the dataset under HOLDFAST_DATA when that is set.
    """
    if source == HUB:
        root = os.environ.get("HOLDFAST_DATA")
        return Path(root) / data.dataset(dataset).FOLDER if root else None
    return paths.home(source)


def local_files(dataset: str, source: str) -> list[Path]:
    """The files of a local source, so that a changed file reruns the stage; empty for the hub."""
    folder = local_folder(dataset, source)
    if folder is None:
        return []
    if folder.is_dir():
        return sorted(p for p in folder.iterdir() if p.is_file() and part(p) in names.SPLITS and _is_data(p))
    return [folder]


def part(path: Path) -> str:
    """What a file holds by its name: `train` of train.csv and of train.jsonl.gz.

    >>> part(Path("rows/train.jsonl.gz")), part(Path("mine.v2.csv"))
    ('train', 'mine.v2')
    """
    name = path.name
    while (ending := Path(name).suffix.lower()) in (*FORMATS, *PACKED):
        name = name[: -len(ending)]
    return name


def _is_data(path: Path) -> bool:
    return any(ending in FORMATS for ending in map(str.lower, path.suffixes))
