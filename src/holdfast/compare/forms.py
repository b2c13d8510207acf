"""What is an arm, whatever a study calls it? Claims, differences and published numbers are about methods and the
settings that make them what they are, not about names.

A form is a method and the values of the settings that tell it from its controls; what a form does not name is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast import names

SOURCES = ("full", "lora")  # what merges start from
BASELINE = "full"  # what every remedy is held against
_WARP = {"basis": "safety", "mask": "importance", "unit": "entry"}

# In order: an arm has the first form that fits, or the one that it is named after. Those of NAMED only by name: a study
# that has them also has the form that they are a variant of, and without it they are that form.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {"trainable": "all"}),
    "targets-only": ("full", {"trainable": "targets"}),
    "warp": ("warp", _WARP),
    "warp-original": ("warp", _WARP | {"basis": "original"}),
    "warp-randmask": ("warp", _WARP | {"mask": "random"}),
    "warp-nomask": ("warp", _WARP | {"mask": "none"}),
    "warp-random": ("warp", _WARP | {"basis": "random"}),
    "warp-column": ("warp", _WARP | {"unit": "column"}),
    "lead": ("lead", {"project": "both", "mix": 0.0}),
    "lead-update": ("lead", {"project": "update", "mix": 0.0}),
    "lead-mix": ("lead", {}),
    "lead-merge": ("lead-merge", {}),
    "lora": ("lora", {}),
    "lora-wsr": ("lora-wsr", {}),
    "safety-mix": ("safety-mix", {}),
    "resta": ("resta", {"vector": "unaligned"}),
    "resta-base": ("resta", {"vector": "base"}),
    "resta-dare": ("resta-dare", {}),
    "safe-lora": ("safe-lora", {}),
    "safe-delta": ("safe-delta", {}),
    "somf": ("somf", {"mask": "learned"}),
    "somf-shuffled": ("somf", {"mask": "shuffled"}),
    "sn-tune": ("sn-tune", {}),
    "rsn-tune": ("rsn-tune", {}),
    "given": ("given", {}),
}
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "warp-all": ("warp", _WARP | {"trainable": "all"}),
    "safety-mix-balanced": ("safety-mix", {}),
    "safe-delta-strict": ("safe-delta", {"never_kept": 0.15}),
    "warp-freeze.freeze-0.5": ("warp", {"freeze_fraction": 0.5}),
    "warp-freeze.freeze-0.01": ("warp", {"freeze_fraction": 0.01}),
}


@dataclass(frozen=True)
class Arm:
    """What an arm runs: a method (of a role its own name), its settings, whether it is one point of a sweep."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    swept: bool = False
    of: str | None = None  # the arm whose models a merge starts from


def of_cell(cell: Mapping[str, Any]) -> Arm:
    """The arm of a metrics.json."""
    return Arm(cell["method"], cell.get("settings") or {}, bool(cell.get("swept")), cell.get("of"))


def family(method: str, settings: Mapping[str, Any], swept: Iterable[str]) -> Arm:
    """What all points of a sweep together run: the method with what is not swept. A merge is held against the family of
    its source as anything else is."""
    return Arm(method, {k: v for k, v in settings.items() if k not in swept})


def form(name: str, arm: Arm) -> str:
    """The form of an arm; its own name where there is none.

    >>> form("mine", Arm("warp", {"basis": "random"})), form("mine", Arm("full", {"trainable": "targets"}))
    ('warp-random', 'targets-only')
    """
    if name in names.ROLES:
        return name
    for candidate in (name, *FORMS):
        method, settings = (FORMS | NAMED).get(candidate, ("", {}))
        if method == arm.method and all(arm.settings.get(k, v) == v for k, v in settings.items()):
            return candidate
    return name


def standing(wanted: str, arms: Mapping[str, Arm]) -> list[str]:
    """The arms that stand for a form: the one of its name; else every one of the form that is no point of a sweep."""
    forms = {name: form(name, arm) for name, arm in arms.items()}
    if forms.get(wanted) == wanted:
        return [wanted]
    return [name for name, arm in arms.items() if forms[name] == wanted and not arm.swept]


def partners(one: str, wanted: str, arms: Mapping[str, Arm]) -> list[str]:
    """The arms of a form that an arm is compared with: a merge with what it merges, and with merges of the same; of its
    own method those that differ from it in one setting, so that a difference says what that does. An arm named like the
    form is its author's word for it."""
    of = arms[one].of
    found = standing(wanted, arms)
    if of is not None and wanted in SOURCES:
        return [of] if of in arms else []
    if of is not None:
        found = [name for name in found if arms[name].of in (None, of)]
    return [name for name in found if name == wanted or _apart(arms[one], arms[name]) <= 1]


def _apart(one: Arm, other: Arm) -> int:
    """In how many settings two arms of one method differ; 0 of two methods, and of what was not recorded."""
    shared = one.settings.keys() & other.settings.keys() if one.method == other.method else ()
    return sum(one.settings[key] != other.settings[key] for key in shared)


def baseline(arms: Mapping[str, Arm], declared: str | None = None) -> str | None:
    """The arm that differences are measured from: the one a study declares, else full fine-tuning, the first where a
    study has several."""
    return declared if declared in arms else next(iter(standing(BASELINE, arms)), None)


def first_of(rows: Iterable[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    """The row of table.csv that stands for a form among those of one task: the one of its name, else the first that is
    no point of a sweep."""
    found = [r for r in rows if r["form"] == wanted and (r["arm"] == r["family"] or r["arm"] == wanted)]
    return next((r for r in found if r["arm"] == wanted), found[0] if found else None)
