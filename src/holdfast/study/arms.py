"""From the arms of a study file to what a cell runs: methods' settings checked, sweeps spread out, choices applied."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from holdfast.errors import MethodError, StudyError, meant
from holdfast.study import registry
from holdfast.study.checked import Strict
from holdfast.study.keys import GIVEN, Arm, Study
from holdfast.study.reading import check_known, from_pydantic, unknown_key


def number(value: float) -> str:
    """A number in a file name: short, and never the same for two numbers.

    >>> number(0.1), number(1.0), number(0.1000001)
    ('0.1', '1', '0.1000001')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class MaskSpec(Strict):
    """Which coefficients are frozen: the settings that shape one mask file."""

    basis: Literal["safety", "random", "original", "output", "permuted"] = "safety"
    scores: Literal["importance", "random"] = "importance"
    unit: Literal["entry", "column", "row"] = "entry"
    threshold: Literal["layer", "model"] = "layer"
    freeze_fraction: float = Field(0.1, gt=0, lt=1)
    rank_fraction: float = Field(1.0, gt=0, le=1)
    minus_task: str | None = None

    @property
    def name(self) -> str:
        """The name of the mask file, made of these settings.

        >>> MaskSpec(freeze_fraction=0.3, threshold="model").name
        'safety-importance-entry-model-0.3'
        """
        model = "-model" if self.threshold == "model" else ""
        rank = f"-rank-{number(self.rank_fraction)}" if self.rank_fraction < 1 else ""
        task = f"-minus-{self.minus_task}" if self.minus_task else ""
        return f"{self.basis}-{self.scores}-{self.unit}{model}-{number(self.freeze_fraction)}{rank}{task}"


class Directions(Strict):
    """Which leading directions of the safety activations are held: the settings that shape one file."""

    share: float = Field(0.3, gt=0, le=1)
    energy: float | None = Field(None, gt=0, le=1)
    every: bool = False  # linear module, not the target modules alone

    @property
    def name(self) -> str:
        """The name of the file, made of these settings.

        >>> Directions().name, Directions(energy=0.99, every=True).name
        ('leading-0.3', 'leading-energy-0.99-all')
        """
        size = number(self.share) if self.energy is None else f"energy-{number(self.energy)}"
        return f"leading-{size}{'-all' if self.every else ''}"


class NeuronSpec(Strict):
    """Which neurons are protected (SN-Tune, RSN-Tune): the settings that shape one mask file."""

    fraction: float = Field(0.2, gt=0, lt=1)
    frequency: float = Field(0.9, gt=0, le=1)
    samples: int = Field(100, ge=1)
    robust: bool = False
    detection: Literal["paper", "code"] = "paper"

    @property
    def counts(self) -> list[str]:
        """Names of the count files it is built from: over refusals, and over general text."""
        kinds = ["safety", *(["foundation"] if self.robust else [])]
        scores = "-code" if self.detection == "code" else ""
        return [f"{kind}{scores}-{number(self.fraction)}-{self.samples}" for kind in kinds]

    @property
    def name(self) -> str:
        """The name of the mask file, made of these settings."""
        robust, scores = "-robust" if self.robust else "", "-code" if self.detection == "code" else ""
        return f"neurons{scores}-{number(self.fraction)}-{number(self.frequency)}-{self.samples}{robust}"


class ResolvedArm(Strict):
    """An arm after sweeps and choices: one method with checked settings, one learning rate per task."""

    name: str
    family: str
    method: str
    settings: dict[str, dict[str, Any]]  # by task
    learning_rates: dict[str, float | None]  # by task; of a model that is given nobody knows it
    swept: dict[str, Any]
    targets: tuple[str, ...] | None = None
    basis: str | None = None
    masks: dict[str, MaskSpec] = {}  # by task
    directions: dict[str, Directions] = {}  # by task
    neurons: NeuronSpec | None = None
    kind: str = "train"
    of: str | None = None
    roles: tuple[str, ...] = ()
    gram: str | None = None  # a kind of names.GRAMS
    preferences: bool = False
    across_tasks: bool = False
    imports: tuple[str, ...] = ()
    given: dict[str, str] = {}  # by task: where its models are, perhaps with {seed}
    revision: str | None = None
    fixed: bool = False  # its models, or what they are merged from, are given: the same in every replicate
    seeded: bool = True  # one model per seed, and not the same one for all


def _label(value: Any) -> str:
    return re.sub(r"[^a-z0-9.-]", "-", number(value) if isinstance(value, float) else str(value).lower())


SWEEP_SHORT = {"learning_rate": "lr", "freeze_fraction": "freeze"}


