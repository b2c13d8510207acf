"""Requests and refusals in our own words (written.yaml), for who has none: harmless requests of many kinds, half of
which only sound dangerous, and refusals in many wordings."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_SLOT = re.compile(r"{(\w+)}")


@functools.cache
def _texts() -> dict[str, Any]:
    return dict(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))


def _listed(text: str) -> list[str]:
    return [" ".join(part.replace("|", ". ").split()) for part in text.split(",")]


def _filled(form: str, topics: dict[str, list[str]]) -> Iterator[str]:
    """A form with each of its topics; with two, with each pair."""
    slots = _SLOT.findall(form)
    for words in itertools.product(*(topics[s] for s in slots)):
        yield form.format(**dict(zip(slots, words, strict=True)))


@functools.cache
def _requests() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All plain requests, and all that only sound dangerous."""
    texts = _texts()
    topics = {name: _listed(text) for name, text in texts["topics"].items()}
    acts = [f"{verb} {what}" for verb, objects in texts["acts"]["verbs"].items() for what in _listed(objects)]
    plain = [r for form in texts["plain"] for r in _filled(form, topics)]
    sounding = [r for form in texts["sounding"] for r in _filled(form, topics)]
    return tuple(plain), (*sounding, *(f.format(act=act) for act in acts for f in texts["acts"]["forms"]))


def harmless(draw: int = 0) -> Iterator[str]:
    """Harmless requests, each once, in an order that the draw decides; every second one only sounds dangerous as long
    as there are some."""
    rng = random.Random(f"holdfast-written-{draw}")
    plain, sounding = (rng.sample(part, len(part)) for part in _requests())
    for pair in itertools.zip_longest(plain, sounding):
        yield from (request for request in pair if request)


def refusal(request: str, draw: int = 0) -> str:
    """A refusal of a request: the same for the same one, another wording for most others."""
    rng, said = random.Random(f"holdfast-refusal-{draw}-{request}"), _texts()["refusals"]
    opening, decline = rng.choice(said["openings"]), rng.choice(said["declines"])
    begun = f"{opening} {decline}" if opening else decline[0].upper() + decline[1:]
    return str(begun + rng.choice(said["reasons"]) + rng.choice(said["offers"]))
