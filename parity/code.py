"""Code of other people at one commit of their repository: read with git, run in part, never copied.

A definition or a run of statements is taken out of the authors' file by its name and executed as it stands there, with
the modules that it uses; the rest of the file, and what that imports, is never run.
"""

from __future__ import annotations
import __future__

import argparse
import ast
import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from holdfast.errors import HoldfastError, UsageError

ANNOTATIONS = __future__.annotations.compiler_flag  # annotations name what a part does not need


@dataclass(frozen=True)
class Row:
    """One comparison: how far ours and theirs are apart at most, and what explains that.

    `within` is the largest difference that this explains: what lies beyond it is not explained.
    """

    what: str
    difference: float
    within: float
    because: str

    @property
    def explained(self) -> bool:
        return self.difference <= self.within  # nan is not


@dataclass(frozen=True)
class Code:
    """A git repository of the user's that has the commit."""

    repository: str  # owner/name on GitHub
    commit: str  # 40 hex digits
    path: Path

    def text(self, file: str) -> str:
        """A file as it is at the commit, whatever the work tree has."""
        return _git(self.path, "show", f"{self.commit}:{file}")

    def _run(self, nodes: Sequence[ast.stmt], file: str, names: dict[str, Any]) -> None:
        body = ast.Module(body=list(nodes), type_ignores=[])
        exec(compile(body, f"{self.repository}:{file}", "exec", flags=ANNOTATIONS, dont_inherit=True), names)

    def part(self, file: str, name: str, given: dict[str, Any], *, instead: dict[str, str] | None = None) -> Any:
        """A function or a class of a file; `Class.method` gives the method as a function.

        Args:
            given: the modules and names that it uses, or what stands in for them.
            instead: names that are read as others.
        """
        found: Any = ast.parse(self.text(file))
        for step in name.split("."):
            found = next(n for n in ast.walk(found) if getattr(n, "name", None) == step)
        if instead:
            found = _Renamed(instead).visit(found)
        names = dict(given)
        self._run([found], file, names)
        return names[found.name]

    def module(self, file: str, given: dict[str, Any] | None = None) -> SimpleNamespace:
        """Everything in a file that imports nothing which is not at hand."""
        names = {"__name__": "theirs"} | (given or {})
        self._run(ast.parse(self.text(file)).body, file, names)
        return SimpleNamespace(**names)

    def statements(self, file: str, first: str, last: str, names: dict[str, Any], *, occurrence: int = 0) -> None:
        """Run the statements from one that begins with `first` to the next that begins with `last`, in the block where
        they stand, with `names` as their variables.

        Args:
            first, last: as `ast.unparse` writes them.
            occurrence: which of several such places, from 0.
        """
        places = [
            block[i : j + 1]
            for block in _blocks(ast.parse(self.text(file)))
            for i, start in enumerate(block)
            if ast.unparse(start).startswith(first)
            for j in [next((j for j in range(i, len(block)) if ast.unparse(block[j]).startswith(last)), -1)]
            if j >= 0
        ]
        self._run(sorted(places, key=lambda p: p[0].lineno)[occurrence], file, names)


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block:
                yield block


def _git(path: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(path), *arguments], capture_output=True)
    if done.returncode:
        raise FileNotFoundError(done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


def how(repository: str, commit: str) -> str:
    """The command that fetches the code."""
    name = repository.split("/")[1]
    return f"git clone https://github.com/{repository} && git -C {name} checkout {commit}"


def opened(repository: str, commit: str, path: Path | None, script: str) -> Code:
    """The user's copy of the code.

    Raises:
        UsageError: there is none, or it is not the one of this commit.
    """
    fetch = f"{how(repository, commit)}, then: python -m parity.{script} --code {repository.split('/')[1]}"
    expected = f"a git repository of {repository} with the commit {commit}"
    if path is None:
        raise UsageError("Nothing to compare with.", found="no --code", expected=expected, do=fetch)
    try:
        kind = _git(path, "cat-file", "-t", commit).strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"{path} is not the code at that commit.",
            found=first[:160] or "no such commit",
            expected=expected,
            do=fetch,
        ) from None
    if kind != "commit":
        raise UsageError(f"{path} is not the code at that commit.", found=kind, expected=expected, do=fetch)
    return Code(repository, commit, path)


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of text."""
    wide = max(len(r.what) for r in rows)
    return "\n".join(
        f"{r.what:<{wide}}  {r.difference:8.1e}  {'' if r.explained else 'NOT EXPLAINED by: '}{r.because}" for r in rows
    )


def compared(compare: Callable[[Code], list[Row]], code: Code) -> list[Row]:
    """The rows of a script; what the authors' code prints is dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return compare(code)


def main(script: Any) -> int:
    """The command of one script, a module with REPOSITORY, COMMIT and `compare`: 0 everything is explained, 1 something
    is not, 2 there is nothing to compare with."""
    name = Path(script.__file__).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m parity.{name}",
        description=script.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        epilog=f"Fetch the code first:\n  {how(script.REPOSITORY, script.COMMIT)}",
    )
    parser.add_argument("--code", type=Path, metavar="PATH", help="your copy of the authors' repository")
    given = parser.parse_args()
    try:
        code = opened(script.REPOSITORY, script.COMMIT, given.code, name)
        rows = compared(script.compare, code)
    except HoldfastError as error:
        print(error.block(), file=sys.stderr)
        return error.exit_code
    print(f"ours against {code.repository} at {code.commit[:7]}: the largest difference, and what explains it")
    print(table(rows))
    return int(not all(r.explained for r in rows))
