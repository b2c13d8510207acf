"""Methods and judges are found by file name: `src/holdfast/methods/<name>.py` is the method `<name>`, and
`src/holdfast/judges/<name>.py` with a KIND is the judge `<name>`.

The header of such a file (methods: KIND, NEEDS, LEARNING_RATE, and CARD for docs/methods.md; judges: KIND,
OUTCOMES, SOURCE, VERSION) is read with `ast`, so that planning a DAG never runs its code; the settings model is
imported only for what a study names, and such a file imports torch inside its hooks only.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from holdfast import names
from holdfast.errors import MethodError, meant, said
from holdfast.study import hooks
from holdfast.study.checked import Strict

METHODS_FOLDER = Path(__file__).parents[1] / "methods"
JUDGES_FOLDER = Path(__file__).parents[1] / "judges"
KINDS = ("train", "merge")
NEEDS = (*names.ROLES, "safety", "basis", "mask", "gram", "preferences")
# Other names papers use for a method here.
ALIASES = {"safe-instr": "safety-mix"}


class MethodSettings(Strict):
    """Base of every method's `Settings`: strict, frozen, unknown keys refused."""

    def artifacts(self) -> dict[str, Any]:
        """What these settings need beside the models: {"basis": name}, {"mask": MaskSpec-like dict},
        {"directions": Directions-like dict} in place of a basis, {"neurons": NeuronSpec-like dict} for a mask over rows
        and columns of safety neurons; {"preferences": True}; {"roles": [...]} for models beside aligned and finetuned,
        {"gram": kind} for Gram matrices of all linear modules (kinds: names.GRAMS); and for merges
        {"across_tasks": True}. {"imports": [...]} names optional packages."""
        return {}

    def unread(self) -> set[str]:
        """Settings that mean nothing beside the others; whoever wrote one down is told."""
        return set()

    def cost(self) -> tuple[float, float]:
        """What a plan counts beside plain training: copies of the weights that are held at once, and rows that go
        forward and backward in every optimizer step."""
        return 0.0, 0.0

    def fewest_steps(self) -> int:
        """Optimizer steps that a training must have, for this to be what it says."""
        return 1

    def alone(self) -> str:
        """Of a trained method, why one process has to train it; nothing where several can, each with its rows of every
        weight matrix and its rows of a step. Whoever writes a method says so, after trying."""
        return "its file does not say that it can (`Settings.alone`)"


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
    """Where the file of a method is, or would be."""
    return METHODS_FOLDER / f"{ALIASES.get(name, name).replace('-', '_')}.py"


def header(name: str) -> Header:
    """Read the literal header of a method without running it.

    Raises:
        MethodError: no such file, one that is no Python, or KIND / NEEDS are missing, not literals or not known; no
            Settings, no merge; a hook with a typo, which nothing would call.
    """
    path = method_file(name)
    if "_" in name or not path.exists():  # a method has one name, which tables and claims know it by
        known = sorted([*method_names(), *ALIASES])
        raise MethodError(
            f"There is no method '{name}'.",
            found=name,
            expected=" | ".join(known),
            do=meant(name, known, f"name one of these, or add src/holdfast/methods/{path.name}"),
        )
    doc, literals = _literals(path, ("KIND", "NEEDS", "LEARNING_RATE", "CARD"), f"method '{name}'")
    missing = {"KIND", "NEEDS"} - literals.keys()
    if missing or literals["KIND"] not in KINDS or not isinstance(literals["NEEDS"], tuple | list):
        raise MethodError(
            f"The header of method '{name}' is incomplete.",
            found=", ".join(f"{k} = {literals[k]!r}" for k in ("KIND", "NEEDS") if k in literals) or "nothing",
            expected='KIND = "train" | "merge" and NEEDS = ("aligned", ...)',
            do=f"add it at the top of {path.name}",
        )
    _refuse_misspelt(name, path, literals["KIND"], literals["NEEDS"])
    return Header(
        name, literals["KIND"], tuple(literals["NEEDS"]), float(literals.get("LEARNING_RATE", 1e-4)),
        doc, literals.get("CARD", {}),
    )  # fmt: skip


