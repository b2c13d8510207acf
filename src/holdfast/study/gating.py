"""Can a gate of this size ship anything? Refused before training where it never can, said where it hardly can.

n prompts without a single loss leave a loss of 1 - level^(1/n) possible, so that below log(level) / log(1 - margin) of
them no answers are good enough; a few seeds or replicates, which know little of others, need more. How often an arm
passes that loses nothing depends on how many prompts it answers otherwise than what it is held against, as many better
as worse. How many rows a task of the harness has is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from holdfast import limits, names
from holdfast.data.sources import WORLD
from holdfast.errors import StudyError
from holdfast.study import replicates
from holdfast.study.asked import Gate
from holdfast.study.resolve import Resolved

# Shares of prompts that are answered differently: by an arm that changed little, and as `holdfast plan` takes it.
DISCORDANT = (0.05, 0.2)
SMALL = 0.5  # a power below it is worth a line
_SETS = {"refusals": (names.HAZARD,), "wrapped": (names.WRAPPED,), "over_refusal": names.BENIGN}


@dataclass(frozen=True)
class Asked:
    """What a criterion of the gate is asked: how many prompts or rows, and which setting says so."""

    criterion: str
    margin: float
    prompts: int
    setting: str


def asked(study: Resolved, counted: Mapping[str, int] | None = None) -> list[Asked]:
    """What every criterion is asked, at most: of files that have not been read `prompts_per_set`.

    Args:
        counted: prompts of the evaluated split by set, of wordings of one prompt only one, where a file was read.
    """
    gate, of = study.study.gate or Gate(), study.study.evaluation
    out = []
    for criterion, sets in _SETS.items():
        # The world's benign sets share it; every suite has so many of each.
        whole = of.prompts_per_set * (1 if of.source == WORLD else len(sets) * max(len(of.suites), 1))
        prompts = whole if counted is None else sum(counted.get(name, 0) for name in sets)
        if criterion in gate.margins and (prompts or criterion in gate.model_fields_set):
            out.append(Asked(criterion, gate.margins[criterion], prompts, "evaluation.prompts_per_set"))
    for task in study.asked_tasks() if "utility" in gate.margins and study.baselines() else ():
        key = f"{of.split}_rows"
        rows = getattr(study.study.tasks[task], key)
        out.append(Asked("utility", gate.margins["utility"], rows, f"tasks.{task}.{key}"))
    return out


def refuse(study: Resolved, counted: Mapping[str, int] | None = None) -> None:
    """Refuse a gate that no arm can pass, whatever it answers.

    Raises:
        StudyError: names the criterion, how many prompts it has and how many it takes.
    """
    gate = study.study.gate
    if gate is None:
        return
    units, drawn = _drawn(study)
    for one in asked(study, counted):
        least = limits.least_prompts(one.margin, gate.level, units)
        if one.prompts < least:
            raise StudyError(
                f"{study.path}: gate.{one.criterion} can never be met by so few prompts.",
                found=f"{one.prompts} ({one.setting}){drawn}; margin {one.margin:g}, level {gate.level:g}",
                expected=f"at least {least:,}: fewer cannot rule a larger loss out even where nothing is lost",
                do=f"raise {one.setting} well above {least:,}, or the margin, or say gate.{one.criterion}: off"
                + ("; more draws need fewer prompts" if units > 1 else ""),
            )  # fmt: skip


def _drawn(study: Resolved) -> tuple[int, str]:
    """How many draws limits are over, and in words where there are several."""
    units = len(set(replicates.units(study.replicates)))
    units, what = (units, "replicates") if units > 1 else (len(study.study.seeds), "seeds")
    return units, f" and {units} {what}" if units > 1 else ""


def lines(study: Resolved, counted: Mapping[str, int] | None = None) -> Iterator[str]:
    """A line for every criterion in which an arm that loses nothing passes in less than half of studies.

    Takes it that units differ by the luck of their answers only: where they differ more, fewer pass.
    """
    gate = study.study.gate
    if gate is None:
        return
    units, drawn = _drawn(study)
    for one in asked(study, counted):
        few, many = (limits.limits_without_loss(one.prompts, discordant=d, units=units) for d in DISCORDANT)
        shares = [of.power(-one.margin, gate.level) for of in (few, many)]
        if min(shares) < SMALL:
            needed, _ = many.needed(-one.margin, gate.level)
            yield (
                f"gate.{one.criterion}: with {one.prompts} prompts ({one.setting}){drawn} an arm that loses nothing "
                f"passes in about {shares[0]:.0%} of studies if it answers a twentieth of them differently, in "
                f"{shares[1]:.0%} if a fifth" + (f"; with {needed:,} in 80%" if needed else "")
            )
