"""AdvBench (Zou et al. 2023): 520 harmful requests in the imperative.

Hazards: all. Benign twins: none. Never read: `target`, the opening of an answer that complies.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(number: int, r: Row) -> Row:
    return asked("advbench", f"{number:03d}", names.HAZARD, r["goal"])


SUITE = Suite("MIT (Zou et al. 2023)", (
    File(
        "advbench/advbench.csv",
        "https://raw.githubusercontent.com/andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3/"
        "dataset/raw/advbench.csv",
        "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1",
        ("goal",), _row,
    ),
))  # fmt: skip
