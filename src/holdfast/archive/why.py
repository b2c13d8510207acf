"""`holdfast why TARGET`: in words, why a file would be made again, from what Snakemake plans."""

from __future__ import annotations

import ast
import re
from pathlib import PurePosixPath
from typing import Any

from holdfast.engines import snakemake
from holdfast.engines.snakemake import Job

_DIGEST = re.compile(r"[0-9a-f]{16}")


def _literals(text: str) -> list[Any]:
    """Values Snakemake printed with commas between them."""
    try:
        return [] if text == "<nothing exclusive>" else list(ast.literal_eval(f"({text},)"))
    except (ValueError, SyntaxError):
        return []


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for k, v in value.items():
        out |= _flat(v, f"{prefix}.{k}" if prefix else str(k))
    return out


def settings(said: str) -> list[str]:
    """What changed in the settings of a rule: `key: before -> now` per key, or that its code did."""
    found = re.search(r"before: (.*) now: (.*)$", said, re.S)
    if not found:
        return ["its settings or its code have changed"]
    before, now = (_literals(part.strip()) for part in found.groups())
    lines = []
    if any(isinstance(v, str) and _DIGEST.fullmatch(v) for v in (*before, *now)):
        lines.append("the code it runs has changed")
    old, new = ({k: v for d in values if isinstance(d, dict) for k, v in _flat(d).items()} for values in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key, ...) != new.get(key, ...):
            was, shall = (repr(d[key])[:60] if key in d else "not set" for d in (old, new))
            lines.append(f"{key}: {was} -> {shall}")
    return lines or ["its settings have changed"]


def causes(job: Job) -> list[str]:
    """The reasons of one job that do not only follow from another job."""
    out = []
    for kind, said in job.reasons.items():
        if kind == "missing":
            out.append(f"{said} is not there")
        elif kind == "incomplete":
            out.append(f"{said} was being written when its job ended")
        elif kind == "updated":
            out.append(f"{said} is newer and has other content")
        elif kind == "inputs":
            out.append("it reads other files than before")
        elif kind == "params":
            out += settings(said)
        elif kind in ("code", "software"):
            out.append("the code it runs has changed" if kind == "code" else "its software environment has changed")
        elif kind == "forced":
            out.append("it was asked for with --force")
    return out


def explain(target: str, jobs: list[Job]) -> str:
    """Sentences: what would run for the target, what started it, and how that reaches the target."""
    if not jobs:
        return f"{target} is up to date: nothing would run."
    made = {o: j for j in jobs for o in j.outputs}
    goal = made.get(target)
    what = f"{target} would be made again" if goal else f"{target} stands for files of which some would be made again"
    lines = [f"{what}: {len(jobs)} job{'' if len(jobs) == 1 else 's'}."]
    for job in jobs:
        found = causes(job)
        if not found:
            continue
        lines += ["", f"{job.rule} ({', '.join(job.outputs[:2])}{' ...' if len(job.outputs) > 2 else ''})"]
        lines += [f"  because {cause}" for cause in found]
        if goal is not None and (path := _path(job, goal, jobs)):
            lines.append(f"  and then {' -> '.join(path)}")
    return "\n".join(lines)


def _path(start: Job, goal: Job, jobs: list[Job]) -> list[str]:
    """Rules on a shortest way from one job to another, without the first; empty if there is none, or they are one."""
    ways: dict[int, list[str]] = {id(start): []}
    todo = [start]
    while todo:
        job = todo.pop(0)
        if job is goal:
            return ways[id(job)]
        for other in jobs:
            if id(other) not in ways and set(job.outputs) & set(other.inputs):
                ways[id(other)] = [*ways[id(job)], other.rule]
                todo.append(other)
    return []


def ask(target: str, study: str | None) -> str:
    """Plan a target and explain it. Without `study`, the one its path names.

    Raises:
        HoldfastError: no study can be told, or Snakemake cannot plan the target.
    """
    parts = PurePosixPath(target).parts
    if study is None and len(parts) > 2 and parts[0] in ("work", "results"):
        study = parts[1]
    return explain(target, snakemake.dry_run(target, study))
