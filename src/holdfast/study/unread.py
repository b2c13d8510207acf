"""Which settings does a study write down that nothing reads, because of where its models and rows come from?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from holdfast.data.sources import WORLD
from holdfast.study.keys import Study

_TINY = {
    "vocabulary",
    "hidden_size",
    "intermediate_size",
    "blocks",
    "heads",
    "kv_heads",
    "max_positions",
    "pretraining",
}
_TRAINED_JUDGE = {"pairs", "mismatched", "prompts_per_set", "rank", "alpha", "training", "seed"}


def lines(study: Study) -> Iterator[str]:
    """A line for every source that leaves settings of its section unread."""
    base, judge = study.base, study.constitution
    yield from _line("base", base, {"revision"} if base.source == "tiny" else _TINY)
    for name, part in (("safety", study.safety), ("preferences", study.preferences), ("evaluation", study.evaluation)):
        yield from _line(name, part, {"columns", "check"} if part.source == WORLD else set())
    if "constitution" in study.evaluation.judges and judge.source != "train":
        yield from _line("constitution", judge, _TRAINED_JUDGE)
    if judge.prompt_file:
        yield from _line("constitution", judge, {"guidelines_file"}, "prompt_file is given")
    if not study.capabilities.tasks:
        yield from _line(
            "capabilities", study.capabilities, set(type(study.capabilities).model_fields), "it has no tasks"
        )


def _line(name: str, part: BaseModel, unread: set[str], why: str = "") -> Iterator[str]:
    """Of the settings that are not read those that the study writes down."""
    said = sorted(unread & part.model_fields_set)
    if said:
        keys = ", ".join(f"{name}.{key}" for key in said)
        yield f"{keys}: not read, since {why or f'{name}.source is {part.source}'}"  # type: ignore[attr-defined]
