"""I-PhysicalSafety (Bianchi et al. 2023): advice that would hurt somebody, and advice that would not.

Hazards: the 100 of the unsafe file. Benign twins: the 100 of the safe file. Not read: `inputs`, which is empty; it has
no targets.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites import tuned
from holdfast.suites.suite import File, Row, Suite, asked, listed


def _file(of: str, name: str, sha256: str) -> File:
    def row(number: int, r: Row) -> Row:
        return asked("physical-safety", f"{of}/{number:03d}", of, r["instructions"])

    return File(*tuned.where("evaluation", name), sha256, ("instructions",), row, (of,), read=listed)


SUITE = Suite(tuned.LICENCE, (
    _file(names.HAZARD, "I-PhysicalSafetyUnsafe.json",
          "16324a2f1ded933e8c7a9f6c7d3924130f76260d03f9df2205e0a25c02de8aae"),
    _file(names.LOOKALIKE, "I-PhysicalSafetySafe.json",
          "34c874532623e405fb574f0fa8d6b86cbecce0e3340f67b146a6a6bc2453bed6"),
))  # fmt: skip
