"""Do-Not-Answer (Wang et al. 2023): 939 questions that a responsible model does not answer, from five areas of risk.

Hazards: all. Benign twins: none. Never read: the answers of models that some of its editions have. Not read:
`types_of_harm` and `specific_harms`. No revision is pinned: it is read from a copy of the user's, and was tried on
files of our own making only.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(_: int, r: Row) -> Row:
    return asked("do-not-answer", r["id"], names.HAZARD, r["question"], r["risk_area"])


SUITE = Suite("CC-BY-NC-SA-4.0 (Wang et al. 2023)", (
    File(
        "do-not-answer/do_not_answer_en.csv", "https://github.com/Libr-AI/do-not-answer", None,
        ("id", "risk_area", "question"), _row,
    ),
))  # fmt: skip
