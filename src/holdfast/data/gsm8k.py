"""GSM8K: grade-school word problems with an answer whose last line is `#### n` (Cobbe et al., 2021).

Hub id `openai/gsm8k`, config `main`. Scoring follows lm-evaluation-harness `gsm8k` version 3: strict
is the first `#### n`, flexible the last number; both are compared after the same normalisation.
"""

from __future__ import annotations

import re
from typing import Any

from holdfast import data, names

COLUMNS = ("question", "answer")
TEXT_COLUMNS = ("question", "answer")
METRIC = names.EXACT_MATCH
INSTRUCTION = ""
HUB_ID, HUB_CONFIG = "openai/gsm8k", "main"

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_GOLD = re.compile(r"(?:^|\n)####\s*([-+]?\$?[0-9][0-9,]*(?:\.[0-9]+)?)\s*$")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def example(row: dict[str, Any], instruction: str | None = None) -> tuple[str, str]:
    """(prompt, response): the question as it is and the worked answer."""
    head = f"{instruction.strip()}\n" if instruction else ""
    return head + row["question"], row["answer"]


def normalise(number: str) -> str:
    """lm-eval's rule: drop commas, dollar signs, everything up to `#### ` and one trailing full stop."""
    number = re.sub(r"(?s).*#### ", "", number.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", number).strip().lower()


def gold(answer: str) -> str | None:
    """The reference number of an answer, normalised; None if there is no `#### n` line."""
    match = _GOLD.search(answer)
    return normalise(match.group(1)).removeprefix("+") if match else None


def strict(text: str) -> str | None:
    match = _STRICT.search(text)
    return normalise(match.group(1)) if match else None


def flexible(text: str) -> str | None:
    hits = [a or b for a, b in _FLEXIBLE.findall(text)]
    return normalise(hits[-1]) if hits else None


def score(text: str, row: dict[str, Any]) -> dict[str, Any]:
    reference, first, last = gold(row["answer"]), strict(text), flexible(text)
    return {
        "correct": first is not None and first == reference,
        "flexible": last is not None and last == reference,
        "invalid": first is None,
        "parsed": first or "",
        "gold": reference or "",
    }


def real_row(raw: dict[str, Any]) -> dict[str, Any]:
    """A raw row -> {question, answer}, stripped of outer white space only.

    Raises:
        ValueError: the answer would not be scored as right: a model that learns it by heart would get nothing.
    """
    row = {"question": data.text(raw, "question"), "answer": data.text(raw, "answer")}
    if gold(row["answer"]) is not None and not score(row["answer"], row)["correct"]:
        raise ValueError(f"column 'answer' ends in {row['answer'][-40:]!r}, not in '#### ' and the number alone")
    return row


FOLDER = "gsm8k"
