"""What a source names, and where the rows of a task lie on this machine.

Light: the Snakefile asks for it at every start.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast import data, names

SUFFIXES = (".csv", ".jsonl", ".parquet")
WORLD, HUB = "world", "hub"
REMOTE = "https://"  # how a source on the web begins


def is_file(source: str) -> bool:
    """Whether a source of safety rows, pairs or prompts is a file on this machine."""
    return source != WORLD and not source.startswith(REMOTE)


def local_folder(dataset: str, source: str) -> Path | None:
    """Folder or file with the rows of `source`; None means the hub.

    `hub` reads the folder of the dataset under HOLDFAST_DATA when that is set.
    """
    if source == HUB:
        root = os.environ.get("HOLDFAST_DATA")
        return Path(root) / data.dataset(dataset).FOLDER if root else None
    return Path(source).expanduser()


def local_files(dataset: str, source: str) -> list[Path]:
    """The files of a local source, so that a changed file reruns the stage; empty for the hub."""
    folder = local_folder(dataset, source)
    if folder is None:
        return []
    if folder.is_dir():
        return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.stem in names.SPLITS)
    return [folder]
