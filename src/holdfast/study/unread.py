"""What of a study is not as whoever wrote it may think? Settings that nothing reads, because of where its models and
rows come from, and learning rates that were left to defaults of another model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator

from pydantic import BaseModel

from holdfast.data.sources import PUBLISHED, WORLD
from holdfast.study import registry
from holdfast.study.structure import Structure

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


def lines(resolved: Structure) -> Iterator[str]:
    """A line for every source, arm and missing reader that leaves settings unread, for fewer rows than asked, and for
    the arms whose learning rate nobody named though their model is not the tiny one."""
    study = resolved.study
    base, judge = study.base, study.constitution
    if study.has_base:
        yield from _line("base", base, {"revision"} if base.source == "tiny" else _TINY)
    if study.aligned:
        why = "aligned has training of its own" if study.aligned.training else "aligned is given"
        yield from _line("safety", study.safety, {"training"}, why)
    if study.unaligned.source:
        yield from _line("unaligned", study.unaligned, {"rows", "training"}, "unaligned is given")
    parts: list[tuple[str, BaseModel]] = [("safety", study.safety), ("evaluation", study.evaluation)]
    parts += [("preferences", study.preferences)] if resolved.pairs_are_read else []
    for name, part in parts:
        from_world = part.source == WORLD  # type: ignore[attr-defined]
        published = part.source in PUBLISHED  # type: ignore[attr-defined]
        unread = (
            {"columns", "check", "keep", "refusals", "questions", "without"}
            if from_world
            else {"columns"}
            if published
            else set()
        )
        yield from _line(name, part, unread)
    if study.evaluation.backend == "vllm":
        yield from _line("evaluation", study.evaluation, {"batch_size"}, "vLLM makes its own batches")
    else:
        yield from _line("evaluation", study.evaluation, {"vllm"}, "evaluation.backend is transformers")
    if study.safety.benign_answers == "given":
        yield from _line("safety", study.safety, {"benign_prompts", "benign_max_new_tokens"}, "benign_answers is given")
    if "constitution" in study.evaluation.judges and judge.source != "train":
        yield from _line("constitution", judge, _TRAINED_JUDGE)
    if "constitution" not in study.evaluation.judges:
        unread = set(type(judge).model_fields) - {"guidelines_file"}  # which is always known
        yield from _line("constitution", judge, unread, "evaluation.judges has no constitution")
    rounded = any(r.instructions != "native" for r in resolved.replicates)
    if rounded and os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        yield "replicates.instructions: nothing rounds otherwise, since ATEN_CPU_CAPABILITY is default for all jobs"
    if "unaligned" not in resolved.roles:
        yield from _line(
            "unaligned", study.unaligned, set(type(study.unaligned).model_fields), "no arm needs that model"
        )
    if not resolved.pairs_are_read:
        unread = set(type(study.preferences).model_fields)
        yield from _line("preferences", study.preferences, unread, "nothing learns from pairs")
    for name, task in study.tasks.items():
        yield from _line(f"tasks.{name}.training", task.training, {"learning_rate"}, "arms bring their own")
    for key, wanted, there, what in (
        ("basis.rows", study.basis.rows, study.safety.hazards, "safety.hazards"),
        ("unaligned.rows", study.unaligned.rows if resolved.trains_twin else 0, study.preferences.rows,
         "preferences.rows"),
    ):  # fmt: skip
        if wanted > there:
            yield f"{key}: {wanted} asked for, more than the {there} of {what}: as many are taken as there are"
    yield from _few(resolved)
    yield from _of_arms(resolved)
    for name, arm in study.arms.items():
        own, alike = (resolved.chosen.get(key, {}) for key in (name, arm.method))
        rated = {t for t in arm.tasks or study.tasks if "learning_rate" in (own.get(t) or alike.get(t) or {})}
        if isinstance(arm.learning_rate, dict) and (
            left := set(arm.tasks or study.tasks) - set(arm.learning_rate) - rated
        ):
            yield f"arms.{name}.learning_rate names no {', '.join(sorted(left))}: the method's is taken"
    if study.foundation.source != "tiny":
        yield from _unnamed(resolved)
    if judge.prompt_file:
        yield from _line("constitution", judge, {"guidelines_file"}, "prompt_file is given")
    if not study.capabilities.tasks:
        yield from _line(
            "capabilities", study.capabilities, set(type(study.capabilities).model_fields), "it has no tasks"
        )


def _of_arms(resolved: Structure) -> Iterator[str]:
    """Settings of arms that their others switch off, at every point of a sweep; and points that are one model."""
    for family in dict.fromkeys(a.family for a in resolved.arms.values() if not a.given):
        written, known = set(resolved.study.arms[family].model_extra or {}), dict[str, str]()
        for a in (a for a in resolved.arms.values() if a.family == family):
            model, read = registry.load(a.method).Settings, {}
            for task, settings in a.settings.items():
                unread = model.model_validate(settings).unread()
                written &= unread
                read[task] = {k: v for k, v in settings.items() if k not in unread}, a.learning_rates[task]
            first = known.setdefault(repr(read), a.name)
            if first != a.name:
                yield f"arms.{family}.sweep: {first} and {a.name} are one model: nothing reads what they differ in"
        if written:
            yield f"{', '.join(f'arms.{family}.{key}' for key in sorted(written))}: not read beside its other settings"


def _few(resolved: Structure) -> Iterator[str]:
    """Shares of the task's rows that are added from safety rows or pairs, where there are not as many, or that come to
    none."""
    study, said = resolved.study, set()
    counted: Callable[[float], int]  # how a share becomes rows
    for arm in [a for a in resolved.arms.values() if a.kind == "train"]:
        method = registry.load(arm.method)
        for task, settings in arm.settings.items():
            unread = method.Settings.model_validate(settings).unread()
            for key in [k for k in settings if (k.endswith("ratio") or k == "mix") and k not in unread]:
                of = "benign" if key.startswith("benign") else "hazards"
                pool, there, counted = f"safety.{of}", getattr(study.safety, of), math.floor
                if "preferences" in method.NEEDS:
                    pool, there, counted = "preferences.rows", study.preferences.rows, round
                rows = settings[key] * study.tasks[task].train_rows
                wanted, one = round(rows), settings.get("count") == "round"  # which is one row at least
                if rows and not counted(rows) and not one and (arm.name, key, task) not in said:
                    said.add((arm.name, key, task))
                    share = f"{settings[key]:g} of the rows of {task}"
                    yield f"arms.{arm.name}.{key}: {share} is less than one: none is added"
                if wanted > there and (arm.family, key, task) not in said:
                    said.add((arm.family, key, task))
                    yield (
                        f"arms.{arm.family}.{key}: {wanted} rows asked for on {task}, more than the {there} of {pool}: "
                        "as many are taken as there are"
                    )


def _unnamed(resolved: Structure) -> Iterator[str]:
    """Learning rates that were chosen for the tiny model, and mostly are too high for larger ones."""
    study = resolved.study
    by_default = [
        f"arms.{name} {', '.join(sorted({f'{r:g}' for r in arm.learning_rates.values() if r is not None}))}"
        for name, arm in resolved.arms.items()
        if arm.kind == "train" and study.arms[arm.family].learning_rate is None
        and "learning_rate" not in arm.swept and not study.chosen
    ]  # fmt: skip
    safety = study.safety
    written = "training" in safety.model_fields_set and "learning_rate" in safety.training.model_fields_set
    if study.aligned is None and not written:
        by_default.insert(0, f"safety.training {safety.training.learning_rate:g}")
    if by_default:
        yield f"learning_rate: none is named, and what is taken was chosen for the tiny model: {'; '.join(by_default)}"


def _line(name: str, part: BaseModel, unread: set[str], why: str = "") -> Iterator[str]:
    """Of the settings that are not read those that the study writes down."""
    said = sorted(unread & part.model_fields_set)
    if said:
        keys = ", ".join(f"{name}.{key}" for key in said)
        yield f"{keys}: not read, since {why or f'{name}.source is {part.source}'}"  # type: ignore[attr-defined]
