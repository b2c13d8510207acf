"""Which suites are there, and what are their rows? Evaluation prompts and refusals to train on, by name.

A file is read from below HOLDFAST_DATA where it is there, else fetched once from its address; either must be the very
file that the suite names. One without a pinned revision is read from below HOLDFAST_DATA alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import DataError
from holdfast.record import files, paths, userfiles
from holdfast.suites import (
    advbench,
    coconot,
    do_not_answer,
    harmbench,
    jailbreakbench,
    malicious_instructions,
    or_bench,
    physical_safety,
    safe_instr,
    simple_safety_tests,
    strongreject,
    xstest,
)
from holdfast.suites.suite import File, Row, Suite

ROOT = "HOLDFAST_DATA"
PROMPTS: dict[str, Suite] = {
    "xstest": xstest.SUITE,
    "advbench": advbench.SUITE,
    "harmbench": harmbench.SUITE,
    "strongreject": strongreject.SUITE,
    "simple-safety-tests": simple_safety_tests.SUITE,
    "malicious-instructions": malicious_instructions.SUITE,
    "physical-safety": physical_safety.SUITE,
    "coconot": coconot.SUITE,
    "jailbreakbench": jailbreakbench.SUITE,
    "or-bench": or_bench.SUITE,
    "do-not-answer": do_not_answer.SUITE,
}
REFUSALS: dict[str, Suite] = {"safe-instr": safe_instr.SUITE}

# Suite -> the split it is asked for; refusals have none.
Asked = Mapping[Any, str]


def of(prompt: str) -> str:
    """The suite of a prompt, by the prompt's id.

    >>> of("physical-safety/hazard/003")
    'physical-safety'
    """
    return prompt.split("/", 1)[0]


def licence(name: str) -> str:
    """Under which terms a suite is published."""
    return (PROMPTS | REFUSALS)[name].licence


def sets(name: str, split: str) -> set[str]:
    """The prompt sets that a suite has when it is asked for this split."""
    return {name for file in _files(name, split) for name in file.sets}


def _files(name: str, split: str = "") -> list[File]:
    """The files that a suite has for a split: all that are not another published split."""
    return [f for f in (PROMPTS | REFUSALS)[name].files if f.split in ("", split)]


def _places(file: File) -> list[Path]:
    """Where a file may lie on this machine: the user's copy, in any format where no bytes are pinned, and the one
    fetched before."""
    own = os.environ.get(ROOT)
    if file.sha256 is None:
        return [(paths.home(own) / file.place).with_suffix(ending) for ending in userfiles.FORMATS] if own else []
    return [
        *([paths.home(own) / file.place] if own else []),
        paths.cache() / "suites" / file.sha256 / Path(file.place).name,
    ]


def _place(file: File) -> Path | None:
    return next(filter(paths.there, _places(file)), None)


def here(asked: Asked) -> bool:
    """Whether all files of these suites are on this machine."""
    return all(_place(f) is not None for name, split in asked.items() for f in _files(name, split))


def unpinned(asked: Asked) -> list[Path]:
    """The user's copies of files whose bytes are not pinned, so that another copy is read again."""
    found = [_place(f) for name, split in asked.items() for f in _files(name, split) if f.sha256 is None]
    return [place for place in found if place is not None]


def unfound(asked: Asked) -> list[str]:
    """What is looked for below HOLDFAST_DATA, is not there, and will be fetched: a line each."""
    own = os.environ.get(ROOT)
    return [
        f"{name}: no {file.place} below {ROOT} ({own}), so that it is fetched from {file.address}"
        for name, split in asked.items() for file in _files(name, split)
        if own and file.sha256 is not None and _place(file) is None
    ]  # fmt: skip


def refuse_absent(asked: Asked) -> None:
    """Refuse suites that nothing can be fetched of and of which there is no copy.

    Raises:
        DataError: the first one: where it is published, and where a copy is read from.
    """
    for name, split in asked.items():
        for file in _files(name, split):
            if file.sha256 is None and _place(file) is None:
                raise _absent(name, file)


def _absent(name: str, file: File) -> DataError:
    return DataError(
        f"The suite {name} is read from a copy of yours, and there is none.",
        found=f"no {file.place} below {ROOT}" + ("" if os.environ.get(ROOT) else ", which is not set"),
        expected=f"{Path(file.place).name} from {file.address}, with {', '.join(file.columns)}"
        " (no revision of it is pinned here)",
        do=f"put it at ${ROOT}/{file.place} (or as {', '.join(e for e in userfiles.FORMATS if e != '.csv')})",
    )


def rows(name: str, fetched: Callable[[str], bytes], split: str = "") -> list[Row]:
    """All rows of a suite, as it is asked for a split.

    Args:
        fetched: what lies at an address.

    Raises:
        DataError: a file is not there and cannot be fetched, is another one, or lacks a column.
    """
    found = []
    for file in _files(name, split):
        raw, where = _content(name, file, fetched)
        records = file.read(raw, where, file.columns)
        found += [row for number, r in enumerate(records) if (row := file.row(number, r)) is not None]
    return found


def _fetched(name: str, file: File, fetched: Callable[[str], bytes]) -> bytes:
    try:
        return fetched(file.address)
    except DataError as error:
        raise DataError(
            f"{name}: {error.what}", found=error.found, expected=f"a connection to the web, or your copy below {ROOT}",
            do=f"put the file of that address at ${ROOT}/{file.place}, or leave {name} out",
        ) from None  # fmt: skip


def _content(name: str, file: File, fetched: Callable[[str], bytes]) -> tuple[bytes, str]:
    """(bytes, where they are from) of a file."""
    place = _place(file)
    if file.sha256 is None:
        if place is None:
            raise _absent(name, file)
        return place.read_bytes(), str(place)
    if place is None:
        raw, where = _fetched(name, file, fetched), file.address
    else:
        raw, where = place.read_bytes(), str(place)
    digest = hashlib.sha256(raw).hexdigest()
    if digest != file.sha256:
        raise DataError(
            f"{where} is not the file of the suite {name}.", found=f"sha256 {digest}", expected=f"sha256 {file.sha256}",
            do="download it again, or name your file as a source of its own",
        )  # fmt: skip
    if place is None:
        with files.whole(_places(file)[-1]) as temporary:
            temporary.write_bytes(raw)
    return raw, where
