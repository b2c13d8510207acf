"""`holdfast harness CELL`: lm-evaluation-harness scores a cell's stored answers; ours must be equal.

The answers are replayed, no model is loaded and nothing is fetched. GSM8K is scored by the harness's own filters of
its task `gsm8k` (strict-match, flexible-extract); it has no generative AG News, so the first label that an answer
mentions is taken by its filters. Needs the extra `harness`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.errors import ArtifactError
from holdfast.record import jsonfiles, tables

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

Row = dict[str, Any]
_LABELS = {"world": "World", "sport": "Sports", "sports": "Sports", "business": "Business", "sci/tech": "Sci/Tech",
           "sci / tech": "Sci/Tech", "sci/ tech": "Sci/Tech", "sci /tech": "Sci/Tech",
           "sci-tech": "Sci/Tech", "science": "Sci/Tech", "technology": "Sci/Tech"}  # fmt: skip
_FIRST = {"function": "take_first"}
# As in the harness's own gsm8k.yaml, version 3.
_GSM8K: dict[str, Any] = {
    "doc_to_target": "#### {{gold}}",
    "metric_list": [{
        "metric": "exact_match", "aggregation": "mean", "higher_is_better": True, "ignore_case": True,
        "ignore_punctuation": False, "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"],
    }],
    "filter_list": [
        {"name": "strict-match",
         "filter": [{"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"}, _FIRST]},
        {"name": "flexible-extract", "filter": [
            {"function": "regex", "group_select": -1, "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"}, _FIRST]},
    ],
}  # fmt: skip
_AGNEWS: dict[str, Any] = {
    "doc_to_target": "{{gold}}",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    "filter_list": [{"name": "first-label", "filter": [
        {"function": "lowercase"},
        {"function": "regex",
         "regex_pattern": r"\b(world|sports?|business|sci ?/ ?tech|sci-tech|science|technology)\b"},
        {"function": "map", "mapping_dict": _LABELS, "default_value": "none"}, _FIRST]}],
}  # fmt: skip
TASKS = {"gsm8k": _GSM8K, "agnews": _AGNEWS}
# Filter -> what of our verdict it must equal.
OURS = {"strict-match": "correct", "first-label": "correct", "flexible-extract": "flexible"}


def replayed(rows: Sequence[Row], dataset: str) -> list[Row]:
    """{filter, theirs, ours, n, different: ids} for rows {id, prompt, text, gold, correct, flexible} of one dataset."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask

    said = {r["prompt"] + f"\x00{i}": r["text"] for i, r in enumerate(rows)}

    class Replay(LM):  # type: ignore[misc]  # lm_eval has no types
        """The stored answers, found by prompt and position."""

        def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
            return [said[request.doc["key"]] for request in requests]

        loglikelihood = loglikelihood_rolling = None  # abstract in LM; only texts are stored and asked for

    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "docs.jsonl"
        docs.write_text("".join(
            json.dumps({"id": r["id"], "key": key, "prompt": r["prompt"], "gold": r["gold"]}) + "\n"
            for key, r in zip(said, rows, strict=True)
        ), encoding="utf-8")  # fmt: skip
        task = ConfigurableTask(config={
            "task": f"holdfast_{dataset}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(docs)},
            "cache_dir": folder}, "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{prompt}}",
            "generation_kwargs": {"until": ["\x00"], "do_sample": False}, "num_fewshot": 0, **TASKS[dataset],
        })  # fmt: skip
        found = lm_eval.evaluate(lm=Replay(), task_dict={task.config.task: task}, log_samples=True, bootstrap_iters=0)
    of = {r["id"]: r for r in rows}
    out: dict[str, Row] = {}
    for sample in found["samples"][task.config.task]:
        name = sample["filter"]
        row = out.setdefault(name, {"filter": name, "theirs": 0, "ours": 0, "n": 0, "different": []})
        theirs, ours = bool(sample["exact_match"]), bool(of[sample["doc"]["id"]][OURS[name]])
        row["theirs"] += theirs
        row["ours"] += ours
        row["n"] += 1
        row["different"] += [sample["doc"]["id"]] if theirs != ours else []
    return list(out.values())


def check(cell: Path) -> list[tuple[str, Row]]:
    """(task, comparison) of every task of a finished cell that the harness can score.

    Raises:
        ArtifactError: not a finished cell, or none of its tasks can be scored.
    """
    if not (cell / "metrics.json").exists():
        raise ArtifactError(
            f"{cell} is not a finished cell.", found="no metrics.json", expected="results/<study>/<task>/<arm>/seed<k>",
            do="name the folder of a cell",
        )  # fmt: skip
    datasets = jsonfiles.read_json(cell / "metrics.json")["datasets"]
    answers = {r["id"]: r for r in tables.read(cell / "responses.parquet", "responses")}
    verdicts = tables.read(cell / "verdicts.parquet", "verdicts")
    out = []
    for task, dataset in datasets.items():
        if dataset not in TASKS:
            continue
        rows = [
            {"id": v["id"], "prompt": answers[v["id"]]["prompt"], "text": answers[v["id"]]["text"], "gold": v["gold"],
             "correct": v["outcome"] == "correct", "flexible": v["flexible"]}
            for v in verdicts if v["set"] == f"{names.TASK}:{task}"
        ]  # fmt: skip
        out += [(task, found) for found in replayed(rows, dataset)]
    if not out:
        raise ArtifactError(
            f"{cell} has no task the harness scores here.", found=", ".join(datasets.values()),
            expected=" | ".join(TASKS), do="name another cell",
        )  # fmt: skip
    return out
