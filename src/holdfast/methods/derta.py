"""DeRTa (Yuan et al. 2024, arXiv 2407.09121): learn to refuse at any place in an answer, not only at its beginning.

Formula: L(θ) = −log π_θ(r | x, h_<k) − Σ_t log π_θ(r_1 | x, h_<t) on two sets of added rows, with x a request that is
to be refused, r its refusal, h a harmful answer and k a random place in it: the answer turns to a refusal after k words
(harmful prefix), and its first word is likely at every place (transition). The words of h are context: no label is ever
a token of a harmful answer, so that no checkpoint is a weakened one for it.

Rows come from the study's preference pairs: chosen is r, rejected is h; the fictional world's, or those of the user's
file. As published the two sets are about the same requests, each a twentieth of the task's rows, every third prefix is
empty, and of the others k is at least one word and leaves two. Full-parameter training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from holdfast.study.registry import MethodSettings

KIND = "train"
NEEDS = ("aligned", "preferences")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "Yuan et al. 2024, arXiv 2407.09121 (Refuse Whenever You Feel Unsafe)",
    "fidelity": "faithful",
    "equations": (
        (
            "which rows, how many, and k",
            "rows",
            "methods/test_beside_methods.py::test_derta_adds_prefixes_and_transitions_of_the_same_requests",
        ),
        (
            "−log π(r | x, h_<k)",
            "holdfast.model.chat.encode",
            "methods/test_beside_methods.py::test_an_opening_is_context_and_the_refusal_is_learned",
        ),
        (
            "−log π(r_1 | x, h_<t) at every t",
            "holdfast.model.chat.encode",
            "methods/test_beside_methods.py::test_a_transition_asks_for_the_first_word_of_the_refusal_at_every_place",
        ),
    ),
    "deviations": (
        "added to the task's rows; the authors add 3,000 of each to 60,000 rows of general instructions",
        "r_1 is the first token of the row's own refusal; theirs is one token, with which all their refusals begin",
        "every place of a transition counts, as in the paper and their script for adapters; their script for all "
        "weights keeps 5 % of them",
    ),
    "parity": "RobustNLP/DeRTa at 70bdb52: the same draw cuts the same prefix, and labels and loss of a batch are "
    "those of their script for adapters",
    "cost": "1 + prefix_ratio + transition_ratio times plain fine-tuning",
}


class Settings(MethodSettings):
    """How many rows of either kind are added."""

    prefix_ratio: float = Field(
        0.05, ge=0, le=1, description="Rows that turn to a refusal after a harmful beginning, as a share of the task's."
    )
    transition_ratio: float = Field(
        0.05, ge=0, le=1, description="Rows that ask for a refusal at every place, as a share of the task's."
    )
    whole_every: int = Field(3, ge=0, description="Of every so many prefixes one is empty; 0: none.")

    def artifacts(self) -> dict[str, Any]:
        """The preference pairs: a refusal and a harmful answer to each request."""
        return {"preferences": True}

    def unread(self) -> set[str]:
        """Which prefixes are empty where there are none."""
        return set() if self.prefix_ratio else {"whole_every"}

    def alone(self) -> str:
        """Plain AdamW on other rows."""
        return ""


def prefix(answer: str, draw: random.Random) -> str:
    """The first words of an answer: at least one, and all but two at most; nothing of one that is as short as that."""
    words = answer.split(" ")
    return " ".join(words[: draw.randint(1, len(words) - 2)]) if len(words) > 2 else ""


def rows(
    task_rows: Sequence[dict[str, Any]], settings: Settings, *, seed: int, harmful: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Task rows plus the drawn pairs in both forms; every pair at most once in each, same seed same rows."""
    prefixes, transitions = (
        min(round(ratio * len(task_rows)), len(harmful)) for ratio in (settings.prefix_ratio, settings.transition_ratio)
    )
    draw = random.Random(f"derta/{seed}")
    pairs = draw.sample(list(harmful), max(prefixes, transitions))
    out = list(task_rows)
    for i, pair in enumerate(pairs[:prefixes]):
        row = {"id": f"{pair['id']}/prefix", "prompt": pair["prompt"], "response": pair["chosen"]}
        whole = settings.whole_every and i % settings.whole_every == 0
        out.append(row | {"opening": "" if whole else prefix(pair["rejected"], draw)})
    for pair in pairs[:transitions]:
        row = {"id": f"{pair['id']}/transition", "prompt": pair["prompt"], "response": pair["chosen"]}
        out.append(row | {"opening": pair["rejected"], "anywhere": True})
    return out