def resolve_arm(name: str, arm: Arm, study: Study, chosen: dict[str, Any], path: Path) -> list[ResolvedArm]:
    """One arm of the study file after its sweep: a resolved arm per combination of swept values.

    Args:
        chosen: arm -> task -> the learning rate and settings a sweep chose, used where the arm gives none.

    Raises:
        StudyError, MethodError: an unknown key, task, module or method, or a value out of range.
    """
    where = f"arms.{name}"
    if arm.given is not None:
        return [_given(name, arm, study, path)]
    try:
        head = registry.header(arm.method)
    except MethodError as error:
        raise MethodError(f"{path}: {where}: {error.what}", found=error.found, expected=error.expected,
                          do=error.do) from None  # fmt: skip
    extra = dict(arm.model_extra or {})
    tasks = list(arm.tasks or study.tasks)
    rated = arm.learning_rate if isinstance(arm.learning_rate, dict) else ()
    check_known([*tasks, *rated], study.tasks, path, where, "a task that the study does not have", "tasks")
    check_known(
        arm.targets or (), study.basis.modules, path, f"{where}.targets", "a module that basis.modules does not have",
        "basis.modules",
    )  # fmt: skip
    settings_model = registry.load(arm.method).Settings
    rate_given = arm.learning_rate is not None or "learning_rate" in arm.sweep
    if (head.kind == "merge" and rate_given) or (head.kind == "train" and arm.of):
        key = "learning_rate" if head.kind == "merge" else "of"
        raise StudyError(
            f"{path}: {where}.{key} means nothing for '{arm.method}'.",
            found=f"a method of kind {head.kind}",
            expected="`of` for merge methods, `learning_rate` for trained ones",
            do=f"remove it from {where}",
        )
    for key, swept_values in arm.sweep.items():
        if not swept_values:
            raise StudyError(
                f"{path}: {where}.sweep.{key} has no values.", found="[]", expected="at least one value",
                do=f"name values, or remove {where}.sweep.{key}",
            )  # fmt: skip
        odd = next((v for v in swept_values if not isinstance(v, str | int | float | bool)), ...)
        if odd is not ...:
            raise StudyError(
                f"{path}: {where}.sweep.{key} has a value that is no plain one.", found=repr(odd)[:80],
                expected="numbers or words", do=f"write each combination as an arm, or correct {where}.sweep.{key}",
            )  # fmt: skip
        if key not in ("learning_rate", *settings_model.model_fields):
            unknown_key(path, f"{where}.sweep.{key}", ["learning_rate", *settings_model.model_fields])
    out = []
    for values in itertools.product(*arm.sweep.values()):
        swept = dict(zip(arm.sweep, values, strict=True))
        raw = extra | {k: v for k, v in swept.items() if k != "learning_rate"}
        rates, settings, needs = {}, {}, {}
        for task in tasks:
            # An arm the sweep did not have takes the choice of the arm named like its method.
            pick = chosen.get(name, {}).get(task) or chosen.get(arm.method, {}).get(task) or {}
            try:
                settings[task] = settings_model.model_validate(pick.get("settings", {}) | raw)
            except ValidationError as error:
                raise from_pydantic(error, path, where, settings_model, arm) from None
            needs[task] = settings[task].artifacts()
            rate = swept.get("learning_rate", arm.learning_rate)
            rate = rate.get(task) if isinstance(rate, dict) else rate
            given = (r for r in (rate, pick.get("learning_rate"), head.learning_rate) if r is not None)
            rates[task] = _rate(next(given), path, where)
        first = needs[tasks[0]]
        suffix = "".join(f".{SWEEP_SHORT.get(k, k.replace('_', '-'))}-{_label(v)}" for k, v in swept.items())
        out.append(
            ResolvedArm(
                name=name + suffix,
                family=name,
                method=arm.method,
                settings={task: s.model_dump(mode="json") for task, s in settings.items()},
                learning_rates=rates,
                swept=swept,
                targets=arm.targets,
                basis=first.get("basis"),
                masks={task: _mask(n["mask"], task) for task, n in needs.items() if n.get("mask")},
                directions={t: Directions(**n["directions"]) for t, n in needs.items() if n.get("directions")},
                kind=head.kind,
                neurons=NeuronSpec(**first["neurons"]) if first.get("neurons") else None,
                of=(arm.of or "full") if head.kind == "merge" else None,
                imports=tuple(first.get("imports", ())),
                roles=tuple(sorted({r for n in needs.values() for r in n.get("roles", ())})),
                gram=next((n["gram"] for n in needs.values() if n.get("gram")), None),
                **{key: any(n.get(key, False) for n in needs.values()) for key in ("preferences", "across_tasks")},
            )
        )
    _refuse_one_name(out, path, where)
    _refuse_unread_targets(out, path, where)
    return out


