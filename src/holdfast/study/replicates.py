"""Replicates: the same study from another base, aligned model, draw and order. A number from one base is one draw.

Replicate 0 has the seeds of the study and its paths; every other one lies in a folder of its own below
work/<study> and results/<study>, so that raising `replicates` keeps what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from holdfast.record import provenance
from holdfast.study.checked import Strict

FOLDER = "replicate"
MOST = 1000
DRAWN = ("base", "safety", "draw", "order")  # what a replicate draws, from the first on


class Replicate(Strict):
    """What of a replicate is another draw than that of the study: 0 is the study's own, 1 the next one."""

    base: int = Field(0, ge=0, le=MOST, description="Initial weights and order of pretraining of the tiny base.")
    safety: int = Field(0, ge=0, le=MOST, description="Rows and order of the safety training.")
    draw: int = Field(0, ge=0, le=MOST, description="Rows that fine-tuning draws.")
    order: int = Field(0, ge=0, le=MOST, description="Order of these rows, and whatever else training draws.")
    instructions: Literal["native", "common"] = Field(
        "native",
        description="Of its fine-tuning on a CPU: `common` keeps torch's element-wise kernels, softmax and attention "
        "from this machine's vector instructions, so that they round otherwise; products of matrices stay.",
    )


def _listed(value: Any) -> Any:
    """A number of replicates as a list of them, each other in everything."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise ValueError(f"replicates are a number from 1 to {MOST}, or a list of what differs")
    return [dict.fromkeys(DRAWN, r) for r in range(value)]


Replicates = Annotated[
    tuple[Replicate, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=int | tuple[Replicate, ...]),
]


def seed(own: int, offset: int) -> int:
    """The seed of a replicate: the study's own for 0, else one that has nothing to do with its neighbours.

    >>> seed(3, 0), seed(3, 2)
    (3, 2213658841)
    """
    return int(provenance.digest(["replicate", own, offset])[:8], 16) if offset else own


def folder(number: int) -> str:
    """What the paths of a replicate have after the study's folder.

    >>> folder(0), folder(2)
    ('', 'replicate2/')
    """
    return f"{FOLDER}{number}/" if number else ""


def number(of: str) -> int:
    """The replicate whose `folder` this is."""
    return int(of.removeprefix(FOLDER).removesuffix("/") or 0)


def first_with(same: Sequence[object]) -> list[int]:
    """Of every replicate the first one that has the same: whose model it shares.

    >>> first_with(["a", "b", "a"])
    [0, 1, 0]
    """
    return [same.index(one) for one in same]


def units(replicates: Sequence[Replicate]) -> list[int]:
    """What counts as one independent draw: replicates that share a base (else an aligned model, else rows, else an
    order) are one unit, because what they share they have not drawn twice. Rounding is no draw."""
    for name in DRAWN:
        found = [getattr(r, name) for r in replicates]
        if len(set(found)) > 1:
            return first_with(found)
    return [0] * len(replicates)
