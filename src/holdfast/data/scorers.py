"""Scorers: which function says whether an answer to a task row is right, and what is its metric called?

A study's settings are {kind: what it is told}. Judging alone asks here, so that another scorer trains nothing again; a
user's own file is run by judging alone, and planning reads its text.
"""

from __future__ import annotations

import ast
import json
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast import data, names
from holdfast.data import kinds
from holdfast.data.kinds import Row, Score
from holdfast.errors import DataError, said

Settings = Mapping[str, Any]
_MADE_BY_PYTHON = {"correct": bool, "invalid": bool, "parsed": str, "gold": str}


def _of(dataset: str, settings: Settings | None) -> tuple[str, Any] | None:
    """(kind, what it is told) of a task's scorer: by the study, or by a dataset that is written as a table; None where
    its module scores by itself."""
    told = settings or getattr(data.dataset(dataset), "SCORER", None)
    return next(iter(told.items())) if told else None


def metric(dataset: str, settings: Settings | None = None) -> str:
    """The name of a task's utility metric."""
    found = _of(dataset, settings)
    if found is None:
        return str(data.dataset(dataset).METRIC)
    kind, told = found
    if kind == "rouge":
        return names.ROUGE[told["variant"]]
    return names.ACCURACY if kind in ("label", "choice", "python") else names.EXACT_MATCH


def metric_of(cell: Mapping[str, Any], task: str) -> str:
    """The name of a task's utility metric, by the metrics.json of a model."""
    return metric(cell["datasets"][task], cell.get("scorers", {}).get(task))


def graded(name: str) -> bool:
    """Whether a metric is a mean of scores between 0 and 1, and no share of right answers."""
    return name in names.ROUGE.values()


def scorer(dataset: str, settings: Settings | None = None) -> Score:
    """The function that scores an answer to a row of a task: {correct, invalid, parsed, gold}, perhaps `flexible` and
    `score`.

    Raises:
        DataError: now, that it cannot be loaded; when it is called, that it cannot read what is right.
    """
    found = _of(dataset, settings)
    if found is None:
        own: Score = data.dataset(dataset).score
        return own
    kind, told = found
    score = _KINDS[kind](told)

    def scored(text: str, row: Row) -> Row:
        made = score(text, row)
        if not made["gold"] and kind != "python":
            raise _unreadable(row, kind)
        return made | {key: _written(made[key]) for key in ("parsed", "gold")}

    return scored


def _written(text: str) -> str:
    """A text as a table can hold it: what was read of JSON may name half a character."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def refuse(dataset: str, settings: Settings | None, where: str) -> None:
    """Refuse a scorer that could not run. Nothing of the user's is run.

    Raises:
        DataError: its file has no function `score(text, row)`.
    """
    name, told = _of(dataset, settings) or ("", "")
    if name == "python":
        _check_file(told, where)


def kind(dataset: str, settings: Settings | None) -> str:
    """The kind of scorer of a dataset's answers; empty where the dataset scores them itself."""
    return (_of(dataset, settings) or ("", None))[0]


def look(
    rows: Sequence[Row], dataset: str, settings: Settings | None, where: str, say: Callable[[str], None]
) -> None:  # fmt: skip
    """Refuse rows of which no answer could be right, and say how many have an answer that is learned and wrong.

    Raises:
        DataError: what is right cannot be read; or an answer that is its own measure, or every answer, is not right.
    """
    kind, _ = _of(dataset, settings) or ("", None)
    if not rows or kind in ("", "python", "rouge"):
        return
    score = scorer(dataset, settings)
    wrong = [r for r in rows if not score(r["response"], r)["correct"]]
    if alone := next((r for r in wrong if r["gold"] == r["response"]), None):
        raise _unreadable(alone, kind)
    if len(wrong) == len(rows):
        raise DataError(
            f"{where}: no answer that is learned is right by the scorer `{kind}`.",
            found=f"{wrong[0]['response']!r:.60} for {wrong[0]['gold']!r:.60}", expected="answers that score",
            do="correct columns.gold or the scorer of the task",
        )  # fmt: skip
    if wrong:
        named = ", ".join(r["id"] for r in wrong[:5]) + " ..." * (len(wrong) > 5)
        say(f"{where}: {len(wrong)} of {len(rows)} answers that are learned are wrong by the scorer `{kind}`: {named}")


def _unreadable(row: Row, kind: str) -> DataError:
    return DataError(
        f"The scorer `{kind}` cannot read what is right in {row['id']}.", found=f"{row['gold']!r:.120}",
        expected="an answer that it reads, so that one learned by heart is right",
        do="correct the row, columns.gold or the scorer of the task",
    )  # fmt: skip


# ---- a user's own file ----------------------------------------------------------------------------


def _check_file(file: str, where: str) -> None:
    """The file has a function `score` of two parameters, by its text."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        wrong = f"{error.msg} (line {error.lineno})" if isinstance(error, SyntaxError) else said(error)
        raise DataError(
            f"{where}: {file} cannot be read as Python.", found=wrong,
            expected="a file with score(text, row)", do="correct the file",
        ) from None  # fmt: skip
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "score"]
    parameters = [a.arg for a in (*functions[-1].args.posonlyargs, *functions[-1].args.args)] if functions else []
    named = functions[-1].args if functions else None
    needed = [a.arg for a, value in zip(named.kwonlyargs, named.kw_defaults, strict=True) if not value] if named else []
    if len(parameters) != 2 or needed:
        raise DataError(
            f"{where}: {file} has no function `score` of an answer and a row.",
            found=f"score({', '.join([*parameters, *needed])})" if functions
            else "no such function at the top of the file",
            expected="def score(text, row), which returns a bool or {'correct': a bool}", do="add it to the file",
        )  # fmt: skip


def _python(file: str) -> Score:
    try:
        function = runpy.run_path(file)["score"]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code raises anything; they need one answer
        raise DataError(
            f"{file} cannot be loaded.", found=f"{type(error).__name__}: {said(error)}"[:160],
            expected="score(text, row) in a file that needs nothing but installed packages", do="correct the file",
        ) from None  # fmt: skip

    def score(text: str, row: Row) -> Row:
        try:
            made = function(text, json.loads(row["row"]))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            raise _no_score(file, row, f"{type(error).__name__}: {said(error)}") from None
        made = {"correct": made} if isinstance(made, bool) else made
        if not _is_score(made):
            raise _no_score(file, row, repr(made))
        return {"invalid": False, "parsed": "", "gold": row["gold"], **made}

    return score


def _is_score(made: Any) -> bool:
    if not isinstance(made, dict) or "correct" not in made or not made.keys() <= _MADE_BY_PYTHON.keys():
        return False
    typed = all(isinstance(value, _MADE_BY_PYTHON[key]) for key, value in made.items())
    return typed and not (made["correct"] and made.get("invalid"))


def _no_score(file: str, row: Row, found: str) -> DataError:
    return DataError(
        f"{file} gives {row['id']} no score.", found=found[:160],
        expected="a bool, or a dict with 'correct' (a bool) and perhaps 'invalid' (a bool, false of what is right), "
        "'parsed', 'gold' (texts)", do="correct the file; the stored answers are judged again",
    )  # fmt: skip


_KINDS: dict[str, Callable[[Any], Score]] = {
    "label": kinds.label, "choice": kinds.choice, "number": kinds.number, "exact": kinds.exact, "regex": kinds.regex,
    "contains": kinds.contains, "json-field": kinds.json_field, "rouge": kinds.rouge, "boxed": kinds.in_box,
    "python": _python,
}  # fmt: skip