def _given(name: str, arm: Arm, study: Study, path: Path) -> ResolvedArm:
    """An arm whose models are there. One model for all seeds counts once: it was trained with one of them."""
    named = dict(arm.given) if isinstance(arm.given, dict) else {}
    tasks = list(arm.tasks or named or study.tasks)
    check_known([*tasks, *named], study.tasks, path, f"arms.{name}", "a task that the study does not have", "tasks")
    if lost := [task for task in tasks if named and task not in named]:
        raise StudyError(
            f"{path}: arms.{name}.given names no model for the task {lost[0]}.", found=", ".join(named),
            expected=", ".join(tasks), do=f"name one, or limit arms.{name}.tasks",
        )  # fmt: skip
    sources = {task: str(named.get(task, arm.given)).replace("{task}", task) for task in tasks}
    return ResolvedArm(
        name=name, family=name, method=arm.method, kind=GIVEN, settings=dict.fromkeys(tasks, {}), swept={},
        learning_rates=dict.fromkeys(tasks), given=sources, revision=arm.revision, fixed=True,
        seeded=all("{seed}" in source for source in sources.values()),
    )  # fmt: skip


def _rate(value: Any, path: Path, where: str) -> float:
    """A learning rate, or StudyError."""
    rate = value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
    if not 0 < rate < 1:
        raise StudyError(
            f"{path}: {where}.learning_rate is out of range.",
            found=f"{value:g}" if rate == rate else repr(value)[:80], expected="a number between 0 and 1",
            do=f"correct {where}",
        )  # fmt: skip
    return float(rate)


def _refuse_one_name(arms: list[ResolvedArm], path: Path, where: str) -> None:
    """Two combinations of a sweep whose names would be one would also be one arm."""
    known: dict[str, ResolvedArm] = {}
    for arm in arms:
        if arm.name in known:
            raise StudyError(
                f"{path}: two points of {where}.sweep have one name, {arm.name}.",
                found=f"{known[arm.name].swept} and {arm.swept}"[:160], expected="values that give different names",
                do=f"remove one of them from {where}.sweep",
            )  # fmt: skip
        known[arm.name] = arm


def _refuse_unread_targets(arms: list[ResolvedArm], path: Path, where: str) -> None:
    """`targets` says which modules a constraint is on, or a training of modules only: nothing else reads it."""
    for arm in arms:
        constrained = arm.basis or arm.masks or arm.directions or arm.neurons
        only = any(s.get("trainable") == "targets" for s in arm.settings.values())
        if arm.targets and not (constrained or only):
            raise StudyError(
                f"{path}: {where}.targets means nothing for '{arm.method}' with these settings.",
                found=", ".join(arm.targets), expected="a method with a constraint, or `trainable: targets`",
                do=f"remove {where}.targets",
            )  # fmt: skip


def _mask(spec: dict[str, Any], task: str) -> MaskSpec:
    """The mask one cell needs; `minus_task: True` asks for this task's own."""
    return MaskSpec(**spec | {"minus_task": task if spec.get("minus_task") else None})


def with_source(arm: ResolvedArm, arms: Mapping[str, ResolvedArm], path: Path) -> ResolvedArm:
    """A merge arm with the learning rates of the arm it merges, and a model for every model of it."""
    key = f"arms.{arm.family}.of"
    trained = {k: a for k, a in arms.items() if a.kind != "merge"}
    source = trained.get(arm.of or "")
    if source is None:
        raise StudyError(
            f"{path}: {key} must name an arm of this study that is trained or given.",
            found=arm.of or "", expected=" | ".join(k for k, a in trained.items() if not a.swept) or "a trained arm",
            do=meant(arm.of or "", [k for k, a in trained.items() if not a.swept],
                     f"correct {key}; a point of a sweep cannot be merged, so add an arm with its settings"),
        )  # fmt: skip
    missing = sorted(set(arm.learning_rates) - set(source.learning_rates))
    if missing:
        raise StudyError(
            f"{path}: {key}: arm '{arm.of}' is not trained on every task of '{arm.family}'.",
            found=f"no {missing[0]}", expected=", ".join(source.learning_rates),
            do=f"limit arms.{arm.family}.tasks, or add the task to arms.{source.family}.tasks",
        )  # fmt: skip
    rates = {task: source.learning_rates[task] for task in arm.learning_rates}
    return arm.model_copy(update={"learning_rates": rates, "seeded": source.seeded, "fixed": source.fixed})
