"""The answers and verdicts of a study as logs of Inspect (inspect.aisi.org.uk), one per model, for its viewer.

Plain JSON of Inspect's log schema 2: nothing of Inspect is needed to write it. A prompt is a sample, every judge a
scorer whose score is its outcome, the dataset's scorer one whose score is C (correct) or I (incorrect).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast import __version__, names
from holdfast.record import files, jsonfiles
from holdfast.report import answers

Row = dict[str, Any]
SCHEMA = 2
STOPPED = dict(zip(names.FINISHES, ("stop", "max_tokens", "model_length"), strict=True))
ENDS = ("low", "high", "n")  # of a rate: its interval and its number of answers
GRADES = {"correct": "C", "wrong": "I", "invalid": "I"}
# What is right to a safety prompt, as the sample's target.
WANTED = dict.fromkeys(names.MUST_REFUSE, names.REFUSAL) | dict.fromkeys(names.BENIGN, names.COMPLIANCE)


def build(metrics: list[Path], results: Path, out: Path, settings: Mapping[str, Any], *, texts: bool) -> None:
    """Write a log per model into `out`.

    Args:
        metrics: metrics.json of every model below `results`, its answers and verdicts beside it.
        settings: `evaluation` of the resolved study.
        texts: whether prompts, answers and the words of judges are in it.
    """
    for path in metrics:
        place = path.parent.relative_to(results).as_posix()
        made = datetime.fromtimestamp(path.with_name("responses.parquet").stat().st_mtime, UTC)
        found = log(jsonfiles.read_json(path), place, path.parent, made, settings, texts=texts)
        # The viewer knows a JSON file as a log by the time its name begins with. The order of keys is the schema's.
        name = f"{made:%Y-%m-%dT%H-%M-%S}_{found['eval']['task']}_{place.replace('/', '-')}.json"
        files.write_text(out / name, json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def log(cell: Row, place: str, folder: Path, made: datetime, settings: Mapping[str, Any], *, texts: bool) -> Row:
    """One model's log: `cell` is its metrics.json, `place` its folder below results/STUDY."""
    given = answers.of_model(folder, texts=texts)
    when, model = made.isoformat(timespec="seconds"), f"holdfast/{place}"
    asked = [f"{a.prompt['set']}/{a.prompt['id']}" for a in given]
    about = {k: cell.get(k) for k in ("arm", "family", "method", "settings", "task", "seed", "replicate", "model")}
    config = {"max_tokens": settings["max_new_tokens"], "temperature": 0.0}
    return {
        "version": SCHEMA, "status": "success",
        "eval": {
            "created": when, "task": cell["study"], "task_id": f"{cell['study']}@{place}", "run_id": cell["study"],
            "task_version": 0, "task_description": "Answers to hazards, harmless requests and rows of the task.",
            "dataset": {"name": settings["source"], "samples": len(given), "sample_ids": asked, "shuffled": False},
            "model": model, "model_generate_config": config, "config": {}, "packages": {"holdfast": __version__},
            "metadata": about | {"redacted": not texts},
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate"}], "config": config},
        "results": {"total_samples": len(given), "completed_samples": len(given), "scores": [*_scores(cell, given)]},
        "stats": {"started_at": when, "completed_at": when},
        "samples": [_sample(name, a, model) for name, a in zip(asked, given, strict=True)],
    }  # fmt: skip


def _sample(name: str, a: answers.Answer, model: str) -> Row:
    said = {"role": "assistant", "content": a.text, "source": "generate", "model": model}
    usage = {"output_tokens": a.tokens, "total_tokens": a.tokens}
    golds = [str(v["gold"]) for v in a.verdicts if v["outcome"] in GRADES]
    return {
        "id": name, "epoch": 1, "input": a.prompt["prompt"], "target": WANTED.get(a.prompt["set"], "".join(golds[:1])),
        "messages": [{"role": "user", "content": a.prompt["prompt"], "source": "input"}, said],
        "output": {
            "model": model, "choices": [{"message": said, "stop_reason": STOPPED[a.finish]}], "completion": a.text,
            "usage": usage,
        },
        "model_usage": {model: usage},
        "scores": {v["judge"]: _score(v, a.text) for v in a.verdicts},
        "metadata": {k: a.prompt[k] for k in ("set", "category")} | {"judges_disagree": a.disputed},
    }  # fmt: skip


def _score(v: Row, text: str) -> Row:
    """A verdict: its answer is what a task's scorer read of the text, else the text; what a judge wrote explains it."""
    more = {"label": v["label"], "outcome": v["outcome"], "score": v["score"], "version": v["version"]}
    return {
        "value": GRADES.get(v["outcome"], v["outcome"]), "answer": v["parsed"] or text,
        "explanation": v["text"] or None, "metadata": more,
    }  # fmt: skip


def _scores(cell: Row, given: list[answers.Answer]) -> Iterator[Row]:
    """The rates of metrics.json under the judge they are by, and those of the task under its scorer; of other judges
    how many replies they read."""
    read: dict[str, int] = {}
    tasks = set()
    for a in given:
        for v in a.verdicts:
            read[v["judge"]] = read.get(v["judge"], 0) + 1
            if v["outcome"] in GRADES:
                tasks.add(v["judge"])
    for judge, count in read.items():
        wing = "utility/" if judge in tasks else "safety/" if judge == cell["judge"] else None
        known = {k: v for k, v in cell["metrics"].items() if wing and k.startswith(wing) and k != names.BENIGN_ANSWERED}
        rates = [k for k in known if not k.endswith(tuple(f"_{end}" for end in ENDS))]
        rates.sort(key=lambda k: (k != names.REFUSAL_RATE, k != names.OVER_REFUSAL))  # the viewer shows the first ones
        yield {
            "name": judge, "scorer": judge, "scored_samples": count,
            "metrics": {
                (name := k.removeprefix(wing or "")): {
                    "name": name, "value": known[k],
                    "metadata": {end: known[f"{k}_{end}"] for end in ENDS if f"{k}_{end}" in known},
                }
                for k in rates
            },
        }  # fmt: skip
