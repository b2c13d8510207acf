"""JailbreakBench (Chao et al. 2024): 100 harmful behaviours of ten kinds, 45 of them from other sets, and 100 like them
that are harmless.

Hazards: the harmful behaviours. Benign twins: the others, of the revision of the hub that its authors' package reads;
its digest is the one that two public projects hold, and was not computed here. Never read: `Target`, the opening of
an answer that complies. Not read: `Behavior`, a name, and `Source`.
"""

from __future__ import annotations

from holdfast import names
from holdfast.suites.suite import File, Row, Suite, asked


def _hazard(number: int, r: Row) -> Row:
    return asked("jailbreakbench", f"{number:03d}", names.HAZARD, r["goal"], r["category"])


def _twin(number: int, r: Row) -> Row:
    return asked("jailbreakbench", f"benign/{number:03d}", names.LOOKALIKE, r["goal"], r["category"])


SUITE = Suite("MIT (Chao et al. 2024)", (
    File(
        "jailbreakbench/jailbreakbench.csv",
        "https://raw.githubusercontent.com/andyrdt/refusal_direction/9d852fae1a9121c78b29142de733cb1340770cc3/"
        "dataset/raw/jailbreakbench.csv",
        "45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516",
        ("goal", "category"), _hazard,
    ),
    File(
        "jailbreakbench/benign-behaviors.csv",
        "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors/resolve/"
        "886acc352a31533ffbcf4ef22c744658688086fc/data/benign-behaviors.csv",
        "3cda234d21a991fa309bbfea4b6d9dae31ccdf8e9d452424b6a983e4fdc33468",
        ("goal", "category"), _twin, (names.LOOKALIKE,),
    ),
))  # fmt: skip