def _literals(path: Path, keys: tuple[str, ...], what: str) -> tuple[str, dict[str, Any]]:
    """The docstring of a file and its assignments to these names, without running it."""
    try:
        doc, assigned, _ = _head(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        found_there = f"{error.msg}, line {error.lineno}" if isinstance(error, SyntaxError) else said(error)
        raise MethodError(
            f"The file of {what} is no Python.", found=found_there, expected="a file that Python reads",
            do=f"correct {path.name}",
        ) from None  # fmt: skip
    found: dict[str, Any] = {}
    for key, node in assigned:
        if key in keys:
            try:
                found[key] = ast.literal_eval(node)
            except ValueError:
                raise MethodError(
                    f"{key} of {what} is computed; it must be a literal.",
                    found=ast.unparse(node), expected="a plain string, number, tuple or dict of these",
                    do=f"write it out in {path.name}",
                ) from None  # fmt: skip
    return doc, found


@functools.cache
def _head(text: str) -> tuple[str, list[tuple[str, ast.expr]], list[str]]:
    """Docstring, assignments, and names of functions and classes of a file. Read once: every point of a sweep asks for
    its method, every study for all judges."""
    tree = ast.parse(text)
    assigned = [n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return ast.get_docstring(tree) or "", [(n.targets[0].id, n.value) for n in assigned], defined  # type: ignore[attr-defined]


def _refuse_misspelt(name: str, path: Path, kind: str, needs: Any) -> None:
    """Refuse what nobody would bring or call: without it a method is another one, or none."""
    *_, defined = _head(path.read_text(encoding="utf-8"))
    for each in map(str, needs):
        if each not in NEEDS:
            raise MethodError(
                f"Nothing brings what method '{name}' needs.", found=each, expected=", ".join(NEEDS),
                do=meant(each, NEEDS, f"correct NEEDS in {path.name}"),
            )  # fmt: skip
    if "Settings" not in defined:
        raise MethodError(
            f"Method '{name}' has no Settings.", found=", ".join(defined) or "no class",
            expected="class Settings(MethodSettings), empty where nothing can be set", do=f"add it to {path.name}",
        )  # fmt: skip
    if kind == "merge" and "merge" not in defined:
        raise MethodError(
            f"Method '{name}' merges nothing.", found=f"KIND = {kind!r} and no function merge",
            expected=f"merge({hooks.HOOKS['merge']}): one tensor of the result", do=f"add it to {path.name}",
        )  # fmt: skip
    hooks.refuse_misspelt(name, path.name, defined)


def load(name: str) -> ModuleType:
    """The module of a method (checked by `header` first).

    Raises:
        MethodError: as `header`; or Python cannot import it, its Settings are of another kind, or a hook cannot be
            called as hooks are.
    """
    header(name)
    path = method_file(name)
    try:
        module = importlib.import_module(f"holdfast.methods.{path.stem}")
    except Exception as error:
        raise MethodError(
            f"The file of method '{name}' cannot be imported.", found=f"{type(error).__name__}: {said(error)}",
            expected="imports of what is installed, and of torch inside its hooks only", do=f"correct {path.name}",
        ) from error  # fmt: skip
    if not (isinstance(module.Settings, type) and issubclass(module.Settings, MethodSettings)):
        raise MethodError(
            f"The Settings of method '{name}' are not those of a method.", found=f"{module.Settings!r}",
            expected="class Settings(MethodSettings), whose keys a study sets", do=f"correct {path.name}",
        )  # fmt: skip
    hooks.refuse_uncallable(name, module)
    return module


@functools.cache
def lengthy(name: str) -> bool:
    """Whether a cell of a method trains something before its task or takes preference pairs, and so takes longer than
    others, up to several times: begun last, it would leave all threads but one idle."""
    module = load(name)
    return hasattr(module, "prelude") or "preferences" in module.NEEDS


# ---- judges ---------------------------------------------------------------------------------------

JUDGE_KINDS = ("text", "model", "server")


class JudgeSettings(Strict):
    """Base of a judge's `Settings`: strict, frozen, unknown keys refused. Judges of kind `text` have none."""

    tasks: tuple[str, ...] = Field((), description="Tasks whose cells it is asked about, beside the roles; none: all.")
    batch_size: int = Field(16, ge=1, description="Replies judged together.")


class ModelJudgeSettings(JudgeSettings):
    """Settings of a judge that is loaded and asked."""

    source: str = Field(min_length=1, description="Hub id or folder in Hugging Face layout.")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Of its weights while it judges.")
    max_new_tokens: int = Field(32, ge=1, description="Longest answer.")


class PromptedJudgeSettings(ModelJudgeSettings):
    """Settings of a model that was trained on one published instruction, which the user brings."""

    prompt_file: str = Field(min_length=1, description="Text file with {prompt} and {response} where they go.")


def fill(template: str, request: str, reply: str) -> str:
    """A template with {prompt} and {response} in their places; braces of the texts themselves stay as they are.

    >>> fill("Request: {prompt} Reply: {response}", "Say {response}.", "No.")
    'Request: Say {response}. Reply: No.'
    """
    pieces = re.split(r"(\{prompt\}|\{response\})", template)
    return "".join({"{prompt}": request, "{response}": reply}.get(p, p) for p in pieces)


@dataclass(frozen=True)
class Judge:
    """The literal head of a judge file: `text` judges read the words; `model` judges are loaded from a folder or
    the hub, `server` judges asked over the network. `outcomes` says what each of its labels means,
    `version` which edition of it speaks."""

    name: str
    kind: str
    outcomes: dict[str, str]
    source: str | None
    doc: str
    version: str = "1"

    @property
    def tells_refusals(self) -> bool:
        """Whether it says what a reply is; others say only whether it does harm."""
        return names.REFUSAL in self.outcomes.values()


def judge_file(name: str) -> Path:
    """Where the file of a judge is, or would be."""
    return JUDGES_FOLDER / f"{name.replace('-', '_')}.py"


@functools.cache
def judge_names() -> tuple[str, ...]:
    """Every judge there is, sorted: the files of the folder with a KIND."""
    files = (p for p in JUDGES_FOLDER.glob("*.py") if not p.stem.startswith("_") and "KIND" in p.read_text("utf-8"))
    return tuple(sorted(p.stem.replace("_", "-") for p in files if _literals(p, ("KIND",), p.name)[1]))


@functools.cache
def judge(name: str) -> Judge:
    """Read the literal header of a judge without running it.

    Raises:
        MethodError: no such judge, or its header is not complete.
    """
    if name not in judge_names():
        raise MethodError(
            f"There is no judge '{name}'.", found=name, expected=" | ".join(judge_names()),
            do=f"name one of these, or add src/holdfast/judges/{judge_file(name).name}",
        )  # fmt: skip
    doc, found = _literals(judge_file(name), ("KIND", "OUTCOMES", "SOURCE", "VERSION"), f"judge '{name}'")
    outcomes = found.get("OUTCOMES", {})
    if found["KIND"] not in JUDGE_KINDS or not outcomes or set(outcomes.values()) - set(names.OPINIONS):
        raise MethodError(
            f"The header of judge '{name}' is incomplete.", found=str(found),
            expected=f"KIND = {' | '.join(JUDGE_KINDS)} and OUTCOMES = {{label: {' | '.join(names.OPINIONS)}}}",
            do=f"correct the top of {judge_file(name).name}",
        )  # fmt: skip
    return Judge(name, found["KIND"], outcomes, found.get("SOURCE"), doc, found.get("VERSION", "1"))


def load_judge(name: str) -> ModuleType:
    """The module of a judge (checked by `judge` first)."""
    judge(name)
    return importlib.import_module(f"holdfast.judges.{judge_file(name).stem}")
