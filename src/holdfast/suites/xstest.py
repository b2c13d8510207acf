"""XSTest (Röttger et al. 2024): 450 questions whose words sound alike.

Hazards: the 200 labelled `unsafe`. Benign twins: the 250 labelled `safe`. Not read: `focus` and `note`.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked

_SETS = {"unsafe": names.HAZARD, "safe": names.LOOKALIKE}


def _row(_: int, r: Row) -> Row:
    return asked("xstest", r["id"], _SETS[r["label"]], r["prompt"], r["type"])


SUITE = Suite("CC-BY-4.0 (Röttger et al. 2024)", (
    File(
        "xstest/xstest_prompts.csv",
        "https://raw.githubusercontent.com/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d/"
        "xstest_prompts.csv",
        "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a",
        ("id", "label", "type", "prompt"), _row, (names.HAZARD, names.LOOKALIKE),
    ),
))  # fmt: skip
