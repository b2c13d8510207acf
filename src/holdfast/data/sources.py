"""What a source names, and where the rows of a task lie on this machine.

Light: the Snakefile asks for it at every start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from holdfast import data, names
from holdfast.record import paths
from holdfast.record.userfiles import FORMATS, PACKED

WORLD, HUB = "world", "hub"
HUB_DATA = re.compile(r"hub:(?P<id>[\w.-]+/(?P<name>[\w.-]+))(?:/(?P<config>[\w.-]+))?")  # rows of any data set there
REMOTE = "https://"  # how a source on the web begins
WRITTEN, ANSWERED = "written", "answered"  # requests for a base: ours, or those that a safety source answers
SUITES = "suites"  # evaluation prompts of published suites
PUBLISHED = (SUITES, "safe-instr")  # what `suites.published` knows by name


def is_file(source: str) -> bool:
    """Whether a source of safety rows, pairs or prompts is a file of the user's."""
    return source != WORLD and source not in PUBLISHED and not source.startswith(REMOTE)


def on_hub(source: str) -> bool:
    """Whether rows of a task come from the hub: the data set of its own module, or any other."""
    return source == HUB or HUB_DATA.fullmatch(source) is not None


def called(source: str) -> str:
    """What rows are known by wherever they lie: the letters and digits of the last name of a source.

    >>> called("data/ag_news/"), called("gsm8k.jsonl.gz"), called("hub:openai/gsm8k/main")
    ('agnews', 'gsm8k', 'gsm8k')
    """
    found = HUB_DATA.fullmatch(source)
    name = found["name"] if found else part(Path(source))
    return re.sub(r"[\W_]", "", name.lower())


def local_folder(dataset: str, source: str) -> Path | None:
    """Folder or file with the rows of `source`; None means the hub.

    `hub` reads the folder of the dataset under HOLDFAST_DATA when that is set.
    """
    if HUB_DATA.fullmatch(source):
        return None
    if source == HUB:
        root = os.environ.get("HOLDFAST_DATA")
        return paths.home(root) / data.dataset(dataset).FOLDER if root else None
    return paths.home(source)


def local_files(dataset: str, source: str, parts: Mapping[str, str] | None = None) -> list[Path]:
    """The files of a local source, so that a changed file reruns the stage; empty for the hub.

    Args:
        parts: split -> its file in the folder, with or without the ending; default: they are named like the splits.
    """
    folder = local_folder(dataset, source)
    if folder is None:
        return []
    if not folder.is_dir():
        return [folder]
    there = sorted(p for p in folder.iterdir() if p.is_file() and _is_data(p))
    if parts:
        return [next((p for p in there if name in (p.name, part(p))), folder / name) for name in parts.values()]
    return [p for p in there if part(p) in names.SPLITS]


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
