"""Which harmless requests does a base answer itself, for its own safety training?"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from holdfast import names
from holdfast.data import fetch, leaks, prepare, wording, written
from holdfast.data.sources import ANSWERED, WRITTEN
from holdfast.errors import DataError

Row = dict[str, Any]
SPARE = 1.2  # times as many requests a base is asked as answers are needed: some refuse


def prompts(cfg: dict[str, Any], complies: prepare.Reads | None = None) -> list[str]:
    """The prompts of `requests`."""
    return [r["prompt"] for r in requests(cfg, complies)]


def requests(cfg: dict[str, Any], complies: prepare.Reads | None = None) -> list[Row]:
    """What a base is asked for answers of its own: ours, or those of the user's file; in the order of the draw.

    `answered` takes what the safety source itself answers and nowhere refuses, every second one as long as there are
    some, and ours: people word requests in more ways than we do, and a model learns to refuse whatever is not worded as
    ours are.

    Args:
        complies: says of a request and its answer whether that helps; `answered` needs it.

    Returns:
        rows with `prompt`, and those of the safety source with `id`.
    """
    ours: list[Row] = [{"prompt": p} for p in written.harmless(cfg["draw"])]
    if cfg["source"] == WRITTEN:
        return ours
    if cfg["source"] == ANSWERED:
        asked = _answered(cfg["safety"], complies)
    else:
        asked = [{"prompt": _prompt(i, r, cfg["source"])} for i, r in enumerate(fetch.records(cfg["source"], {}))]
    once: dict[str, Row] = {}
    for r in asked:
        once.setdefault(r["prompt"], r)
    found = random.Random(f"holdfast-benign-{cfg['draw']}").sample([*once.values()], len(once))
    if cfg["source"] != ANSWERED:
        return found
    return [r for pair in itertools.zip_longest(found, ours) for r in pair if r]


def _answered(safety: dict[str, Any], complies: prepare.Reads | None) -> list[Row]:
    """Rows of the safety source whose answers help, but of requests that it also refuses, or that we do in our words:
    those would be learned as both."""
    raw, source = fetch.records(safety["source"], safety["columns"]), safety["source"]
    rows = prepare.without(fetch.checked(wording.worded(raw, source, prepare.unnamed), "safety", source), safety)
    helpful = [complies is not None and complies(r["prompt"], r["response"]) for r in rows]
    ours = safety.get("refusals") == "written"
    refused = {
        leaks.words(r["prompt"])
        for r, helps in zip(rows, helpful, strict=True)
        if r["kind"] == names.HAZARD and (ours or not helps)
    }
    return [r for r, helps in zip(rows, helpful, strict=True) if helps and leaks.words(r["prompt"]) not in refused]


def apart(answered: list[Row], rows: Sequence[Row], say: prepare.Say) -> list[Row]:
    """The answered requests without those that safety rows refuse, as they were given or as questions: wherever they
    come from, a model would learn both answers to one request."""
    refused = {leaks.words(r["prompt"]) for r in prepare.trained_on(rows) if r["kind"] == names.HAZARD}
    kept = [r for r in answered if leaks.words(r["prompt"]) not in refused]
    if len(kept) < len(answered):
        say(f"{len(answered) - len(kept)} requests that the base answers are refused too: left out of what is answered")
    return kept


def _prompt(i: int, row: Row, source: str) -> str:
    """What a row asks."""
    value = row.get("prompt")
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise DataError(
        f"{source}: row {i} has no prompt.", found=f"{value!r}" if "prompt" in row else ", ".join(map(str, row))[:160],
        expected="a column `prompt` with text", do="correct or remove the row",
    )  # fmt: skip
