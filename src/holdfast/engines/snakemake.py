"""The one place that knows Snakemake's insides: its records of what made a file, its locks, and what it prints.

The records lie in .snakemake/metadata, a JSON file per output under its name in base64. Snakemake itself is asked in a
process of its own and never imported.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from holdfast.engines import versions
from holdfast.errors import ArtifactError, HoldfastError

STATE = Path(".snakemake")
LOGGER = "snakemake.logging"  # of Python's logging
RECORDS, LOCKS = STATE / "metadata", STATE / "locks"
FORMAT = 6  # `record_format_version` of the records that are understood here
COLUMNS = ("output_file", "status", "plan")  # of its detailed summary, as far as they are read
# Of a record, what another machine can use.
KEPT = (
    "rule", "input", "log", "shellcmd", "params", "code", "record_format_version", "conda_env", "container_img_url",
    "software_stack_hash", "endtime", "incomplete", "input_checksums",
)  # fmt: skip
_LONGEST_NAME = 254


# ---- records ----------------------------------------------------------------------------------------


def record_file(root: Path, output: str) -> Path:
    """Where Snakemake keeps the record of an output: base64 of its path, cut where names get too long."""
    name = base64.urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + _LONGEST_NAME] for i in range(0, len(name), _LONGEST_NAME)]
    return root.joinpath(RECORDS, *("@" + p for p in parts[:-1]), parts[-1])


def records(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(output, record) of every finished output Snakemake remembers here.

    Raises:
        EngineError: a record has another format than the tested versions write.
    """
    folder = root / RECORDS
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = "".join(part.removeprefix("@") for part in path.relative_to(folder).parts)
        try:
            output, record = base64.urlsafe_b64decode(name).decode(), json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # not a record, or one that was being written when everything was killed
            continue
        _known(record, output)
        if not record.get("incomplete") and record.get("endtime") is not None:
            yield output, record


def times(root: Path, output: str) -> tuple[float, float] | None:
    """(start, end) of the job that made an output here, in seconds of the clock; None where that is not known, as of
    a file that was fetched."""
    path = record_file(root, output)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    _known(record, output)
    start, end = record.get("starttime"), record.get("endtime")
    return (float(start), float(end)) if start and end else None


def _known(record: Any, output: str) -> None:
    """Refuse a record of another format."""
    found = record.get("record_format_version") if isinstance(record, dict) else None
    if found != FORMAT:
        raise versions.refuse("snakemake", f"Snakemake's record of {output} is", found=f"format {found}",
                              expected=f"format {FORMAT}")  # fmt: skip


def remember(root: Path, output: str, record: dict[str, Any]) -> None:
    """Give Snakemake the record of an output, in place of the one it has.

    Raises:
        EngineError: the installed Snakemake, or the record, has another format than was tested.
    """
    versions.check("snakemake", "The way Snakemake keeps records is")
    _known(record, output)
    path = record_file(root, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file in place of the old: Snakemake writes records in place, perhaps through a link. A temporary name
    # beside a record would be too long for some.
    temporary = root / STATE / "record.tmp"
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(path)


# ---- what it would do -------------------------------------------------------------------------------

_FIELD = re.compile(r"^    (input|output|reason): (.*)$", re.M)
_RULE = re.compile(r"^(?:rule|localrule|checkpoint) (\w+):$", re.M)
_PARTS = {
    "Missing output files": "missing", "Incomplete output files": "incomplete", "Updated input files": "updated",
    "Input files updated by another job": "follows", "Set of input files has changed since last execution": "inputs",
    "Code has changed since last execution": "code", "Params have changed since last execution": "params",
    "Software environment definition has changed since last execution": "software", "Forced execution": "forced",
}  # fmt: skip
_REASON = re.compile("|".join(map(re.escape, _PARTS)))


@dataclass(frozen=True)
class Job:
    """One planned job: its rule, files, and the reasons as {kind: what Snakemake says of it}."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reasons: dict[str, str]


def parse(text: str) -> list[Job]:
    """The jobs of a dry run, in its order."""
    heads = list(_RULE.finditer(text))
    jobs = []
    for head, following in zip_longest(heads, heads[1:]):
        block = text[head.end() : following.start() if following else len(text)]
        fields: dict[str, str] = dict(_FIELD.findall(block))
        said, reasons = fields.get("reason", ""), {}
        marks = list(_REASON.finditer(said))
        if said and not marks:
            raise versions.refuse("snakemake", "A reason that Snakemake gives is", found=said[:80],
                                  expected="one of: " + ", ".join(_PARTS))  # fmt: skip
        for mark, after in zip_longest(marks, marks[1:]):
            rest = said[mark.end() : after.start() if after else len(said)]
            reasons[_PARTS[mark[0]]] = rest.strip(" :;")
        inputs, outputs = (tuple(f for f in fields.get(k, "").split(", ") if f) for k in ("input", "output"))
        jobs.append(Job(head[1], inputs, outputs, reasons))
    return jobs


def dry_run(target: str, study: str | None) -> list[Job]:
    """The jobs Snakemake would run for a target; without `study`, of the default one.

    Raises:
        HoldfastError: Snakemake cannot plan it. EngineError: it says so in another form than the tested versions.
    """
    command = ["snakemake", "-n", *(["--config", f"study={study}"] if study else []), "--", target]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, encoding="utf-8")
    said = done.stdout + done.stderr
    if done.returncode:
        raise HoldfastError(
            f"Snakemake cannot plan {target}.", found=_mistake(said),
            expected="a file of a study, or a family (models, table, report ...)", do=" ".join(command),
        )  # fmt: skip
    jobs = parse(said)
    if not jobs and "Nothing to be done" not in said:
        raise versions.refuse(
            "snakemake", "What Snakemake prints of a dry run is", found=" ".join(said.split())[:120] or "nothing",
            expected="jobs with input, output and reason, or that there is nothing to be done",
        )  # fmt: skip
    return jobs


def _mistake(said: str) -> str:
    """Where Snakemake says what is wrong: from the line that calls it an error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it said nothing"]
    start = next((i for i, line in enumerate(lines) if "Error:" in line or "Exception" in line), len(lines) - 1)
    return " ".join(lines[start : start + 3])[:240]


def summary(study: Path) -> dict[str, tuple[str, bool]]:
    """Output of a study -> (Snakemake's status, whether it would be made again).

    Raises:
        ArtifactError: it cannot plan the study. EngineError: its summary has other columns than in the tested versions.
    """
    command = ["snakemake", "--config", f"study={study}", "--detailed-summary"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ArtifactError(
            "Snakemake cannot plan this study.", found=_mistake(done.stdout + done.stderr),
            expected="a summary of its outputs", do=" ".join([*command[:3], "-n"]),
        )  # fmt: skip
    csv.field_size_limit(sys.maxsize)
    rows = csv.DictReader(io.StringIO(done.stdout), delimiter="\t")
    if not set(COLUMNS) <= set(rows.fieldnames or ()):
        raise versions.refuse("snakemake", "Snakemake's detailed summary is", found=", ".join(rows.fieldnames or ()),
                              expected=", ".join(COLUMNS))  # fmt: skip
    output, status, plan = COLUMNS
    return {r[output]: (r[status], r[plan] != "no update") for r in rows}
