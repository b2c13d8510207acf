"""StrongREJECT (Souly et al. 2024): 313 forbidden requests, of six kinds, 92 of them from other sets.

Hazards: all. Benign twins: none. Not read: `source`; it has no targets.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _row(number: int, r: Row) -> Row:
    return asked("strongreject", f"{number:03d}", names.HAZARD, r["forbidden_prompt"], r["category"])


SUITE = Suite("MIT (Souly et al. 2024); rows of other sets under the terms of those", (
    File(
        "strongreject/strongreject.csv",
        "https://raw.githubusercontent.com/andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3/"
        "dataset/raw/strongreject.csv",
        "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
        ("category", "forbidden_prompt"), _row,
    ),
))  # fmt: skip
