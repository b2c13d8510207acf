"""The table of wings in CONTRIBUTING.md: floors from pyproject.toml, questions from the wings' docstrings."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from holdfast.documents.sentences import paragraph


def floors(root: Path) -> list[str]:
    """Wings and modules of the ground floor, from the lowest up: what import-linter holds every import to."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [str(name) for name in reversed(layers)]


def question(root: Path, name: str) -> str:
    """What a wing, or a module of the ground floor, is there to answer: its docstring's first paragraph.

    Raises:
        DocumentError: it has none, or it is not a whole sentence.
    """
    place = root / "src/holdfast" / name
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return paragraph(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), str(file.relative_to(root)))


def table(root: Path) -> str:
    """The wings as a Markdown table, the highest floor first."""
    lines = ["| wing | question |", "|---|---|"]
    for name in reversed(floors(root)):
        wing = (root / "src/holdfast" / name).is_dir()
        lines.append(f"| `{name}{'/' if wing else '.py'}` | {question(root, name)} |")
    return "\n".join(lines) + "\n"
