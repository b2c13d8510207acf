"""Methods are found by file name: `src/holdfast/methods/<name>.py` is the method `<name>`.

The header of a method file (KIND, NEEDS, LEARNING_RATE, and CARD for docs/methods.md) is read with
`ast`, so that planning a DAG never runs a method's code; the settings model is imported only for the
methods a study names, and a method file imports torch inside its hooks only.
"""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from holdfast.errors import MethodError

METHODS_FOLDER = Path(__file__).parent / "methods"
KINDS = ("train", "merge")
# Other names papers use for a method here.
ALIASES = {"safe-instr": "safety-mix"}


class MethodSettings(BaseModel):
    """Base of every method's `Settings`: strict, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def artifacts(self) -> dict[str, Any]:
        """What these settings need beside the models: {"basis": name}, {"mask": MaskSpec-like dict},
        {"neurons": NeuronSpec-like dict} for a mask over rows and columns of safety neurons; and for merges
        {"roles": [...]} beside aligned and finetuned, {"gram": True} for the Gram matrices of all linear
        modules, {"preferences": True}, {"across_tasks": True}. {"imports": [...]} names optional packages."""
        return {}


@dataclass(frozen=True)
class Header:
    """The literal head of a method file."""

    name: str
    kind: str
    needs: tuple[str, ...]
    learning_rate: float
    doc: str
    card: dict[str, Any]


def method_names(folder: Path = METHODS_FOLDER) -> list[str]:
    """Every method there is, sorted."""
    return sorted(p.stem.replace("_", "-") for p in folder.glob("*.py") if not p.stem.startswith("_"))


def method_file(name: str) -> Path:
    return METHODS_FOLDER / f"{ALIASES.get(name, name).replace('-', '_')}.py"


def header(name: str) -> Header:
    """Read the literal header of a method without running it.

    Raises:
        MethodError: no such file, or KIND / NEEDS are missing or not literals.
    """
    path = method_file(name)
    if not path.exists():
        raise MethodError(
            f"There is no method '{name}'.",
            found=name,
            expected=" | ".join(sorted([*method_names(), *ALIASES])),
            do=f"name one of these, or add src/holdfast/methods/{path.name}",
        )
    tree = ast.parse(path.read_text())
    literals: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            key = node.targets[0].id
            if key in ("KIND", "NEEDS", "LEARNING_RATE", "CARD"):
                try:
                    literals[key] = ast.literal_eval(node.value)
                except ValueError:
                    raise MethodError(
                        f"{key} of method '{name}' is computed; it must be a literal.",
                        found=ast.unparse(node.value),
                        expected="a plain string, number or tuple of strings",
                        do=f"write it out in {path.name}",
                    ) from None
    missing = {"KIND", "NEEDS"} - literals.keys()
    if missing or literals["KIND"] not in KINDS:
        raise MethodError(
            f"The header of method '{name}' is incomplete.",
            found=str(literals or "nothing"),
            expected='KIND = "train" | "merge" and NEEDS = ("aligned", ...)',
            do=f"add it at the top of {path.name}",
        )
    return Header(
        name, literals["KIND"], tuple(literals["NEEDS"]), float(literals.get("LEARNING_RATE", 1e-4)),
        ast.get_docstring(tree) or "", literals.get("CARD", {}),
    )  # fmt: skip


def load(name: str) -> ModuleType:
    """The module of a method (checked by `header` first)."""
    header(name)
    return importlib.import_module(f"holdfast.methods.{method_file(name).stem}")
