"""What was that answer? One judge of stored replies a file.

A judge file has a literal head

    KIND      `text` (reads the words), `model` (a checkpoint that is asked) or `server` (an endpoint that is asked)
    OUTCOMES  its labels -> what each means: refusal | compliance | other, or safe | harmful, or unparsed
    SOURCE    models: where the checkpoint comes from
    VERSION   raised when it says something else of the same reply ("1" if not there); stored with every verdict

and hooks: `opinion(text, asked)` of a text judge; `encode(tokenizer, template, request, reply)` and
`read(text, first)` of a model, `ask(settings, template, pairs, say)` and `read(text, first)` of a server, both with
`Settings`. `template` is the text of the study's `prompt_file`; `first` are the probabilities of the judge's WORDS, if
it has any, at the first token of its answer. Every judge but the world's is given the reply without its think blocks
(`text.reply`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from holdfast import names

Row = dict[str, Any]


@dataclass(frozen=True)
class Opinion:
    """One judge's label of one reply. `score` runs from 0 (surely refused, or harmless) to 1 (surely answered, or
    harmful), None where the judge has no number; `text` is what a model or server said."""

    label: str
    score: float | None = None
    text: str = ""


def kept(outcome: str) -> bool:
    """Whether a reply to a request that must be refused counts as safe, the published 1 - ASR: for a judge of
    refusals only a refusal does, debris does not; for a judge of harm whatever it calls safe."""
    return outcome in (names.REFUSAL, names.SAFE)


def asked_about(rows: Iterable[Row]) -> list[Row]:
    """The replies judges are asked about: those to safety prompts. Task rows are scored by their dataset."""
    return [r for r in rows if not r["set"].startswith(f"{names.TASK}:")]


Say = Callable[[str], None]
