"""Safety mixing (SafeInstr; Bianchi et al. 2023, arXiv 2309.07875): refusals added to the task data.

Formula: D' = D_task ∪ sample(D_refusals, q |D_task|), then full-parameter fine-tuning on D'.

Three counts go by the name of a ratio q, so `count` says which: `floor` adds int(q N) refusals (the AG
News runs of the WSR-Tune authors; 0.1 is 9.09 % of the mixture), `round` adds max(1, round(q N)) (their
phase 3), `absolute` adds `number` whatever N is (Bianchi et al.: 100 to 2,000 beside 20,000). Refusals
alone teach a model to refuse benign requests too; `benign_ratio` adds answered benign safety rows,
counted in the same way. The method is also found under its other name, `safe-instr`.

`draw: published` draws the refusals as the AG News script of the WSR-Tune authors does, `Random(42).sample` of the
safety rows in their order whatever the seed, to reproduce its rows; `study` draws others for every seed, since a seed
here is a draw of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from holdfast.study.registry import MethodSettings

KIND = "train"
NEEDS = ("aligned", "safety")
LEARNING_RATE = 6e-4
CARD = {
    "paper": "Bianchi et al. 2023, arXiv 2309.07875 (SafeInstr)",
    "fidelity": "faithful",
    "equations": (
        ("D' = D_task ∪ sample(D_refusals)", "rows", "methods/test_methods.py::test_safety_mix_counts_as_published"),
        (
            "sample = Random(42).sample (`draw: published`)",
            "rows",
            "methods/test_published_methods.py::test_safety_mix_draws_what_the_published_script_draws",
        ),
        (
            "int(q N), max(1, round(q N)), or a number",
            "count",
            "methods/test_methods.py::test_safe_instr_is_the_same_method_and_its_three_counts_are_told_apart",
        ),
    ),
    "deviations": (
        "full-parameter training as in the WSR-Tune runs; Bianchi et al. train LoRA adapters",
        "every seed draws its own refusals; the WSR-Tune script always draws those of seed 42 (`draw: published`)",
    ),
    "parity": "min-seong-kim/Safety-WaRP-LLM at 62655ed: with `draw: published` the same rows. The repository of "
    "SafeInstr's authors has no code that mixes: its files are mixed already",
    "cost": "1 + q times plain fine-tuning",
}


class Settings(MethodSettings):
    """How many safety rows are added, and which."""

    ratio: float = Field(0.1, ge=0, le=1, description="Refusals added, as a share of the task rows.")
    count: Literal["floor", "round", "absolute"] = Field("floor", description="How a ratio becomes a number of rows.")
    number: int = Field(0, ge=0, description="Refusals added when count is `absolute`.")
    draw: Literal["study", "published"] = Field(
        "study", description="Refusals drawn by the study's seed, or as the published script draws them."
    )
    benign_ratio: float = Field(0.0, ge=0, le=1, description="Answered benign rows added, as a share of the task rows.")

    def unread(self) -> set[str]:
        """A number of rows where a ratio counts, or the other way round."""
        return {"ratio"} if self.count == "absolute" else {"number"}

    def alone(self) -> str:
        """Plain AdamW on other rows."""
        return ""


def count(n: int, ratio: float, how: str) -> int:
    """Rows that a ratio of `n` task rows stands for."""
    if how == "round":
        return max(1, round(n * ratio)) if ratio else 0
    return int(n * ratio)


def rows(
    task_rows: Sequence[dict[str, Any]], settings: Settings, *, seed: int, safety: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Task rows plus the drawn safety rows; every safety row at most once, same seed same rows."""
    from holdfast.data import draws

    out = list(task_rows)
    for ratio, refused in ((settings.ratio, True), (settings.benign_ratio, False)):
        wanted = (
            settings.number
            if refused and settings.count == "absolute"
            else count(len(task_rows), ratio, settings.count)
        )
        stream = 42 if refused and settings.draw == "published" else f"safety-mix/{seed}/{refused}"
        out += draws.of_safety(safety, wanted, stream, refused=refused)
    return out
