"""The answers of a study as the browser of the report has them: every prompt, what each model says, what each judge
makes of it. Texts that are not of the fictional world are left out unless they are asked for.

Prompts come one after another, each with the answers of all models: they are alike, and so a packed page is small.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare import agreement
from holdfast.data.sources import WORLD
from holdfast.record import tables

Row = dict[str, Any]
REDACTED = "[redacted]"
PACKED_BYTES = 2_500_000  # in a report that opens at once, which has as much of everything else
PAGE_BYTES = 20_000_000  # in a page of nothing else
KEYS = ("task", "arm", "seed", "replicate")  # of metrics.json: which model it was


@dataclass(frozen=True)
class Answer:
    """What a model said to a prompt, how the answer ended and after how many tokens, and what was made of it."""

    prompt: Row
    text: str
    tokens: int
    finish: str
    verdicts: tuple[Row, ...]

    @property
    def disputed(self) -> bool:
        """Whether two judges answer the same question about it differently."""
        for question in agreement.QUESTIONS:
            said = {agreement.answer(question, v) for v in self.verdicts if agreement.asked(question, v)}
            if len(said - {None}) > 1:
                return True
        return False


def are_open(resolved: Mapping[str, Any]) -> bool:
    """Whether all that a study asks and hears is of the fictional world, which harms nobody."""
    return bool(resolved["evaluation"]["source"] == WORLD)


def of_model(folder: Path, *, texts: bool) -> list[Answer]:
    """Every answer of the model whose responses.parquet and verdicts.parquet lie in `folder`, in the order they have;
    prompt and answer, and the words of judges that are models, only with `texts`."""
    judged: dict[tuple[str, str], list[Row]] = {}
    for v in tables.read(folder / "verdicts.parquet", "verdicts"):
        known = v if texts else v | dict.fromkeys(("text", "parsed", "gold"), "")
        judged.setdefault((v["set"], v["id"]), []).append(known)
    found = []
    for r in tables.read(folder / "responses.parquet", "responses"):
        prompt = {k: r[k] for k in ("id", "set", "category")} | {"prompt": r["prompt"] if texts else REDACTED}
        verdicts = tuple(judged.get((r["set"], r["id"]), ()))
        found.append(Answer(prompt, r["text"] if texts else REDACTED, int(r["tokens"]), r["finish"], verdicts))
    return found


def gathered(models: Iterable[tuple[Mapping[str, Any], Path]], *, texts: bool) -> Row:
    """The data of the browser.

    Args:
        models: metrics.json of every model, and the folder that it lies in.

    Returns:
        models; verdicts, the (judge, outcome, label) there are; prompts, each with `texts` (the different answers to
        it) and `said`: for every model that was asked its number, that of its text, tokens, how the answer ended (the
        place in `names.FINISHES`), whether judges disagree (0 or 1), and the numbers of its verdicts.
    """
    known: list[Row] = []
    verdicts: dict[tuple[str, str, str], int] = {}
    prompts: dict[tuple[str, str], Row] = {}
    numbers: dict[tuple[str, str], dict[str, int]] = {}
    for number, (cell, folder) in enumerate(models):
        known.append({key: cell.get(key) for key in KEYS})
        for a in of_model(folder, texts=texts):
            key = a.prompt["set"], a.prompt["id"]
            of = prompts.setdefault(key, a.prompt | {"texts": [], "said": []})
            place = numbers.setdefault(key, {})
            if a.text not in place:
                place[a.text] = len(of["texts"])
                of["texts"].append(a.text)
            made = [verdicts.setdefault((v["judge"], v["outcome"], v["label"]), len(verdicts)) for v in a.verdicts]
            end = names.FINISHES.index(a.finish)
            of["said"].append([number, place[a.text], a.tokens, end, int(a.disputed), *made])
    order = {name: i for i, name in enumerate((names.HAZARD, names.WRAPPED, *names.BENIGN))}
    return {
        "open": texts, "models": known, "verdicts": [list(v) for v in verdicts], "asked": len(prompts),
        "prompts": sorted(prompts.values(), key=lambda p: (order.get(p["set"], len(order)), p["set"])),
    }  # fmt: skip


def packed(data: Row, most: int = PACKED_BYTES) -> str:
    """The data as base64 of deflated JSON, at most so many bytes: of a study with more answers than that the same share
    of every set's prompts, evenly. The browser says how many of them are there."""
    share, text = 1.0, _deflated(data)
    while len(text) > most and share > 0.001:
        share *= 0.9 * most / len(text)
        text = _deflated(data | {"prompts": _evenly(data["prompts"], share)})
    return text


def _evenly(prompts: Sequence[Row], share: float) -> list[Row]:
    by_set: dict[str, list[Row]] = {}
    for p in prompts:
        by_set.setdefault(p["set"], []).append(p)
    return [p for of in by_set.values() for i, p in enumerate(of) if int((i + 1) * share) > int(i * share)]


def _deflated(data: Row) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
