"""docs/which-remedy.md: what every remedy kept, cost, needs and failed at, from the result files below docs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.compare.stress import PLAIN
from holdfast.documents.cited import written
from holdfast.documents.tables import TASKS, table
from holdfast.record import csvfiles
from holdfast.study import registry

Row = dict[str, Any]
HEAD = """\
# Which remedy?

Written by `holdfast documents` from result files; no number here is typed. Percent of hazards refused, with 95 %
intervals where they are shown.

1. **Is the fine-tune finished, or may its training not be touched?** Then only the second table is yours.
   `holdfast realign` does one of them, without a study: [your own model](own-models.md#one-merge-without-a-study).
2. **What have you got?** [What each needs](#what-each-needs-and-costs-and-when-it-failed) beside the aligned model is a
   column of the last table; [what needs no safety data](#without-safety-data) has one of its own. Refusals are prompts
   with answers that decline, published ones or your own, not the data that your model was aligned with. A twin is the
   aligned model, taught on purpose not to refuse.
3. **Must it stay an adapter?** {adapters} All others change whole weights.
4. **How will it answer?** Sampled, what stayed near the aligned model may lose the task: in the fictional world it did,
   the real model did not. An opening in its mouth takes the refusals of all of them
   ([what deployment does](stress.md)).
5. **Who chooses the rows?** If somebody may slip harmful rows in, look at the column with 1 % of them first: no remedy
   here holds where half of the rows are harmful ([results](results.md#how-cheaply-is-safety-lost)).
6. **Look at over-refusal beside refusal.** A model that refuses everything has kept its refusals.
7. **Then try it on your model.** These are a tiny model of a made-up world and one real model of 135 M parameters,
   aligned once and fine-tuned three times. `holdfast gate` says of yours: ship, do not, or not resolved
   ([the gate](gate.md)).

*World* is the mean of refusals over all utilities from none to full fine-tuning's, three replicates
([curves.csv](demo/curves.csv), [curves-methods.csv](demo/curves-methods.csv), [what that means](curves.md)); of
`task-vectors` with its defaults, which are TIES. *1 % harmful* is one seed of crafts
([risk.csv](demo/risk.csv)). *Real* is SmolLM2-135M-Instruct fine-tuned on headlines three times from one aligned
model ([table.csv](real/table.csv), [the page](real/README.md)); utility is beside full fine-tuning, in points.
"""
WITHOUT = """
## Without safety data

None of these reads a refusal, or a pair; a `merge` is made of finished models. The twin of the real model has only
unlearned to refuse requests of the fictional world; one is made so, too, where a study names none
([its keys](../config/README.md#unaligned)). Before you choose one of them: published refusals are a name in a study
(`safety: {{source: safe-instr}}`), and requests alone will do, with answers in our words (`refusals: written`):
[safety data](../config/README.md#safety).
{table}
An empty cell was not run.
"""
REFUSALS = "refusals"
NEEDS = dict.fromkeys(("safety", "basis", "gram", "mask", "directions", "neurons"), REFUSALS) | {
    "preferences": "pairs of a refusal and a harmful answer", "base": "the base model before safety training",
    "unaligned": "an unaligned twin",
}  # fmt: skip
NOT_REMEDIES = ("full", "lora")
TITLES = {"train": "You still train", "merge": "The fine-tune is finished"}
HALF = 0.5
AS = {"ties": "task-vectors"}  # an arm that is called otherwise than the method whose defaults it has
FAILED = ("does not hold", "not resolved")


def _rows(docs: Path, name: str) -> list[Row]:
    return csvfiles.read_csv(docs / name)


def _shown(row: Row | None, key: str, form: str = "rate") -> str:
    if row is None or not row.get(key):
        return ""
    number, interval = written(row, key, form)
    ends = interval.strip(" []").replace(", ", "…")
    return number.removesuffix(" %") + (f" <sub>{ends}</sub>" if ends else "")


class Measured:
    """What the result files say of a method, by the arm that is named like it."""

    def __init__(self, docs: Path) -> None:
        curves, risk = (
            _rows(docs, "demo/curves-methods.csv") + _rows(docs, "demo/curves.csv"),
            _rows(docs, "demo/risk.csv"),
        )
        self.area = {(r["family"], r["task"]): r for r in curves if r["measure"] == "area"}
        self.area |= {(AS.get(name, name), task): row for (name, task), row in self.area.items()}
        self.risky = {r["arm"]: r for r in risk if r["task"] == "harmful-1"}
        self.real = {(r["arm"], r["task"]): r for r in _rows(docs, "real/table.csv")}
        self.demo = {(r["arm"], r["task"]): r for r in _rows(docs, "demo/replicated.csv")}
        self.stress = {(r["arm"], r["task"], r["stress"]): r for r in _rows(docs, "demo/stress.csv")}
        self.claims = [
            (where, r)
            for where, file in (("world", "demo/replicated-claims.csv"), ("real", "real/claims.csv"))
            for r in _rows(docs, file)
        ]

    def has(self, name: str) -> bool:
        """Whether any of the files knows it."""
        return any((name, t) in self.area or (name, t) in self.demo for t in TASKS) or (name, "agnews") in self.real

    def kept(self, name: str) -> float:
        """What remedies are ordered by: the mean of what is known of the fictional world and of the real model."""
        world = [float(r["refusal"]) for t in TASKS if (r := self.area.get((name, t)))]
        real = [float(r[names.REFUSAL_RATE])] if (r := self.real.get((name, "agnews"))) else []
        known = world + real
        return sum(known) / len(known) if known else -1.0

    def line(self, name: str) -> list[str]:
        """Its row of numbers."""
        real = self.real.get((name, "agnews"))
        return [
            f"[`{name}`](methods.md#{name})",
            *(_shown(self.area.get((name, t)), "refusal") for t in TASKS),
            _shown(self.risky.get(name), names.REFUSAL_RATE, "%"),
            _shown(real, names.REFUSAL_RATE), _shown(real, names.OVER_REFUSAL, "%"),
            _shown(real, "utility_minus_full", "points"),
        ]  # fmt: skip

    def failures(self, name: str) -> list[str]:
        """When it failed, in words."""
        said = []
        for task, word in TASKS.items():
            row = self.area.get((name, task))
            if row and float(row["refusal"]) < HALF:
                said.append(f"{word}: keeps {' '.join(written(row, 'refusal', '%')).strip()} of the refusals")
            over, aligned = self.demo.get((name, task)), self.demo["aligned", task]
            if over and float(over[f"{names.OVER_REFUSAL}_low"]) > float(aligned[f"{names.OVER_REFUSAL}_high"]):
                said.append(
                    f"{word}: refuses {''.join(written(over, names.OVER_REFUSAL, 'rate'))} of harmless requests"
                )
            plain, hot = (self.stress.get((name, task, s)) for s in (PLAIN, "hot"))
            if plain and hot and float(hot["utility_high"]) < HALF * float(plain["utility_low"]):
                now, was = "".join(written(hot, "utility", "rate")), written(plain, "utility", "%")[0]
                said.append(f"{word}: {now} utility when [sampled](stress.md), greedily {was}")
        for where, r in self.claims:
            if r["arm"] != name or r["compared_with"] not in NOT_REMEDIES or r["verdict"] not in FAILED:
                continue
            place = TASKS[r["task"]] if where == "world" else f"the real model on {r['task']}"
            effect = "".join(written(r, "effect", "points"))
            if r["kind"] == "utility" and r["verdict"] == "does not hold":
                said.append(f"{place}: {effect} points of utility")
            if r["kind"] == "refusal":
                said.append(f"{place}: more refusals than `{r['compared_with']}` is {_verdict(r)}, {effect} points")
        return said


def _verdict(claim: Row) -> str:
    return "refuted" if claim["verdict"] == "does not hold" else "not resolved"


def _needs(head: registry.Header) -> str:
    """What a method needs at its default settings."""
    made = registry.load(head.name).Settings().artifacts()
    roles = made.get("roles", head.needs)
    asked = [n for n in (*head.needs, *(k for k, v in made.items() if v)) if n in NEEDS and n not in names.ROLES]
    return "; ".join(dict.fromkeys(NEEDS[n] for n in [*asked, *roles] if n in NEEDS)) or "nothing else"


def _section(kind: str, heads: Sequence[registry.Header], found: Measured) -> str:
    known = sorted((h.name for h in heads if h.kind == kind and found.has(h.name)), key=lambda n: -found.kept(n))
    titles = ["remedy", *(f"world: {w}" for w in TASKS.values()), "1 % harmful", "real: refused", "real: over-refusal",
              "real: utility"]  # fmt: skip
    lines = [found.line("full"), *(found.line(n) for n in known)]
    return f"\n## {TITLES[kind]}\n{table(titles, lines)}"


def _without(heads: Sequence[registry.Header], found: Measured) -> str:
    """The remedies that read no safety data; merges first."""
    free = [h for h in heads if not {REFUSALS, NEEDS["preferences"]} & set(_needs(h).split("; "))]
    lines = []
    for h in sorted(free, key=lambda h: (h.kind == "train", -found.kept(h.name))):
        name, *world, _, refused, over, utility = found.line(h.name)
        lines.append([name, h.kind, _needs(h).partition(" before")[0], *world, refused, over, utility])
    titles = ["remedy", "kind", "needs", *(f"world: {w}" for w in TASKS.values()),
              "real: refused", "real: over-refusal", "real: utility"]  # fmt: skip
    return WITHOUT.format(table=table(titles, lines, words=3))


def _link(name: str) -> str:
    return f"[`{name}`](methods.md#{name})"


def _adapters() -> str:
    """Which methods leave a low-rank update, by the hooks that they have."""

    def having(hook: str) -> str:
        hooks = {n: registry.method_file(n).read_text(encoding="utf-8") for n in registry.method_names()}
        return ", ".join(_link(n) for n, text in hooks.items() if f"\ndef {hook}(" in text)

    return f"{having('low_rank')} train one; {having('merge_factor')} of an adapter gives one back."


def page(docs: Path) -> str:
    """The text of docs/which-remedy.md."""
    found = Measured(docs)
    heads = [registry.header(n) for n in registry.method_names() if n not in NOT_REMEDIES]
    known = sorted((h for h in heads if found.has(h.name)), key=lambda h: (h.kind != "train", -found.kept(h.name)))
    facts = table(
        ["remedy", "needs beside the aligned model", "costs", "failed here"],
        [[f"[`{h.name}`](methods.md#{h.name})", _needs(h), h.card["cost"].replace("|", r"\|"),
          "; ".join(found.failures(h.name)) or "not seen to fail in these studies"] for h in known],
        words=4,
    )  # fmt: skip
    rest = "\n".join(f"- {_link(h.name)} needs {_needs(h)}" for h in heads if not found.has(h.name))
    return (
        f"{HEAD.format(adapters=_adapters())}{''.join(_section(kind, heads, found) for kind in TITLES)}\n"
        "The first line is full fine-tuning, without a remedy. An empty cell was not run: lines are ordered by the\n"
        "mean of what is known, so that who was not asked where others lost stands higher than it may deserve.\n"
        f"{_without(heads, found)}"
        f"\n## What each needs and costs, and when it failed\n{facts}"
        "\n## Here, and not compared yet\n\nTheir equations are tested. What the others did over several draws or on "
        "the real model is not known of them; most ran [once, with settings that nothing chose]"
        f"(results.md#every-other-method-once). Beside the aligned model:\n\n{rest}\n"
    )
