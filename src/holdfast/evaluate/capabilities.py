"""What a model can still do elsewhere: tasks of lm-evaluation-harness, scored on every model of a study.

The study's own tasks say what fine-tuning taught, its hazards what it cost in safety; MMLU, HellaSwag and the like say
what it cost beside both. The harness asks and scores (extra `harness`); which row was right is kept, so that models are
compared row by row as everything else is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast import statistics
from holdfast.errors import DataError, StudyError, meant
from holdfast.record import csvfiles, provenance, tables

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

Row = dict[str, Any]
Cell = dict[str, Any]  # task (None: a role), arm, seed, and of a replicated study which replicate and unit
# The first of these that a task reports is its score: a row is right or wrong.
METRICS = ("acc_norm", "acc", "exact_match")
COLUMNS = (
    "task", "arm", "capability", "metric", "version", "seeds", "replicates", "rate", "rate_low", "rate_high", "n",
    "minus_aligned", "minus_aligned_low", "minus_aligned_high", "p", "p_holm",
)  # fmt: skip
_CHECKED = "HOLDFAST_CAPABILITIES"


def check(tasks: Sequence[str], task_files: str | None, path: Path) -> None:
    """Refuse a task that the harness, which is installed, does not know. Ten seconds, once per run:
    the jobs of a run find a mark of its first process.

    Raises:
        StudyError: names the study's key and the nearest task.
    """
    mark = provenance.digest([list(tasks), task_files])
    if os.environ.get(_CHECKED) == mark:
        return
    known = _manager(task_files).all_tasks
    for name in tasks:
        if name not in known:
            raise StudyError(
                f"{path}: capabilities.tasks names a task that the harness does not know.", found=name,
                expected="one of `lm-eval ls tasks`, or of the files in capabilities.task_files",
                do=meant(name, known, "correct capabilities.tasks"),
            )  # fmt: skip
    os.environ[_CHECKED] = mark


def _manager(task_files: str | None) -> TaskManager:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=task_files)


def measure(checkpoint: Path, cfg: dict[str, Any], out: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Ask one model every row of every task and write which were right.

    Args:
        cfg: tasks, task_files, limit (rows of each task, None: all), fewshot (None: the task's own), chat_template,
            batch_size, and system_prompt where it asks in the template after one.

    Raises:
        StudyError: a task has no score that is right or wrong row by row.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    from holdfast.model import folders, template

    model, tokenizer = folders.load(checkpoint.parent)
    template.introduce(tokenizer, cfg.get("system_prompt"))
    model.eval()  # type: ignore[no-untyped-call]
    asked = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=cfg["batch_size"])
    manager = _manager(cfg["task_files"])
    rows: list[Row] = []
    for name in cfg["tasks"]:  # one by one: a group and one of its tasks may both be named
        found = lm_eval.simple_evaluate(
            model=asked, tasks=[name], num_fewshot=cfg["fewshot"], limit=cfg["limit"],
            apply_chat_template=cfg["chat_template"], fewshot_as_multiturn=cfg["chat_template"], task_manager=manager,
            bootstrap_iters=0,
        )  # fmt: skip
        before = len(rows)
        for leaf in _leaves(name, found["group_subtasks"]):
            found_rows = scored(leaf, found["samples"][leaf], found["versions"].get(leaf))
            rows += [r | {"capability": name} for r in found_rows]
        say(f"{name}: {len(rows) - before} rows")
    tables.write(rows, out, "capabilities")


def _leaves(name: str, groups: dict[str, list[str]]) -> list[str]:
    """The tasks a name stands for: itself, or all that a group holds, groups within it too."""
    inside = groups.get(name) or []
    return [leaf for child in inside for leaf in _leaves(child, groups)] if inside else [name]


def scored(task: str, samples: Sequence[Row], version: Any) -> list[Row]:
    """{id, task, metric, version, correct} of the harness's samples of one task, by the first of METRICS they have and
    its first filter.

    Raises:
        StudyError: they have none of them.
    """
    metric = next((m for m in METRICS if samples and m in samples[0]), None)
    if metric is None:
        raise StudyError(
            f"capabilities: the harness's task {task} has no score that is right or wrong row by row.",
            found=", ".join(samples[0].get("metrics", [])) if samples else "no rows", expected=" | ".join(METRICS),
            do=f"remove {task} from capabilities.tasks",
        )  # fmt: skip
    first = samples[0]["filter"]
    return [
        {"id": f"{task}/{s['doc_id']}", "task": task, "metric": metric, "version": str(version),
         "correct": bool(s[metric])}
        for s in sorted(samples, key=lambda s: s["doc_id"]) if s["filter"] == first
    ]  # fmt: skip


class Measured:
    """Which rows every model had right, by (task or None for the roles, arm, capability).

    Raises:
        DataError: the models were asked different rows.
    """

    def __init__(self, files: Sequence[Path], cells: Sequence[Cell]) -> None:
        """`cells`: of every file, whose model it is about."""
        found = [(cell, tables.read(path, "capabilities")) for cell, path in zip(cells, files, strict=True)]
        self.models: dict[tuple[str | None, str, str], list[tuple[Cell, list[Row]]]] = {}
        asked = [(r["capability"], r["id"]) for r in found[0][1]]
        for cell, rows in found:
            task, arm = cell["task"], cell["arm"]
            if [(r["capability"], r["id"]) for r in rows] != asked:
                raise DataError(
                    f"{task or 'models'}/{arm} seed {cell['seed']} was asked other rows by the harness than others.",
                    found=f"{len(rows)} rows", expected=f"the same {len(asked)} rows",
                    do="ask every model of a study the same: snakemake --forcerun measure_capabilities",
                )  # fmt: skip
            for name in dict.fromkeys(r["capability"] for r in rows):
                mine = [r for r in rows if r["capability"] == name]
                self.models.setdefault((task, arm, name), []).append((cell, mine))

    def right(self, task: str | None, arm: str, name: str) -> np.ndarray:
        """Which rows the models of an arm had right, (units, rows)."""
        models = self.models[task, arm, name]
        return _right([rows for _, rows in models], [cell for cell, _ in models])

    def right_before(self, task: str | None, arm: str, name: str) -> np.ndarray:
        """Which rows the aligned models had right that the models of an arm start from, (units, rows)."""
        cells = [cell for cell, _ in self.models[task, arm, name]]
        aligned = {cell.get("replicate", 0): rows for cell, rows in self.models[None, "aligned", name]}
        return _right([aligned[cell.get("aligned", 0)] for cell in cells], cells)


def _right(answered: Sequence[list[Row]], cells: Sequence[Cell]) -> np.ndarray:
    return statistics.by_draw(np.array([[r["correct"] for r in rows] for rows in answered]), cells)


def build(files: Sequence[Path], cells: Sequence[Cell], out: Path) -> None:
    """Write capabilities.csv: per task, arm and capability the share of rows that were right, with its interval over
    rows and seeds, and the paired difference to the aligned model; p also Holm-adjusted over the table.

    Raises:
        DataError: the models were asked different rows.
    """
    measured, lines = Measured(files, cells), []
    for (task, arm, name), models in measured.models.items():
        right, row = measured.right(task, arm, name), models[0][1][0]
        rate, low, high = statistics.pooled_rate(right)
        line = {
            "task": task or "", "arm": arm, "capability": name, "metric": row["metric"],
            "version": row["version"], "seeds": len({cell["seed"] for cell, _ in models}),
            "replicates": len({cell.get("unit", 0) for cell, _ in models}),
            "rate": rate, "rate_low": low, "rate_high": high, "n": right.shape[1],
        }  # fmt: skip
        if task is not None:
            d = statistics.paired_difference(right, measured.right_before(task, arm, name))
            line |= {"minus_aligned": d.effect, "minus_aligned_low": d.low, "minus_aligned_high": d.high, "p": d.p}
        lines.append(line)
    compared = [line for line in lines if "p" in line]
    for line, p in zip(compared, statistics.holm([line["p"] for line in compared]), strict=True):
        line["p_holm"] = p
    csvfiles.write_csv(out, lines, COLUMNS)


def rates(path: Path) -> dict[str, float]:
    """{capability/<name>: share of right rows} of one model, for MLflow."""
    rows = tables.read(path, "capabilities")
    names = dict.fromkeys(r["capability"] for r in rows)
    return {
        f"capability/{name}": float(np.mean([r["correct"] for r in rows if r["capability"] == name])) for name in names
    }
