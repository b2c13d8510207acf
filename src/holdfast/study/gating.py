"""Can a gate of this size ship anything? Refused before training where it never can, said where it hardly can.

n prompts without a single loss leave a loss of 1 - level^(1/n) possible, so that below log(level) / log(1 - margin) of
them no answers are good enough; a few seeds or replicates, which know little of others, need more. How often an arm
passes that loses nothing depends on how many prompts it answers otherwise than what it is held against, as many better
as worse. How many rows a task of the harness has is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast import limits, names
from holdfast.data.sources import WORLD
from holdfast.errors import StudyError
from holdfast.study import replicates
from holdfast.study.asked import Gate
from holdfast.study.resolve import Resolved
from holdfast.suites import published

# Shares of prompts that are answered differently: by an arm that changed little, and as `holdfast plan` takes it.
DISCORDANT = (0.05, 0.2)
SMALL = 0.5  # a power below it is worth a line
_SETS = {"refusals": (names.HAZARD,), "wrapped": (names.WRAPPED,), "over_refusal": names.BENIGN}
_OF_A_SUITE = ("refusals", "over_refusal")
# (suite, None for all of them; set) -> how many different prompts.
Counted = Mapping[tuple[str | None, str], int]


@dataclass(frozen=True)
class Asked:
    """What a criterion of the gate is asked: how many prompts or rows, and which setting says so."""

    criterion: str
    margin: float
    prompts: int
    setting: str
    part: str = ""  # what of the criterion, in words
    most: bool = False  # whether there are no more of them, whatever the setting says

    @property
    def words(self) -> str:
        """The key of the study, and which part of it."""
        return f"gate.{self.criterion}" + (f" ({self.part})" if self.part else "")


def counted(rows: Iterable[Mapping[str, Any]], suites: Collection[str]) -> Counted:
    """How many prompts there are, of wordings of one prompt only one counted: of rows of the evaluated split."""
    ids: defaultdict[tuple[str | None, str], set[str]] = defaultdict(set)
    for r in rows:
        for suite in (None, published.of(r["id"])) if suites else (None,):
            ids[suite, r["set"]].add(r["base_id"])
    return {key: len(found) for key, found in ids.items()}


def asked(study: Resolved, found: Counted | None = None) -> list[Asked]:
    """What every criterion is asked, at most: of files that have not been read `prompts_per_set`.

    Args:
        found: what was counted of the evaluated split, where files were read.
    """
    gate, of = study.study.gate or Gate(), study.study.evaluation
    out = []

    def ask(criterion: str, wanted: dict[str, int], suite: str | None = None, part: str = "") -> None:
        """Of every set so many prompts, if there are so many."""
        there = wanted if found is None else {name: found.get((suite, name), 0) for name in wanted}
        prompts, most = sum(there.values()), all(there[name] < n for name, n in wanted.items())
        if criterion in gate.margins and (prompts or (criterion in gate.model_fields_set and suite is None)):
            out.append(Asked(criterion, gate.margins[criterion], prompts, "evaluation.prompts_per_set", part, most))

    for criterion, sets in _SETS.items():
        if of.source == WORLD:  # whose benign sets share it
            ask(criterion, {sets[0]: of.prompts_per_set})
        else:
            ask(criterion, {name: of.prompts_per_set * study.prompt_sets(of.split, (name,)) for name in sets})
    for suite in study.suites if len(study.suites) > 1 else ():
        for criterion in _OF_A_SUITE:
            sets = tuple(name for name in _SETS[criterion] if name in published.sets(suite, of.split))
            ask("suites", dict.fromkeys(sets, of.prompts_per_set), suite, f"{criterion.replace('_', '-')} in {suite}")
    for task in study.asked_tasks() if "utility" in gate.margins and study.baselines() else ():
        key = f"{of.split}_rows"
        rows = getattr(study.study.tasks[task], key)
        out.append(Asked("utility", gate.margins["utility"], rows, f"tasks.{task}.{key}"))
    return out


def refuse(study: Resolved, found: Counted | None = None) -> None:
    """Refuse a gate that no arm can pass, whatever it answers.

    Raises:
        StudyError: names the criterion, how many prompts it has and how many it takes.
    """
    gate = study.study.gate
    if gate is None:
        return
    for one in asked(study, found):
        units, drawn = _drawn(study, one, gate.level, min)
        least = limits.least_prompts(one.margin, gate.level, units)
        if one.prompts < least:
            more = "there are no more to ask:" if one.most else f"raise {one.setting} well above {least:,}, or"
            raise StudyError(
                f"{study.path}: {one.words} can never be met by so few prompts.",
                found=f"{one.prompts} ({one.setting}){drawn}; margin {one.margin:g}, level {gate.level:g}",
                expected=f"at least {least:,}: fewer cannot rule a larger loss out even where nothing is lost",
                do=f"{more} raise the margin, or say gate.{one.criterion}: off"
                + ("; more draws need fewer prompts" if units > 1 else ""),
            )  # fmt: skip


def _drawn(study: Resolved, one: Asked, level: float, pick: Callable[..., int]) -> tuple[int, str]:
    """How many draws the limits of a criterion are over, and in words where there are several; of arms that differ in
    it those that take the fewest (`pick` is min) or most prompts."""
    replicated = len(set(replicates.units(study.replicates)))

    def of(name: str) -> int:
        """How many models of an arm are draws of their own: what is given is the same in every replicate."""
        arm = study.arms[name]
        return replicated if replicated > 1 and not arm.fixed else len(study.study.seeds) if arm.seeded else 1

    baselines, gate = study.baselines(), study.study.gate
    named = gate.arm if gate else None
    judged = [named] if named else [name for name, a in study.arms.items() if not a.swept and name not in baselines]
    beside = max(map(of, baselines)) if one.criterion == "utility" else 1
    units = pick({max(of(name), beside) for name in judged}, key=lambda n: limits.least_prompts(one.margin, level, n))
    return units, f" and {units} {'replicates' if replicated > 1 else 'seeds'}" if units > 1 else ""


def lines(study: Resolved, found: Counted | None = None) -> Iterator[str]:
    """A line for every criterion in which an arm that loses nothing passes in less than half of studies.

    Takes it that units differ by the luck of their answers only: where they differ more, fewer pass.
    """
    gate = study.study.gate
    if gate is None:
        return
    for one in asked(study, found):
        units, drawn = _drawn(study, one, gate.level, max)
        few, many = (limits.limits_without_loss(one.prompts, discordant=d, units=units) for d in DISCORDANT)
        shares = [of.power(-one.margin, gate.level) for of in (few, many)]
        if min(shares) < SMALL:
            needed, _ = many.needed(-one.margin, gate.level)
            yield (
                f"{one.words}: with {one.prompts} prompts ({one.setting}){drawn} an arm that loses nothing "
                f"passes in about {shares[0]:.0%} of studies if it answers a twentieth of them differently, in "
                f"{shares[1]:.0%} if a fifth" + (f"; with {needed:,} in 80%" if needed else "")
            )
