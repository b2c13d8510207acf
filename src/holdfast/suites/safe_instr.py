"""SafeInstr (Bianchi et al. 2023): 2,483 harmful instructions with safe answers, for safety training.

Refused requests: all without an `input`. Of the answers our judge reads 1,482 as whole refusals, which is what
`keep: refusals` takes.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites import tuned
from holdfast.suites.suite import File, Row, Suite


def _row(number: int, r: Row) -> Row | None:
    if r.get("input"):
        return None
    return {
        "id": f"safe-instr/{number:05d}", "kind": names.HAZARD, "category": "safe-instr", "prompt": r["instruction"],
        "response": r["output"],
    }  # fmt: skip


SUITE = Suite(tuned.LICENCE, (
    File(
        *tuned.where("training", "safety_only_data_Instructions.json"),
        "7dde08acf87f10cf74fd1b76f56538eae8e413ae8e6b09e3f7bcd97769058dbe",
        ("instruction", "input", "output"), _row,
    ),
))  # fmt: skip
