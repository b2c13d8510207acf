"""HarmBench (Mazeika et al. 2024), requests in text: its validation split and its test split.

Hazards: the standard rows, and the contextual ones with their context before the request, in the form of HarmBench's
own direct requests. Benign twins: none. Left out: the copyright rows, a quarter of each split. Their requests are not
harmful, and HarmBench asks of an answer whether it has the work's text, which no judge of refusals can say. Not read:
`Tags`; it has no targets. Validation prompts are those of the published validation file, test prompts of the test file.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked

_ADDRESS = (
    "https://raw.githubusercontent.com/busycalibrating/AdversariaLLM/f970939273ea17b491fadf6001fddc36ed3ae3ff/"
    "data/behavior_datasets/"
)


def _row(_: int, r: Row) -> Row | None:
    if r["functionalcategory"] == "copyright":
        return None
    context = f"{r['contextstring']}\n\n---\n\n" if r["contextstring"] else ""
    return asked("harmbench", r["behaviorid"], names.HAZARD, context + r["behavior"], r["semanticcategory"])


def _file(name: str, split: str, sha256: str) -> File:
    columns = ("behavior", "functionalcategory", "semanticcategory", "contextstring", "behaviorid")
    return File(f"harmbench/{name}", _ADDRESS + name, sha256, columns, _row, split=split)


SUITE = Suite("MIT (Mazeika et al. 2024)", (
    _file("harmbench_behaviors_text_test.csv", "test",
          "bf2bfd36f765d97cbbe27a3191b492ea76b1771e9116af80a587647831de75ce"),
    _file("harmbench_behaviors_text_val.csv", "validation",
          "7bfaaa5e2b9b95002c89e2d33c019f58e9e8496e2fc65d368f1eeb8179e69534"),
))  # fmt: skip
