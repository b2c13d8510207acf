"""Errors a user can act on: one block that says what was found, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

INTERRUPTED = 130  # exit code where Ctrl-C was pressed


def said(error: BaseException) -> str:
    """What an error of somebody else says, in one line, or its kind where it says nothing; short enough for a block."""
    text = " ".join(word for word in str(error).split() if word.strip("^~"))  # those point at something above them
    return (text if len(text) <= 240 else f"{text[:236]} ...") or type(error).__name__


def meant(name: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about a name that is not known: take the nearest that is, if one is near.

    >>> meant("sede", ["seeds", "tasks"], "remove it"), meant("quantise", ["base", "bits"], "remove it")
    ("did you mean 'seeds'?", 'remove it')
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise


class HoldfastError(Exception):
    """Base of every error that is the input's fault, not the program's.

    Printed as one block without a traceback; the process ends with exit code 2.
    """

    exit_code = 2

    def __init__(self, what: str, *, found: str = "", expected: str = "", do: str = "") -> None:
        self.what, self.found, self.expected, self.do = what, found, expected, do
        super().__init__(self.block())

    def block(self) -> str:
        """The whole message, as it is printed."""
        lines = [f"{type(self).__name__}: {self.what}"]
        for label, text in (("found", self.found), ("expected", self.expected), ("do", self.do)):
            if text:
                lines.append(f"  {label + ':':<10}{' '.join(text.split())}")
        return "\n".join(lines)


class StudyError(HoldfastError):
    """A study file says something that cannot be run."""


class DataError(HoldfastError):
    """A row or a file of data breaks its contract."""


class ArtifactError(HoldfastError):
    """A tensor file is missing, damaged or made for something else."""


class DiskError(HoldfastError):
    """A disk is full, or may not be written."""


class EngineError(HoldfastError):
    """Snakemake, DVC or MLflow keep their files in another way than holdfast was tested with."""


class LayerMismatch(ArtifactError):
    """A tensor file was made for other layers than the study asks for."""


class ChatTemplateError(HoldfastError):
    """A tokenizer cannot render the conversation the way training needs it."""


class DocumentError(HoldfastError):
    """A text that a generated document is made of is not as it must be."""


class UsageError(HoldfastError):
    """A command was called in a way it does not understand."""


class TrainingError(HoldfastError):
    """A training run, or a merge, went where no result can come from."""


class MethodError(HoldfastError):
    """A method file breaks the contract of its kind."""
