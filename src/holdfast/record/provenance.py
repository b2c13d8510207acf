"""Digests: of settings, of files and of the code an artifact was made with."""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.record import paths

PACKAGE = Path(__file__).parents[1]


def digest(value: Any) -> str:
    """16 hex characters of the sha256 of a JSON-able value, independent of key order.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path | str) -> str:
    """sha256 of a file's bytes, 64 hex characters."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_card(node: ast.AST) -> bool:
    """Whether a statement is a method's CARD: facts for docs/methods.md, not code."""
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets)


def _strip_docstrings(tree: ast.Module) -> ast.Module:
    tree.body = [node for node in tree.body if not _is_card(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            first = body[0].value if body and isinstance(body[0], ast.Expr) else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                node.body = body[1:] or [ast.Pass()]
    return tree


@functools.cache
def _module_path(name: str) -> Path | None:
    relative = Path(*name.split(".")[1:])
    if not relative.parts:
        return None
    for candidate in (PACKAGE / relative.with_suffix(".py"), PACKAGE / relative / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


@functools.cache
def _parsed(path: Path) -> tuple[str, frozenset[Path]]:
    """(digest of the parsed code, the files of holdfast modules that it imports at any level of nesting)."""
    text = path.read_bytes()
    known, key = _known(), hashlib.sha256(text).hexdigest()
    if key not in known:
        known[key] = _parse(text)
    code, imports = known[key]
    return code, frozenset(p for p in map(_module_path, imports) if p)


@functools.cache
def _known() -> dict[str, tuple[str, list[str]]]:
    """What was found of code before, by its bytes: to parse all of it takes longer than all else of planning a small
    study. Kept in the user's cache, for one version of Python and of this file."""
    this = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:16]
    place = paths.cache() / "code" / f"{this}.json"
    try:
        found: dict[str, tuple[str, list[str]]] = dict(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        found = {}
    before = len(found)

    @atexit.register
    def keep() -> None:
        if len(found) > before:
            own = place.with_name(f"{place.name}.{os.getpid()}")
            with contextlib.suppress(OSError):  # a home that cannot be written to costs time only
                place.parent.mkdir(parents=True, exist_ok=True)
                own.write_text(json.dumps(found), encoding="utf-8")
                own.replace(place)

    return found


def _parse(text: bytes) -> tuple[str, list[str]]:
    """(digest of code without docstrings, the holdfast modules that it may import)."""
    tree = ast.parse(text)
    imports: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {a.name for a in node.names if a.name.startswith("holdfast.")}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "holdfast":
            imports |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    code = ast.dump(_strip_docstrings(tree), include_attributes=False)
    return hashlib.sha256(code.encode()).hexdigest(), sorted(imports)


# Errors and vocabulary shape messages, the study and the registry shape what a rule is asked to do;
# all of that reaches a job through `cfg`, so editing them must not rerun every job.
# Tracking only copies what a job wrote, and a record of the machine says only what that is.
_NOT_CODE = {
    PACKAGE / name
    for name in (
        "errors.py", "study/keys.py", "study/asked.py", "study/tasks.py", "study/training.py", "study/checked.py",
        "study/arms.py", "study/reading.py", "study/resolve.py", "study/registry.py",
        "record/provenance.py", "stage/job.py", "stage/devices.py", "stage/several.py", "model/machine.py",
        "track/store.py", "track/importing.py", "track/live.py",
    )
}  # fmt: skip


def code_files(*roots: Path | str) -> list[Path]:
    """The files and every holdfast module they import, transitively, sorted."""
    seen: set[Path] = set()
    todo = [Path(r) for r in roots]
    while todo:
        path = todo.pop()
        if path in seen or path in _NOT_CODE:
            continue
        seen.add(path)
        todo += _parsed(path)[1]
    return sorted(seen, key=_place)


@functools.cache
def _place(path: Path) -> tuple[bool, tuple[str, ...]]:
    """An order that does not know where the project or the package lies: scripts, then modules."""
    inside = path.is_relative_to(PACKAGE)
    return inside, path.relative_to(PACKAGE).parts if inside else (path.name,)


def code_digest(*roots: Path | str) -> str:
    """Digest of what the code does: comments, docstrings and layout do not count.

    Snakemake sees neither edits in an imported module nor the difference between a comment and a
    change; a rule passes this as a parameter instead.
    """
    return digest([_parsed(p)[0] for p in code_files(*roots)])


@functools.cache
def software() -> dict[str, str]:
    """Versions of what computes here; of holdfast its own word, for it may run from a folder that is not installed."""
    import platform
    from importlib.metadata import version

    others = {name: version(name) for name in ("torch", "transformers")}
    return {"python": platform.python_version(), "holdfast": __version__} | others


def peak_resident() -> int:
    """Bytes this process had in memory at most. getrusage would also know its parent's, from before it began."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """Digest of a sequence of rows, order included."""
    return digest(list(rows))
