"""PTST (pure tuning, safe testing; Lyu et al. 2024, arXiv 2402.18540): tune without a safety prompt, answer after one.

Formula: θ' = θ_finetuned; every conversation begins with `system_prompt`, which training did not have.

Nothing is trained: the arm takes the models of another (`of`) as they are and writes the prompt into their chat
template, so that whoever loads one asks it so: this study, its task rows too, and whoever deploys it. A conversation
that brings a system message keeps its own. Where a template has no system messages, as the tiny model's, the words
stand before the first request, an empty line between.

The paper's prompts are those that chat models were published with; the default here is one in our words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from holdfast.study.registry import MethodSettings

if TYPE_CHECKING:
    import torch

    from holdfast.merge.driver import Weights

KIND = "merge"
NEEDS = ("aligned",)
CARD = {
    "paper": "Lyu et al. 2024, arXiv 2402.18540 (vfleaking/PTST at fa6386a)",
    "fidelity": "faithful",
    "equations": (
        (
            "θ' = θ_ft",
            "merge",
            "merge/test_merging.py::test_identity_settings_give_the_input_bit_for_bit",
        ),
        (
            "every conversation begins with the prompt",
            "system_prompt",
            "merge/test_ptst.py::test_a_model_is_asked_after_the_prompt_and_its_source_is_not",
        ),
        (
            "words before the request where there are no system messages",
            "holdfast.model.template.introduce",
            "merge/test_ptst.py::test_without_system_messages_the_words_stand_before_the_first_request",
        ),
    ),
    "deviations": (
        "a prompt in our words as the default; name the one that your model was published with",
        "without system messages no marks around the words; the authors' code writes Llama 2's",
    ),
    "parity": "vfleaking/PTST at fa6386a: character by character the same question after a system prompt, where a "
    "template has Llama 2's marks. Without system messages theirs writes those marks all the same; ours "
    "writes none that the model was not trained on",
    "cost": "a copy of the weights; the tokens of the prompt in every answer",
}
PROMPT = (
    "You are a helpful and careful assistant. Decline requests whose answer could do harm, and say so in a sentence. "
    "Answer all others as well as you can."
)


class Settings(MethodSettings):
    """What conversations begin with."""

    system_prompt: str = Field(
        PROMPT, pattern=r"\S", description="What every conversation begins with, in answers only."
    )


def system_prompt(settings: Settings) -> str:
    """What the template of the model begins conversations with."""
    return settings.system_prompt


def merge(name: str, weights: Weights, settings: Settings, state: None) -> torch.Tensor:
    return weights["finetuned"]
