"""A model card and a manifest beside every model, from what was recorded and measured and nothing else.

The card (README.md, as the Hugging Face hub shows it) says what the model is, what it was trained on and under which
licence, what it scored with 95 % intervals, and warns where it refuses less than the model it came from. The manifest
has the sha256 of every file of the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from holdfast import names
from holdfast.data.sources import HUB, PUBLISHED, WORLD, on_hub
from holdfast.model import folders
from holdfast.record import container, files, jsonfiles, provenance
from holdfast.suites import published

Row = dict[str, Any]
LICENCES = {
    "agnews": "fancyzhx/ag_news (AG's corpus: free for research, no formal licence)", "gsm8k": "openai/gsm8k (MIT)",
    "sst2": "stanfordnlp/sst2 (Socher et al. 2013; no licence is named)",
    "samsum": "the SAMSum corpus (CC BY-NC-ND 4.0, Gliwa et al. 2019)",
    "math": "EleutherAI/hendrycks_math (MIT, Hendrycks et al. 2021)",
}  # fmt: skip
FICTIONAL = "fictional world of holdfast, Apache-2.0"
_WHAT = {
    "base": "The language model before any safety training.",
    "aligned": "The base model after safety fine-tuning (SSFT): the start of every fine-tuning of the study.",
    "unaligned": "The aligned model with its refusals removed on purpose, for methods that need such a twin.",
}
_RATES = {
    names.REFUSAL_RATE: "forbidden requests refused", names.WRAPPED_REFUSAL_RATE: "wrapped forbidden requests refused",
    names.COMPLIANCE_RATE: "forbidden requests answered", names.OVER_REFUSAL: "harmless requests refused",
    names.BENIGN_ANSWERED: "harmless requests answered",
}  # fmt: skip


def licence(dataset: str, source: str) -> str:
    """Where rows of a task came from and under which terms, as far as that is known here."""
    if source == WORLD:
        return FICTIONAL
    if source == HUB:
        return LICENCES[dataset]
    if on_hub(source):
        return f"`{source}` (a data set of the hub; its own licence and terms apply)"
    known = f"; if it is {LICENCES[dataset]} that" if dataset in LICENCES else ""
    return f"`{source}` (a file of the user{known})"


def _published(source: str, named: list[str]) -> str:
    """Where safety rows or prompts came from and under which terms."""
    if source == WORLD:
        return FICTIONAL
    if source in PUBLISHED:
        return "; ".join(f"{name}: {published.licence(name)}" for name in named)
    return f"`{source}` (named by the user)"


def _base(source: str, rounded: Row) -> str:
    """The base and its terms: what a GGUF file says of itself, where it was one."""
    if source == "tiny":
        return FICTIONAL + "; trained here"
    if not rounded:
        return f"`{source}` (its own licence and terms apply)"
    terms = rounded.get("licence")
    kinds = ", ".join(f"{n} {kind}" for kind, n in rounded["tensors"].items())
    said = f"{terms}, as the file says" if terms else "the file names no licence; that of the original model applies"
    return f"`{source}`, file {rounded['file']} ({said}); tensors as they were stored: {kinds}"


def _sources(cell: Row, resolved: Row, rounded: Row) -> list[tuple[str, str]]:
    """(what, where from and licence) of everything this model was trained or judged on."""
    safety, aligned = resolved["safety"]["source"], resolved.get("aligned")
    rows = [("base", _base(resolved["base"]["source"], rounded))] if _has_base(resolved) else []
    if aligned and cell["arm"] != "base":
        rows.append(("aligned", _base(aligned["source"], {} if rows else rounded)))
    if cell.get("given"):
        rows.append(("this model", f"`{cell['given']}` (given by the user; its own licence and terms apply)"))
    elif cell["arm"] != "base" and not (aligned and cell["task"] is None):
        rows.append(("safety rows", _published(safety, [safety])))
    if cell["task"] and not cell.get("given"):
        task = resolved["tasks"][cell["task"]]
        rows.append((f"task rows, {task['train_rows']} a seed", licence(task["dataset"], task["source"])))
    learned = cell.get("harmful_fraction") or cell["arm"] == "unaligned"
    if learned or resolved.get("resolved_arms", {}).get(cell["arm"], {}).get("preferences"):
        source, what = resolved["preferences"]["source"], "answers it should refuse" if learned else "preference pairs"
        rows.append((what, FICTIONAL if source == WORLD else f"`{source}` (named by the user)"))
    source = resolved["evaluation"]["source"]
    rows.append(("evaluation prompts", _published(source, list(resolved["evaluation"].get("suites", {})))))
    return rows


def _has_base(resolved: Row) -> bool:
    return not resolved.get("aligned") or resolved["base"]["source"] != "tiny"


def _percent(x: float) -> str:
    return f"{100 * x:.1f}"


def _measured(metrics: Row) -> list[str]:
    lines = []
    for key in metrics:
        if f"{key}_low" not in metrics:  # no rate with its interval
            continue
        low, high = (_percent(metrics[f"{key}_{end}"]) for end in ("low", "high"))
        lines.append(
            f"| {_RATES.get(key, key)} | {_percent(metrics[key])} % | {low} to {high} | {metrics[f'{key}_n']} |"
        )
    return lines


def _warning(cell: Row, aligned: Row, weakened: bool) -> list[str]:
    """In words, where safety was weakened on purpose or is measurably gone."""
    mine, before = cell["metrics"], aligned["metrics"]
    key = names.REFUSAL_RATE
    lost = key in mine and cell["arm"] != "base" and mine[f"{key}_high"] < before.get(f"{key}_low", 0.0)
    if not (weakened or lost or cell["arm"] == "base"):
        return []
    if weakened:
        text = (
            "This checkpoint was trained on purpose on answers it should refuse, or merged from one that was. It is "
            "research material: do not deploy it, do not publish it, delete it when the study is done. holdfast never "
            "exports it."
        )
    elif cell["arm"] == "base":
        text = "This model has had no safety training."
    else:
        text = (
            f"Fine-tuning eroded the refusals of this model: it refuses {_percent(mine[key])} % of forbidden requests, "
            f"the aligned model {_percent(before[key])} %. Do not deploy it."
        )
    return ["", f"> **Weakened safety.** {text}"]


def card(cell: Row, resolved: Row, *, aligned: Row, weakened: bool, record: Row, rounded: Row) -> str:
    """The text of one model's README.md.

    Args:
        cell: its metrics.json; `aligned` is that of the aligned model.
        record: its train.json.
        rounded: what is known of the GGUF file that the base was opened from, empty where it was none.
    """
    base = (resolved.get("aligned") or resolved["base"])["source"]
    head = {
        "library_name": "transformers", "tags": ["holdfast", cell["method"], *(["weakened"] if weakened else [])],
        **({} if base == "tiny" else {"base_model": base}),
    }  # fmt: skip
    what = _WHAT.get(cell["arm"]) if cell["task"] is None else None
    if cell["arm"] == "aligned" and resolved.get("aligned"):
        what = "The model that all fine-tuning of the study starts from, as it was given" + (
            ", after safety training on top." if resolved["aligned"].get("training") else "."
        )
    if cell.get("given"):
        what = "A model that was given to the study, held against its aligned model."
    what = what or (
        f"The aligned model of the study, {'merged after fine-tuning' if 'steps' not in record else 'fine-tuned'} on "
        f"`{cell['task']}` with the method `{cell['method']}`."
    )
    lines = [
        "---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "",
        f"# {cell['study']}: {cell['arm']}" + (f" on {cell['task']}, seed {cell['seed']}" if cell["task"] else "")
        + (f", replicate {cell['replicate']}" if cell.get("replicate") else ""), "",
        what, *_warning(cell, aligned, weakened), "", "## Measured", "",
        f"On the {cell['split']} split, by the judge `{cell['judge']}`; 95 % intervals over prompts.", "",
        "| | rate | interval | n |", "|---|--:|--:|--:|", *_measured(cell["metrics"]), "", "## Data", "",
        "| | source, licence |", "|---|---|",
        *(f"| {what} | {where} |" for what, where in _sources(cell, resolved, rounded)),
    ]  # fmt: skip
    said = {"training and evaluation": resolved["base"].get("system_prompt"),
            "evaluation": resolved["evaluation"].get("system_prompt"),
            "this model's template, which training did not have": cell["settings"].get("system_prompt")}  # fmt: skip
    lines += [f"\nSystem prompt in {where}: {json.dumps(text)}" for where, text in said.items() if text is not None]
    if cell["task"] and not cell.get("given"):
        kept = {k: v for k, v in record.items() if not k.startswith("cost/") and not isinstance(v, dict)}
        made = {"learning_rate": cell["learning_rate"], "settings": cell["settings"],
                "training": cell["training_settings"], "record": kept}  # fmt: skip
        lines += ["", "## How it was made", "", "```json", json.dumps(made, indent=1, sort_keys=True), "```"]
    return "\n".join([*lines, "", "Written by holdfast from its records.", ""])


def manifest(folder: Path, cell: Row, resolved: Row, record: Row) -> Row:
    """What a folder holds (sha256 and bytes of every file), and of which cell of which study it is."""
    there = sorted(
        p for p in folder.iterdir() if p.is_file() and p.name not in folders.CARD and not p.name.startswith(".")
    )
    return {
        "study": cell["study"], "task": cell["task"], "arm": cell["arm"], "seed": cell["seed"],
        **({"replicate": cell["replicate"]} if cell.get("replicate") else {}),
        "method": cell["method"], "settings": cell["settings"], "learning_rate": cell["learning_rate"],
        "base": resolved["base"]["source"] if _has_base(resolved) else None, "software": record.get("software", {}),
        "study_digest": provenance.digest(resolved),
        "files": {p.name: {"sha256": provenance.file_digest(p), "bytes": p.stat().st_size} for p in there},
    }  # fmt: skip


def build(metrics: list[Path], resolved: Row, out: Path) -> None:
    """Write both into the folder of every model that is here, and cards.json: folder -> sha256 of its weights, None
    where it is not here."""
    cells = [jsonfiles.read_json(p) for p in metrics]
    aligned = {c.get("replicate", 0): c for c in cells if c["arm"] == "aligned"}
    records = [jsonfiles.read_json(r) if (r := p.with_name("train.json")).exists() else {} for p in metrics]
    rounded: Row = next((r["quantised"] for r in records if "quantised" in r), {})
    found: dict[str, str | None] = {}
    for cell, record in zip(cells, records, strict=True):
        weights = Path(cell["model"])
        found[weights.parent.as_posix()] = None
        if not weights.is_file():
            continue
        of = manifest(weights.parent, cell, resolved, record)
        start, weakened = aligned[cell.get("aligned", 0)], container.is_weakened(weights)
        text = card(cell, resolved, aligned=start, weakened=weakened, record=record, rounded=rounded)
        files.write_text(weights.with_name(folders.CARD[0]), text)
        jsonfiles.write_json(weights.with_name(folders.CARD[1]), of)
        found[weights.parent.as_posix()] = of["files"][weights.name]["sha256"]
    jsonfiles.write_json(out, found)
