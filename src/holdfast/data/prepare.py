"""Stage data preparation: world, hub or a user's file -> validated tables with disjoint splits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast import data, names
from holdfast.data import draws, fetch, leaks, questions, sources, table, wording, written
from holdfast.data.sources import SUITES
from holdfast.errors import DataError
from holdfast.names import SPLITS
from holdfast.suites import published
from holdfast.world.generator import World

Row = dict[str, Any]
Say = Callable[[str], None]
Reads = Callable[[str, str], bool]  # what a judge says of a request and its answer
GIVEN = "given"  # of a row whose prompt became a question: the prompt before, which no table has


def _nobody(_: str) -> None:
    """Tell nobody."""


def safety_rows(cfg: dict[str, Any], say: Say = _nobody, refuses: Reads | None = None) -> list[Row]:
    """Rows of the safety table: the world's, or the user's file with prompt, response and kind. Of more rows than are
    asked for, the first; another `draw` takes others, and in another order. Without benign rows where the base answers
    those itself.

    Args:
        say: is told, in a line each, what was taken as what because the file does not say.
        refuses: says of a request and its answer whether that is a whole refusal; `keep: refusals` needs it.
    """
    benign = 0 if cfg.get("benign_answers") == "self" else cfg["benign"]
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).safety(cfg["hazards"], benign, cfg.get("draw", 0))
    raw = fetch.records(cfg["source"], cfg["columns"])
    wording.refuse_hidden(raw, cfg["source"], "kind", "safety")
    rows = wording.worded(raw, cfg["source"], unnamed)
    if cfg.get("refusals") == "written":
        for r in rows:
            if r["kind"] == names.HAZARD:
                r["response"] = written.refusal(str(r.get("prompt", "")), cfg.get("draw", 0))
    wording.taken(say, raw, "kind", cfg["source"], "a refused request (hazard)")
    kept = without(fetch.checked(rows, "safety", cfg["source"]), cfg)
    left = 0  # of the requests to refuse, by `keep`
    if cfg.get("keep") == "refusals" and refuses is not None:
        read = [r for r in kept if r["kind"] != names.HAZARD or refuses(r["prompt"], r["response"])]
        hazards = sum(r["kind"] == names.HAZARD for r in kept)
        left = len(kept) - len(read)
        say(f"{cfg['source']}: {hazards - left} of {hazards} answers are whole refusals (safety.keep)")
        kept = read
    parts = {
        "refused requests": (cfg["hazards"], [r for r in kept if r["kind"] == names.HAZARD], "safety.hazards"),
        "answered requests": (benign, [r for r in kept if r["kind"] != names.HAZARD], "safety.benign"),
    }
    out = []
    for what, (count, found, key) in parts.items():
        if draw := cfg.get("draw", 0):
            found = random.Random(f"holdfast-safety-{draw}").sample(found, len(found))
        if not found and what == "refused requests":
            raise _nothing_refused(cfg, kept, left)
        if len(found) > count:
            say(f"{cfg['source']}: {f'draw {draw}, ' if draw else 'the first '}{count} of {len(found)} {what} ({key})")
        ask = cfg.get("questions", 0) if what == "refused requests" else 0
        out += _questions(found[:count], ask, draw, say) if ask else found[:count]
    return out


def _nothing_refused(cfg: dict[str, Any], kept: list[Row], left: int) -> DataError:
    if left:
        found, do = f"{left} requests whose answer is no whole refusal", (
            "set safety.keep to all, safety.refusals to written, or name refusals"
        )  # fmt: skip
    elif kept or not cfg.get("without"):
        found, do = ", ".join(sorted({r["kind"] for r in kept})), "add them, or correct the column `kind`"
    else:
        found, do = "every row in safety.without", "leave fewer out"
    return DataError(
        f"{cfg['source']}: no row is a refused request, which safety training and every basis are made of.",
        found=found, expected="rows of the kind hazard" + (", answered with whole refusals" if left else ""), do=do,
    )  # fmt: skip


def unnamed(i: int) -> dict[str, str]:
    """What a safety row is that does not say it."""
    return {"id": f"safety/{i:05d}", "kind": names.HAZARD, "category": "user"}


def without(rows: list[Row], cfg: dict[str, Any]) -> list[Row]:
    """The rows that the study does not leave out."""
    named = cfg.get("without", [])
    if unknown := [name for name in named if name not in {r["id"] for r in rows}]:
        raise DataError(
            f"safety.without names a row that {cfg['source']} does not have.", found=repr(unknown[0]),
            expected=f"ids like {', '.join(r['id'] for r in rows[:3])}", do="correct safety.without",
        )  # fmt: skip
    return [r for r in rows if r["id"] not in named]


def _questions(rows: list[Row], share: float, draw: int, say: Say) -> list[Row]:
    """The rows, of which a share is asked as a question where that can be done, and then keeps what was given."""
    rng, out = random.Random(f"holdfast-questions-{draw}"), []
    for r in rows:
        question = questions.asked(r["prompt"], draw) if rng.random() < share else None
        out.append(r | {"prompt": question, GIVEN: r["prompt"]} if question else r)
    changed = sum(a["prompt"] != b["prompt"] for a, b in zip(rows, out, strict=True))
    say(f"{changed} of {len(rows)} refused requests are asked as questions (safety.questions)")
    return out


def trained_on(rows: Sequence[Row]) -> list[Row]:
    """What is looked for in safety rows as trained on: their prompts, and those that became questions."""
    return [*rows, *(r | {"prompt": r[GIVEN]} for r in rows if GIVEN in r)]


def preference_rows(cfg: dict[str, Any], say: Say = _nobody) -> list[Row]:
    """Preference pairs: the world's, or the user's file with prompt, chosen, rejected."""
    if cfg["source"] == "world":
        return World(cfg["world"]["seed"]).preferences(cfg["rows"])
    raw = fetch.records(cfg["source"], cfg["columns"])
    rows = wording.worded(raw, cfg["source"], lambda i: {"id": f"preference/{i:05d}", "category": "user"})
    found = fetch.checked(rows, "preferences", cfg["source"])
    if len(found) > cfg["rows"]:
        say(f"{cfg['source']}: the first {cfg['rows']} of {len(found)} pairs (preferences.rows)")
    return found[: cfg["rows"]]


def prompt_rows(cfg: dict[str, Any], say: Say = _nobody) -> list[Row]:
    """Evaluation prompts, validation and test: the world's, or the user's file with set and prompt, of every set and
    split the first `prompts_per_set`.

    A user's `set` may also be a label like XSTest's: `unsafe` is a hazard, `safe` a benign prompt that looks like one.

    Raises:
        DataError: a row breaks the contract; or no row says its set, and another column looks as if it did.
    """
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        return [row for split in SPLITS[1:] for row in world.prompts(split, cfg["prompts_per_set"])]
    if cfg["source"] == SUITES:
        limit = cfg["prompts_per_set"]
        found = [_of_suite(name, split, limit, say) for name, split in cfg["suites"].items()]
        return _once_in_intervals(_refuse_in_both([row for rows in found for row in rows]), say)
    raw = fetch.records(cfg["source"], cfg["columns"])
    wording.refuse_hidden(raw, cfg["source"], "set", "evaluation")
    wording.taken(say, raw, "set", cfg["source"], "a request that must be refused (hazard)")
    wording.taken(say, raw, "split", cfg["source"], "a test prompt")

    def defaults(i: int) -> dict[str, str]:
        name = f"prompt/{i:05d}"  # as its base id too: one that no row of the user's has by chance
        return {"id": name, "split": "test", "set": names.HAZARD, "base_id": name, "category": "user"}

    rows = []
    for row in wording.worded(raw, cfg["source"], defaults):
        row |= {key: "" for key in ("response", "wrapper") if row.get(key) is None}
        rows.append(row | {"set": wording.LABELS.get(row["set"].lower(), row["set"])})
    kept = fetch.checked(rows, "prompts", cfg["source"])
    again = len(kept) - len({(r["split"], r["set"], leaks.plain(r["prompt"])) for r in kept})
    if again:
        say(f"{cfg['source']}: {again} of {len(kept)} prompts stand there more than once: they count as several")
    return _refuse_in_both(_first(kept, cfg["prompts_per_set"], cfg["source"], say))


def _of_suite(name: str, split: str, limit: int, say: Say) -> list[Row]:
    """The prompts of a published suite, of every set `limit` spread evenly over it: suites are sorted by type."""
    more = {"split": split, "response": "", "wrapper": ""}
    rows = [r | more | {"base_id": r["id"]} for r in published.rows(name, fetch.downloaded, split)]
    return _first(fetch.checked(rows, "prompts", name), limit, name, say, spread=True)


def _first(rows: list[Row], limit: int, source: str, say: Say, *, spread: bool = False) -> list[Row]:
    """Of every split and set the first `limit` prompts, or as many that are spread evenly over all."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["set"]), []).append(row)
    chosen: set[str] = set()
    for (split, group), found in groups.items():
        taken = found
        if len(found) > limit:
            taken = [found[i * len(found) // limit] for i in range(limit)] if spread else found[:limit]
            which = f"{limit}, spread evenly," if spread else f"the first {limit}"
            say(f"{source}: {which} of {len(found)} {split} prompts of set {group} (prompts_per_set)")
        chosen |= {r["id"] for r in taken}
    return [r for r in rows if r["id"] in chosen]


def _refuse_in_both(rows: list[Row]) -> list[Row]:
    """The prompts, of which none may be for choosing and for the final numbers."""
    asked = {split: [r for r in rows if r["split"] == split] for split in SPLITS[1:]}
    chosen_on = {leaks.plain(r["prompt"]): r["id"] for r in asked["validation"]}
    for r in asked["test"]:
        if (plain := leaks.plain(r["prompt"])) in chosen_on:
            raise DataError(
                "A prompt is a validation prompt and a test prompt.", found=f"{chosen_on[plain]} and {r['id']}",
                expected="prompts that settings are chosen on, and others",
                do="remove one of the two; of suites give both one split, or leave one out",
            )  # fmt: skip
    return rows


def _once_in_intervals(rows: list[Row], say: Say) -> list[Row]:
    """The prompts of several suites. One that stands in two of them counts in the rates of both, and in intervals as
    one (it has the base id of the first), since it is answered alike; how many there are is said."""
    first: dict[str, Row] = {}
    again: Counter[tuple[str, str]] = Counter()
    out = []
    for row in rows:
        home = first.setdefault(leaks.plain(row["prompt"]), row)
        one, other = published.of(home["id"]), published.of(row["id"])
        if one != other:
            again[one, other] += 1
            row = row | {"base_id": home["id"]}
        out.append(row)
    for (one, other), count in again.items():
        say(f"{count} prompts of {other} stand in {one} too: they count in the rates of both, and once in intervals")
    return out


def refuse_unasked(rows: Sequence[Row], splits: Sequence[str], source: str) -> None:
    """Refuse prompts of which none of a split would be asked, or none that must be refused: there would be nothing to
    say.

    Raises:
        DataError: no prompt of the evaluated split, or no hazard among them.
    """
    for split in splits:
        asked = [r for r in rows if r["split"] == split]
        if not asked:
            raise DataError(
                f"{source}: no prompt is of the split {split}, which is asked.",
                found=", ".join(sorted({r["split"] for r in rows})), expected=f"prompts of the split {split}",
                do="correct the column `split`, or evaluation.split and curves",
            )  # fmt: skip
        if not any(r["set"] == names.HAZARD for r in asked):
            found = ", ".join(sorted({r["set"] for r in asked}))
            raise DataError(
                f"{source}: no {split} prompt must be refused, so that no refusal rate could be measured.",
                found=found, expected="prompts of the set hazard (XSTest: unsafe)",
                do="add them, or correct the column `set`",
            )  # fmt: skip


def judge_prompt_rows(cfg: dict[str, Any]) -> list[Row]:
    """Training requests whose answers a judge learns from."""
    return World(cfg["world"]["seed"]).prompts("train", cfg["prompts_per_set"])


def own_judge_pairs(source: str) -> list[Row]:
    """A user's labelled pairs: prompt, reply, label (good | bad) and perhaps the evaluation to learn."""
    rows = wording.worded(
        fetch.records(source, {}), source, lambda i: {"id": f"pair/{i:05d}", "evaluation": "", "label": ""}
    )
    for r in rows:
        r["evaluation"] = r["evaluation"] or f"Evaluation: judged by the rules. Chatbot is: {r['label']}."
    return fetch.checked(rows, "judge_pairs", source)


def task_rows(cfg: dict[str, Any], source: Path | None = None) -> list[Row]:
    """Rows of one task: a training pool and validation and test rows, no text in two splits.

    Args:
        cfg: world, dataset, source and the three row counts; of a table also columns and splits.
        source: local file or folder when the rows are neither the world's nor fetched from the hub.
    """
    sizes = {s: cfg[f"{s}_rows"] * (draws.POOL_FACTOR if s == "train" else 1) for s in SPLITS}
    if cfg["source"] == "world":
        world = World(cfg["world"]["seed"])
        make = {
            "agnews": world.agnews, "gsm8k": world.gsm8k, "crafts": world.crafts_task, "howto": world.howto_task,
            "notes": world.notes_task, "chat": world.chat_task,
        }[cfg["dataset"]]  # fmt: skip
        return [row for split in SPLITS for row in make(split, sizes[split])]
    dataset, seed = cfg["dataset"], cfg["world"]["seed"]
    how, column = table.reading(dataset, cfg), data.dataset(dataset).TEXT_COLUMNS[0]
    where = str(source or (data.dataset(dataset).HUB_ID if cfg["source"] == sources.HUB else cfg["source"]))
    if source:
        parts = fetch.local_parts(dataset, source, how)
    else:
        parts = fetch.hub_parts(dataset, cfg["source"], cfg.get("revision"), how)
    # What a table is drawn by is called like what it was read from: a published set has the rows it has as a dataset.
    name = sources.called(cfg["source"]) if dataset == "table" else dataset
    if how and how.splits and not how.parts:
        rows = [r for found in parts.values() for r in found]
        parts = {s: [r for r in rows if r["split"] == s] for s in SPLITS}  # as a column says
        if how.shares:
            parts = draws.by_share(rows, column, how.shares, seed, name)
    if not sources.on_hub(cfg["source"]):  # published splits share a few texts; draws.cut keeps each once
        for split in ("validation", "test"):
            leaks.refuse_same(parts.get("train", []), parts.get(split, []), column, f"{where}/{split}",
                              "the training rows beside it")  # fmt: skip
    return draws.cut(parts, sizes, dataset, seed, where, name)
