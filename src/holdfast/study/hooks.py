"""How is each hook of a method called? A method that nobody would call, or that could not be, is refused before any
training (docs/add-a-method.md)."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

from holdfast.errors import MethodError

ALIKE = 0.8  # of two names, one of which is a misspelt hook
# What is given by name to the hooks that take it: the rows and artifacts of what a method needs.
ROWS, ARTIFACTS = ("safety", "harmful"), ("basis", "mask", "gram", "models")


@dataclass(frozen=True)
class Call:
    """What a hook is given: by place, by name in every study, and by name in those whose settings ask for it."""

    places: tuple[str, ...]
    always: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it would be written: what a hook takes by name follows a star."""
        return ", ".join(
            [*self.places, *(["*", *self.always] if self.always else []), *(["**needs"] if self.asked else [])]
        )


HOOKS = {
    "rows": Call(("task_rows", "settings"), ("seed",), ROWS),
    "prelude": Call(("model", "layers", "settings"), ("rows", "training", "train"), (*ROWS, *ARTIFACTS)),
    "attach": Call(("model", "layers", "settings"), ("encoded",), ARTIFACTS),
    "optimizer": Call(("model", "layers", "settings", "training"), (), ARTIFACTS),
    "extra_loss": Call(("model", "batch", "settings")),
    "after_step": Call(("model", "settings")),
    "beside": Call(("model", "settings", "training"), ("encoded", "stream"), (*ROWS, *ARTIFACTS)),
    "low_rank": Call(("model", "settings")),
    "fold": Call(("model", "settings")),
    "prepare": Call(("settings", "context")),
    "merge": Call(("name", "weights", "settings", "state")),
    "merge_factor": Call(("name", "b", "weights", "settings", "state")),
    "system_prompt": Call(("settings",)),
}


def refuse_misspelt(method: str, file: str, defined: Iterable[str]) -> None:
    """Refuse a function of a method whose name is nearly that of a hook: nothing would call it.

    Raises:
        MethodError: the name, and what it was meant to be.
    """
    for each in set(defined) - HOOKS.keys():
        if near := difflib.get_close_matches(each, HOOKS, n=1, cutoff=ALIKE):
            raise MethodError(
                f"Nothing calls {each} of method '{method}'.", found=f"{each} in {file}",
                expected=f"a hook ({', '.join(HOOKS)}), or a function whose name is not like one",
                do=f"did you mean '{near[0]}'?",
            )  # fmt: skip


def refuse_uncallable(method: str, module: ModuleType) -> None:
    """Refuse a hook that cannot be called as the training loop and the merges call it.

    Raises:
        MethodError: what it takes, and what it is given.
    """
    for name, call in HOOKS.items():
        hook = getattr(module, name, None)
        if hook is not None and (why := _uncallable(hook, call)):
            raise MethodError(
                f"{name} of method '{method}' cannot be called.", found=f"{name}{inspect.signature(hook)}: {why}",
                expected=f"{name}({call})", do="take what it is given; what it does not use may be called _",
            )  # fmt: skip


def _uncallable(hook: Callable[..., object], call: Call) -> str:
    """Why a function cannot be called so, or nothing."""
    signature = inspect.signature(hook)
    try:
        bound = signature.bind_partial(*call.places, **dict.fromkeys(call.always))
    except TypeError as error:
        return str(error)
    free = [p for p in signature.parameters.values() if p.name not in bound.arguments and p.default is p.empty]
    missing = [p.name for p in free if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in call.asked]
    return f"nothing gives it {missing[0]}" if missing else ""
