"""JailbreakBench's harmful behaviours (Chao et al. 2024): 100 requests of ten kinds, 45 of them from other sets.

Hazards: all. Benign twins: published, in a file that this one is not; they are not asked. Never read: `Target`, the
opening of an answer that complies. Not read: `Behavior`, a name, and `Source`.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(number: int, r: Row) -> Row:
    return asked("jailbreakbench", f"{number:03d}", names.HAZARD, r["goal"], r["category"])


SUITE = Suite("MIT (Chao et al. 2024)", (
    File(
        "jailbreakbench/jailbreakbench.csv",
        "https://raw.githubusercontent.com/andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3/"
        "dataset/raw/jailbreakbench.csv",
        "45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516",
        ("goal", "category"), _row,
    ),
))  # fmt: skip
