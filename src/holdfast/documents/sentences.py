"""Descriptions are whole sentences: what a docstring says first, and a refusal of half of it."""

from __future__ import annotations

import inspect

from holdfast.errors import DocumentError


def sentence(text: str | None, where: str) -> str:
    """A description in one line.

    >>> sentence("Tokens; longer documents   are cut.", "Pretraining.max_length")
    'Tokens; longer documents are cut.'

    Raises:
        DocumentError: there is none, or it does not end a sentence.
    """
    line = " ".join((text or "").split())
    if not line.endswith((".", "?", ".)")):
        raise DocumentError(
            f"The description of {where} is not a whole sentence.", found=line or "nothing",
            expected="text that ends with a full stop", do=f"finish the description of {where}",
        )  # fmt: skip
    return line


def paragraph(doc: str | None, where: str) -> str:
    """The first paragraph of a docstring in one line.

    Raises:
        DocumentError: there is none, or it does not end a sentence.
    """
    return sentence(inspect.cleandoc(doc or "").split("\n\n")[0], where)
