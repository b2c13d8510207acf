"""OR-Bench hard (Cui et al. 2024): about 1,300 harmless requests that several models refuse.

Hazards: none, so that it is asked beside a suite that has some. Benign: all. Not read: any column but `prompt`. No
revision is pinned: it is read from a copy of the user's, and was tried on files of our own making only.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(number: int, r: Row) -> Row:
    return asked("or-bench", f"{number:04d}", names.LOOKALIKE, r["prompt"])


SUITE = Suite("CC-BY-4.0 (Cui et al. 2024)", (
    File(
        "or-bench/or-bench-hard-1k.csv", "https://huggingface.co/datasets/bench-llm/or-bench", None,
        ("prompt",), _row, (names.LOOKALIKE,),
    ),
))  # fmt: skip
