"""Which settings does one job of an attack get?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.record import provenance
from holdfast.study import attacks, registry, replicates

if TYPE_CHECKING:
    from holdfast.study.resolve import Resolved


def files(study: Resolved, name: str) -> list[str]:
    """The files of the methods and the judge that one job loads by name."""
    methods = dict.fromkeys(a.method for a in (study.arms[name], study.arms[attacks.trained(study, name)]))
    judge = registry.judge_file(study.judging.text[0]).name
    return [*(f"methods/{registry.method_file(m).name}" for m in methods), f"judges/{judge}"]


def cfg(study: Resolved, task: str, arm: str, seed: int, folder: str = "") -> dict[str, Any]:
    """The settings of one job: what he may choose, what stays, how trials are asked and judged.

    He draws alike against every defence: what differs is what they make of it.
    """
    attack = study.study.attack
    assert attack is not None  # asked for in a study with an attack only
    train = study.cell_cfg(task, attacks.trained(study, arm), seed, folder)
    space: dict[str, Any] = {
        "learning_rate": list(attack.learning_rate), "epochs": list(attack.epochs),
        "harmful_fraction": list(attack.harmful_fraction), "order": attack.order,
    }  # fmt: skip
    if attack.rank:
        space["rank"] = list(attack.rank)
        space["unread"] = [] if "rank" in train["settings"] else ["rank"]
    told = study.study.tasks[task].scorer_cfg()
    number = replicates.number(folder)
    return {
        "space": space, "trials": attack.trials, "sampler": attack.sampler, "utility_loss": attack.utility_loss,
        "seed": int(provenance.digest(["attack", attack.seed, task, seed, number])[:8], 16),
        "train": train, "merge": study.merge_cfg(task, arm, seed, folder) if study.arms[arm].kind == "merge" else None,
        "generation": study.generation_cfg([task], "validation"), "judge": study.judging.text[0],
        "datasets": {task: study.study.tasks[task].dataset}, "scorers": {task: told} if told else {},
    } | {k: train[k] for k in ("instructions",) if k in train}  # fmt: skip


def table_cfg(study: Resolved) -> dict[str, Any]:
    """What the table of an attack is told beside its trials."""
    attack = study.study.attack
    assert attack is not None
    return {"dollars_per_hour": attack.dollars_per_hour, "trials": attack.trials, "judge": study.judging.first}
