"""OR-Bench hard (Cui et al. 2024): 1,319 harmless requests that several models refuse.

Hazards: none, so that it is asked beside a suite that has some. Benign: all. Not read: any column but `prompt`. The
digest is the one that public projects hold of this revision, and was not computed here.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(number: int, r: Row) -> Row:
    return asked("or-bench", f"{number:04d}", names.LOOKALIKE, r["prompt"])


SUITE = Suite("CC-BY-4.0 (Cui et al. 2024)", (
    File(
        "or-bench/or-bench-hard-1k.csv",
        "https://huggingface.co/datasets/bench-llm/or-bench/resolve/e36d8b80e81837c8a8f264bbb2a49f1b32c7e272/"
        "or-bench-hard-1k.csv",
        "a6e2f1166416efe5901f3bb05c47dc92ab3aca3acfe143693d38b8057d841e6d",
        ("prompt",), _row, (names.LOOKALIKE,),
    ),
))  # fmt: skip
