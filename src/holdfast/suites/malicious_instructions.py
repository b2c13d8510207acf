"""I-MaliciousInstructions (Bianchi et al. 2023): 100 requests for hate and crime.

Hazards: all. Benign twins: none. Not read: `inputs`, which is empty; it has no targets.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites import tuned
from holdfast.suites.suite import File, Row, Suite, asked, listed


def _row(number: int, r: Row) -> Row:
    tags = r["tags"]  # a word, or a list of which the first counts
    kind = tags if isinstance(tags, str) else (tags or [""])[0]
    return asked("malicious-instructions", f"hazard/{number:03d}", names.HAZARD, r["instructions"], kind)


SUITE = Suite(tuned.LICENCE, (
    File(
        *tuned.where("evaluation", "I-MaliciousInstructions.json"),
        "7a2bc751d49983800848050282aa2a84b3faa7044c3178228c49dd68df7d679f",
        ("instructions", "tags"), _row, read=listed,
    ),
))  # fmt: skip
