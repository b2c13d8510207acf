"""SimpleSafetyTests (Vidgen et al. 2023): 100 requests from five areas of harm.

Hazards: all. Benign twins: none. Not read: `counter` and `category`; it has no targets.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(_: int, r: Row) -> Row:
    return asked("simple-safety-tests", r["id"], names.HAZARD, r["prompts_final"], r["harm_area"])


SUITE = Suite("CC-BY-4.0 (Vidgen et al. 2023)", (
    File(
        "simple-safety-tests/simple_safety_tests.csv",
        "https://raw.githubusercontent.com/bertiev/SimpleSafetyTests/d7aee9a9422a5a5488f478fd79c2479c891c0f3b/"
        "SimpleSafetyTests%20-%20test%20cases.csv",
        "6d95a1301e0d0f3a3c4cf5392f4afff11ad6e3066f95d23aaa138d44aedf986c",
        ("id", "harm_area", "prompts_final"), _row,
    ),
))  # fmt: skip
