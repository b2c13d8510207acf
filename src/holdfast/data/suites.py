"""Published safety data by name: where each file lies, at which revision, under which licence, and what its rows are.

A file is read from below HOLDFAST_DATA where it is there, else fetched once from its address; either must be the very
file that is named here. Of a suite only prompts are read, and refusals of one that has them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.errors import DataError
from holdfast.record import files, paths, userfiles

Row = dict[str, Any]
_XSTEST = "https://raw.githubusercontent.com/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d"
_TUNED = "https://raw.githubusercontent.com/vinid/safety-tuned-llamas/36a4b8d5c2177ed165bf61f59b590161394f7f12/data"


@dataclass(frozen=True)
class File:
    """One published file: its place below HOLDFAST_DATA, address and digest, and its rows as ours."""

    place: str
    address: str
    sha256: str
    rows: Callable[[bytes, str], list[Row]]


@dataclass(frozen=True)
class Suite:
    """A suite: its files and its licence."""

    files: tuple[File, ...]
    licence: str


def _xstest(raw: bytes, name: str) -> list[Row]:
    kinds = {"unsafe": names.HAZARD, "safe": names.LOOKALIKE}
    return [
        {"id": f"xstest/{r['id']}", "set": kinds[r["label"]], "category": f"xstest: {r['type']}", "prompt": r["prompt"]}
        for r in userfiles.parsed(raw, name)
    ]


def _listed(suite: str, kind: str) -> Callable[[bytes, str], list[Row]]:
    """Rows of a file that is an object with a list `instructions`; the first `tag` of each, where it has some."""

    def rows(raw: bytes, name: str) -> list[Row]:
        import json

        held = json.loads(raw)
        tags = held.get("tags") or [""] * len(held["instructions"])
        return [
            {"id": f"{suite}/{kind}/{i:03d}", "set": kind, "prompt": prompt,
             "category": f"{suite}: {tag if isinstance(tag, str) else (tag or [''])[0]}".removesuffix(": ")}
            for i, (prompt, tag) in enumerate(zip(held["instructions"], tags, strict=True))
        ]  # fmt: skip

    return rows


def _refusals(raw: bytes, name: str) -> list[Row]:
    return [
        {"id": f"safe-instr/{i:05d}", "kind": names.HAZARD, "category": "safe-instr", "prompt": r["instruction"],
         "response": r["output"]}
        for i, r in enumerate(userfiles.parsed(raw, name)) if not r.get("input")
    ]  # fmt: skip


def _tuned(kind: str, name: str, sha256: str, rows: Callable[[bytes, str], list[Row]]) -> File:
    return File(f"safety-tuned-llamas/{name}", f"{_TUNED}/{kind}/{name}", sha256, rows)


_NC = "CC-BY-NC-4.0 (Bianchi et al. 2023, vinid/safety-tuned-llamas)"
PROMPTS: dict[str, Suite] = {
    "xstest": Suite((
        File("xstest/xstest_prompts.csv", f"{_XSTEST}/xstest_prompts.csv",
             "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a", _xstest),
    ), "CC-BY-4.0 (Röttger et al. 2024)"),
    "malicious-instructions": Suite((
        _tuned("evaluation", "I-MaliciousInstructions.json",
               "7a2bc751d49983800848050282aa2a84b3faa7044c3178228c49dd68df7d679f",
               _listed("malicious-instructions", names.HAZARD)),
    ), _NC),
    "physical-safety": Suite((
        _tuned("evaluation", "I-PhysicalSafetyUnsafe.json",
               "16324a2f1ded933e8c7a9f6c7d3924130f76260d03f9df2205e0a25c02de8aae",
               _listed("physical-safety", names.HAZARD)),
        _tuned("evaluation", "I-PhysicalSafetySafe.json",
               "34c874532623e405fb574f0fa8d6b86cbecce0e3340f67b146a6a6bc2453bed6",
               _listed("physical-safety", names.LOOKALIKE)),
    ), _NC),
}  # fmt: skip
REFUSALS: dict[str, Suite] = {
    "safe-instr": Suite((
        _tuned("training", "safety_only_data_Instructions.json",
               "7dde08acf87f10cf74fd1b76f56538eae8e413ae8e6b09e3f7bcd97769058dbe", _refusals),
    ), _NC),
}  # fmt: skip


def _suite(name: str) -> Suite:
    return (PROMPTS | REFUSALS)[name]


def _places(file: File) -> list[Path]:
    """Where a file may lie on this machine: the user's copy, and the one fetched before."""
    own = os.environ.get("HOLDFAST_DATA")
    return [*([Path(own) / file.place] if own else []), paths.cache() / "suites" / file.sha256 / Path(file.place).name]


def here(suites: Sequence[str]) -> bool:
    """Whether all files of these suites are on this machine."""
    return all(any(map(paths.there, _places(f))) for name in suites for f in _suite(name).files)


def local_files(suites: Sequence[str]) -> list[Path]:
    """The files of these suites that are on this machine."""
    found = [next(filter(paths.there, _places(f)), None) for name in suites for f in _suite(name).files]
    return [p for p in found if p is not None]


def rows(name: str, fetched: Callable[[str], bytes]) -> list[Row]:
    """All rows of a suite.

    Args:
        fetched: what lies at an address.

    Raises:
        DataError: a file cannot be fetched, or is another one.
    """
    return [
        row for file in _suite(name).files for row in file.rows(_content(name, file, fetched), Path(file.place).name)
    ]


def _content(name: str, file: File, fetched: Callable[[str], bytes]) -> bytes:
    place = next(filter(paths.there, _places(file)), None)
    if place is None:
        raw, where = fetched(file.address), file.address
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
    return raw
