"""Which file a path in a study means: of the user's home, beside the file that names it, here, or in the project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.data.sources import ANSWERED, HUB, REMOTE, WORLD, WRITTEN
from holdfast.record import paths

# Keys of a study that name a file or folder; `*` is any name. Some also take a word or the id of a hub model.
KEYS = (
    ("chosen",), ("base", "source"), ("aligned", "source"), ("unaligned", "source"), ("arms", "*", "given"),
    ("arms", "*", "given", "*"), ("safety", "source"), ("safety", "benign_prompts"),
    ("evaluation", "source"), ("preferences", "source"),
    ("constitution", "source"), ("constitution", "pairs"), ("constitution", "guidelines_file"),
    ("constitution", "prompt_file"),
    ("capabilities", "task_files"), ("tasks", "*", "source"), ("tasks", "*", "instruction_file"),
    ("tasks", "*", "scorer", "python"),
    ("judges", "*", "source"), ("judges", "*", "prompt_file"),
)  # fmt: skip
WORDS = (WORLD, HUB, "tiny", "train", WRITTEN, ANSWERED)


def meant(value: str, folders: Sequence[Path]) -> str:
    """The path that a study's words mean: `~` is the user's home; a relative path is looked for in these folders, in
    their order, and stays as it is where nothing is found. Words and addresses are no paths.

    A file below the working directory is named from there, so that a study says the same wherever the project lies.
    """
    if not value or value in WORDS or value.startswith(REMOTE):
        return value
    path = paths.home(value)
    if path.is_absolute():
        return str(path)
    for folder in folders:
        if paths.there(folder / path):
            here = Path.cwd()
            whole = Path(os.path.normpath(here / folder / path))
            return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
    return value


def anchored(layer: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """One study file with every path in it as `meant`; anything that is not as it should be stays for the checks."""
    out = dict(layer)
    for key in KEYS:
        _anchor(out, key, folders)
    return out


def _anchor(holder: dict[str, Any], key: Sequence[str], folders: Sequence[Path]) -> None:
    first, *rest = key
    for name in list(holder) if first == "*" else [first] if first in holder else []:
        value = holder[name]
        if rest:
            if isinstance(value, dict):
                holder[name] = value = dict(value)
                _anchor(value, rest, folders)
        elif isinstance(value, str):
            holder[name] = meant(value, folders)
        elif isinstance(value, list):
            holder[name] = [meant(v, folders) if isinstance(v, str) else v for v in value]
