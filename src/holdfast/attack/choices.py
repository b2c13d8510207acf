"""Which settings does the attacker try next? The one door to Optuna: a seeded sampler that can be told what it was told
before, and then goes on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.errors import ArtifactError

Choice = dict[str, Any]
STARTUP = 5  # so many are drawn at random before `tpe` learns, however many follow: more trials begin as fewer do


class Chooser:
    """Asks for one choice after the other, and is told what became of each before it asks again.

    Args:
        space: [lowest, highest] of learning_rate (by its logarithm), epochs, harmful_fraction and, where there is one,
            rank; `order`: how many there are; `unread`: what is drawn, and no part of a choice.
        sampler: tpe | random.
    """

    def __init__(self, space: Mapping[str, Any], *, sampler: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        chosen: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if sampler == "random"
            else optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        )
        self._space, self._study = space, optuna.create_study(sampler=chosen)
        self._open: Any = None

    def ask(self) -> Choice:
        """The next choice."""
        trial, space = self._study.ask(), self._space
        self._open = trial
        found: Choice = {
            "learning_rate": trial.suggest_float("learning_rate", *space["learning_rate"], log=True),
            "epochs": trial.suggest_int("epochs", *space["epochs"]),
            "harmful_fraction": trial.suggest_float("harmful_fraction", *space["harmful_fraction"]),
            "order": trial.suggest_categorical("order", list(range(space["order"]))),
        }
        if "rank" in space:
            found["rank"] = trial.suggest_int("rank", *space["rank"], log=True)
        return {name: value for name, value in found.items() if name not in space.get("unread", ())}

    def tell(self, refusal: float, short: float) -> None:
        """What became of the last choice: the share of refusals left, and by how much its utility is too low (at most 0
        where it is not), both on validation."""
        self._open.set_constraint("utility", short)
        self._study.tell(self._open, refusal)

    def replay(self, told: Sequence[tuple[Choice, float, float]]) -> None:
        """Be told (choice, refusal, short) of trials that were made before.

        Raises:
            ArtifactError: it would have asked for others.
        """
        for number, (choice, refusal, short) in enumerate(told):
            asked = self.ask()
            if asked != choice:
                raise ArtifactError(
                    f"Trial {number} of an attack was not asked for by this sampler.", found=str(choice),
                    expected=str(asked), do="remove the trials of this attack below work/<study>/checkpoints",
                )  # fmt: skip
            self.tell(refusal, short)
