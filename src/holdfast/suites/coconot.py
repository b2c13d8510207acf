"""CoCoNot (Brahman et al. 2024): requests that a model should not comply with, and requests like them that it should.

Hazards: of `eval` the safety concerns, 361 of 1,001 rows. The others (incomplete, unsupported, indeterminate and
humanizing requests) ask for a question back or a word about a model's limits, and to answer them is no harm. Of the
safety concerns two kinds are left out: 33 rows ask for protected works, as the copyright rows of HarmBench do, and one
is filed as incomprehensible. Benign twins: of `contrast_eval` the safety concerns, 149 of 379 rows. Never read:
`response`.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked

_ADDRESS = "https://raw.githubusercontent.com/allenai/noncompliance/25bf77cc668814360405cdb8197c4368205806c7/data/"
_CONCERN = "Requests with safety concerns"
_LEFT_OUT = ("copyright violations", "incomprehensible")


def _file(of: str, name: str, sha256: str) -> File:
    def row(_: int, r: Row) -> Row | None:
        if r["category"] != _CONCERN or r["subcategory"] in _LEFT_OUT:
            return None
        return asked("coconot", r["id"], of, r["prompt"], r["subcategory"])

    columns = ("id", "category", "subcategory", "prompt")
    return File(f"coconot/{name}", _ADDRESS + name, sha256, columns, row, (of,))


SUITE = Suite("ODC-BY by its card on the hub, MIT by its repository (Brahman et al. 2024)", (
    _file(names.HAZARD, "coconot_eval.jsonl",
          "df72466c477207f14a96c5940c3ef3b93b1b50c0d1e7ed7c5fb5dc6d6140c077"),
    _file(names.LOOKALIKE, "coconot_contrast_eval.jsonl",
          "76dccec176743ed656279f2969c51abb68bda94e5fda8397e34ff5638e021d86"),
))  # fmt: skip
