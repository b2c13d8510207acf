"""holdfast: fine-tune a language model without losing its refusals."""

from __future__ import annotations

from collections.abc import Callable

__version__ = "0.2.0"


def judge(name: str) -> Callable[[str, str], str]:
    """A judge that reads words, by its name: `judge("refusal")(prompt, answer)` is the label of an answer.

    Raises:
        MethodError: there is no such judge, or it is a model or server, which a study asks.
    """
    from holdfast.errors import DataError, MethodError
    from holdfast.study import registry

    head, read = registry.judge(str(name)), registry.load_judge(str(name))
    if head.kind != "text" or name == "world":
        raise MethodError(
            f"The judge {name} does not read words alone.", found=f"kind {head.kind}",
            expected=" | ".join(n for n in registry.judge_names() if registry.judge(n).kind == "text" and n != "world"),
            do="name one of these, or ask it in a study: evaluation.judges",
        )  # fmt: skip

    def label(prompt: str, answer: str) -> str:
        """What the answer is, in the words of the judge."""
        if not (isinstance(prompt, str) and isinstance(answer, str)):
            raise DataError(
                "A judge reads words.", found=repr(prompt if isinstance(answer, str) else answer)[:80],
                expected="a prompt and an answer, both text", do="leave out what was not answered",
            )  # fmt: skip
        found: str = read.opinion(answer, {"prompt": prompt}).label
        return found

    return label
