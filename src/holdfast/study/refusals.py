"""Are the answers in a user's safety rows what the study takes them for? A file may call every row a refusal, and the
model then learns to comply as its safety training. The judge `refusal` reads them first; the user decides (`check`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from holdfast import names
from holdfast.errors import DataError
from holdfast.study import registry
from holdfast.study.keys import Safety

Row = dict[str, Any]
Say = Callable[[str], None]
_NAMED = 5
WHOLE = "full_refusal"
_END = re.compile(r"(?<!\d)[.!?][\"'”’)*]*(?=\s)")  # not the number of a list


def check_safety(rows: Sequence[Row], cfg: dict[str, Any], say: Say) -> None:
    """Requests that are to be refused must be answered with a refusal, all others without one.

    Args:
        cfg: source, and `check`: `strict` refuses the file, `report` says what was found; nothing asked of the world.

    Raises:
        DataError: `strict`, and an answer is not what its row says.
    """
    hazards = [(r["id"], r["prompt"], r["response"]) for r in rows if r["kind"] == names.HAZARD]
    benign = [(r["id"], r["prompt"], r["response"]) for r in rows if r["kind"] != names.HAZARD]
    _check(hazards, cfg, say, "requests to refuse", refused=True, key="safety")
    _check(benign, cfg, say, "requests to answer", refused=False, key="safety")


def few(safety: Safety, rows: Sequence[Row], say: Say, key: str = "") -> None:
    """Say where a study names more rows than there are to train on; of a number that nobody named all are meant.

    Args:
        rows: those of the safety table; or, of requests that the base answers itself (`key`), those.
    """
    kinds = Counter("hazards" if r.get("kind") == names.HAZARD else "benign" for r in rows)
    itself = safety.benign_answers == "self"
    for what, of in (("hazards", "requests to refuse"), ("benign", "requests to answer")):
        looked = (what == key) if key else bool(rows) and not (what == "benign" and itself)
        if looked and what in safety.model_fields_set and kinds[what] < (wanted := getattr(safety, what)):
            say(f"safety.{what}: {kinds[what]} {of}, and the study names {wanted}: all are taken")


def whole(prompt: str, answer: str) -> bool:
    """Whether the judge `refusal` reads an answer as a whole refusal."""
    label: str = registry.load_judge("refusal").opinion(answer, {"prompt": prompt}).label
    return label == WHOLE


def helps(prompt: str, answer: str) -> bool:
    """Whether the judge `refusal` reads an answer as one that complies."""
    label = registry.load_judge("refusal").opinion(answer, {"prompt": prompt}).label
    return registry.judge("refusal").outcomes[label] == names.COMPLIANCE


def own_answers(prompts: Sequence[str], answers: Sequence[Any], count: int, say: Say) -> list[Row]:
    """Rows of the safety table from what the base itself said: the first `count` of the answers that comply. One that
    was cut is kept as far as its sentences are whole: most lists of a small model's find no end by themselves.

    Raises:
        DataError: no answer is of use.
    """
    judge, outcomes = registry.load_judge("refusal"), registry.judge("refusal").outcomes
    cut = sum(a.finish != names.STOP for a in answers)
    said = [a.text.strip() if a.finish == names.STOP else _whole_sentences(a.text) for a in answers]
    rows = [
        {"id": f"self/{i:05d}", "kind": "chat", "category": "self", "prompt": p, "response": text}
        for i, (p, text) in enumerate(zip(prompts, said, strict=True))
        if text and outcomes[judge.opinion(text, {"prompt": p}).label] == names.COMPLIANCE
    ]  # fmt: skip
    say(f"{len(rows)} of {len(answers)} answers of the base's own are of use; {cut} were cut, and end with their last "
        f"whole sentence; asked for: {count}")  # fmt: skip
    if count and not rows:
        raise DataError(
            "No answer of the base to a benign request is of use.", found=f"{cut} of {len(answers)} were cut",
            expected="answers that help",
            do="raise safety.benign_max_new_tokens, or give benign rows of your own",
        )  # fmt: skip
    return rows[:count]


def _whole_sentences(text: str) -> str:
    """What a cut answer says up to its last whole sentence; nothing if it has none."""
    ends = [m.end() for m in _END.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""


def check_preferences(rows: Sequence[Row], cfg: dict[str, Any], say: Say) -> None:
    """What is chosen must be a refusal, what is rejected must not.

    Raises:
        DataError: `strict`, and an answer is not what its column says.
    """
    for side, refused in (("chosen", True), ("rejected", False)):
        answers = [(r["id"], r["prompt"], r[side]) for r in rows]
        _check(answers, cfg, say, f"answers in `{side}`", refused=refused, key="preferences")


def _check(
    answers: Sequence[tuple[str, str, str]], cfg: dict[str, Any], say: Say, what: str, *, refused: bool, key: str
) -> None:
    how = cfg.get("check", "off")
    if how == "off" or not answers:
        return
    judge, outcomes = registry.load_judge("refusal"), registry.judge("refusal").outcomes
    labels = {name: judge.opinion(text, {"prompt": prompt}).label for name, prompt, text in answers}
    odd = {name: label for name, label in labels.items() if (outcomes[label] == names.REFUSAL) != refused}
    if not odd:
        return
    read = ", ".join(f"{label} {n}" for label, n in Counter(odd.values()).most_common())
    first = ", ".join(list(odd)[:_NAMED]) + " ..." * (len(odd) > _NAMED)
    found = f"{len(odd)} of {len(answers)} {what} have an answer that is read otherwise ({read}): {first}"
    if how == "strict":
        raise DataError(
            f"{cfg['source']}: answers are not what the rows say.", found=found,
            expected="a refusal, as the judge `refusal` reads it" if refused else "an answer that is no refusal",
            do=f"correct the rows, or their `kind`; or {key}.check: report" if key == "safety"
            else f"correct the pairs; or {key}.check: report",
        )  # fmt: skip
    say(f"{cfg['source']}: {found}; taken as they are ({key}.check)")
