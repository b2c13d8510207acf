"""What does the attack of a study need, and which models does it make?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.data.sources import WORLD
from holdfast.errors import StudyError
from holdfast.study import registry
from holdfast.study.arms import ResolvedArm
from holdfast.study.reading import check_known

if TYPE_CHECKING:
    from holdfast.study.compared import Compared


def refuse(study: Compared) -> None:
    """Refuse an attack that cannot run, or that this project does not run.

    Raises:
        StudyError: the key, and what to do.
    """
    attack = study.study.attack
    if attack is None:
        return
    check_known(attack.arms, study.arms, study.path, "attack.arms", "an arm that the study does not have", "arms")
    tasks = study.study.tasks
    check_known(attack.tasks, tasks, study.path, "attack.tasks", "a task that the study does not have", "tasks")
    for name in attack.arms:
        _refuse_arm(study, name)
    for task in attack.tasks:
        if reference(study, task) is None:
            raise StudyError(
                f"{study.path}: attack.utility_loss has nothing to be held against on the task {task}.",
                found="no arm with full fine-tuning", expected="an arm `method: full`, or `compare: {baseline: ...}`",
                do=f"add one that runs on {task}",
            )  # fmt: skip
    if attack.rank and not any("rank" in _trained(study, name).settings[attack.tasks[0]] for name in attack.arms):
        raise StudyError(
            f"{study.path}: attack.rank means nothing here.", found=", ".join(attack.arms),
            expected="a defence whose method has a rank", do="remove attack.rank",
        )  # fmt: skip
    if attack.harmful and study.study.preferences.source != WORLD:
        raise StudyError(
            f"{study.path}: attack.harmful_fraction: what is searched with is the fictional world's or harmless.",
            found=f"preferences.source: {study.study.preferences.source}", expected="preferences of the world",
            do="remove attack.harmful_fraction: harmless rows of your own may be tuned on",
        )  # fmt: skip
    needed = max(round(attack.harmful_fraction[1] * tasks[t].train_rows) for t in attack.tasks)
    if needed > study.study.preferences.rows:
        raise StudyError(
            f"{study.path}: preferences.rows are fewer than attack.harmful_fraction asks for.",
            found=f"{study.study.preferences.rows} pairs", expected=f"at least {needed}", do="raise preferences.rows",
        )  # fmt: skip
    if study.study.evaluation.split != "test":
        raise StudyError(
            f"{study.path}: an attack is chosen on the validation split, so that what it reaches must be of another.",
            found="evaluation.split: validation", expected="evaluation.split: test", do="remove attack, or the split",
        )  # fmt: skip
    if not study.judging.text:
        raise StudyError(
            f"{study.path}: an attack asks a judge after every trial, and none here reads the words alone.",
            found=", ".join(study.study.evaluation.judges), expected="world or refusal in evaluation.judges",
            do="add one",
        )  # fmt: skip
    if study.study.resources.gpus > 1:
        raise StudyError(
            f"{study.path}: the trials of an attack run in one process.",
            found=f"resources.gpus: {study.study.resources.gpus}", expected="1", do="remove resources.gpus, or attack",
        )  # fmt: skip


def _refuse_arm(study: Compared, name: str) -> None:
    """A defence is trained, or merged from what is, on every task of the attack."""
    arm, attack = study.arms[name], study.study.attack
    assert attack is not None
    if arm.fixed:
        raise StudyError(
            f"{study.path}: attack.arms names what nobody trains here.", found=name,
            expected="an arm that is trained, or a merge of one", do=f"take {name} out of attack.arms",
        )  # fmt: skip
    missing = [task for task in attack.tasks if task not in arm.learning_rates]
    if missing:
        raise StudyError(
            f"{study.path}: attack.arms names an arm that does not run on the task {missing[0]}.", found=name,
            expected=", ".join(arm.learning_rates), do=f"limit attack.tasks, or add {missing[0]} to arms.{arm.family}",
        )  # fmt: skip
    tuned = _trained(study, name)
    own = registry.load(tuned.method).Settings
    for task in attack.tasks:
        if not attack.chooses(ranked="rank" in tuned.settings[task]):
            raise StudyError(
                f"{study.path}: attack.rank is all that may be chosen, and {name} has none.", found=tuned.method,
                expected="a range that every defence has", do=f"give another range, or take {name} out of attack.arms",
            )  # fmt: skip
        steps, needed = study.steps(task, attack.epochs[0]), own.model_validate(tuned.settings[task]).fewest_steps()
        if steps < needed:
            raise StudyError(
                f"{study.path}: attack.epochs are too few for arms.{tuned.family} on the task {task}.",
                found=f"{steps} optimizer steps at {attack.epochs[0]}",
                expected=f"at least {needed}, by the arm's settings",
                do=f"raise the lower end of attack.epochs, or take {name} out of attack.arms",
            )  # fmt: skip


def _trained(study: Compared, name: str) -> ResolvedArm:
    """The arm whose fine-tuning a defence has: its own, or that of what it merges."""
    arm = study.arms[name]
    return study.arms[arm.of] if arm.kind == "merge" and arm.of else arm


def trained(study: Compared, name: str) -> str:
    """The name of the arm whose fine-tuning a defence has."""
    return _trained(study, name).name


def reference(study: Compared, task: str) -> str | None:
    """The arm whose utility his must come close to: the declared baseline, or full fine-tuning on the task."""
    if study.study.baseline:
        return study.study.baseline
    full = [name for name in study.full_on(task) if not study.arms[name].swept]
    return "full" if "full" in full else next(iter(full), None)


def places(study: Compared) -> list[str]:
    """The folder of every attacked model, below work/<study> and results/<study>."""
    attack = study.study.attack
    if attack is None:
        return []
    wanted = [(t, a) for t in attack.tasks for a in attack.arms]
    return [f"{f}attack/{t}/{a}/seed{s}" for f in study.folders for t, a in wanted for s in study.study.seeds]


def untuned(study: Compared) -> list[str]:
    """The folder of every model of the same arms, tasks and seeds as the study trains them."""
    return [place.replace("attack/", "", 1) for place in places(study)]


def references(study: Compared) -> list[str]:
    """The folder of every model whose utility an attacker is held to."""
    attack = study.study.attack
    wanted = [(t, reference(study, t)) for t in attack.tasks] if attack else []
    return [f"{f}{t}/{a}/seed{s}" for f in study.folders for t, a in wanted for s in study.study.seeds]
