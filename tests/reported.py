"""Reports of planted studies: built as the stage does, of models whose rates are known.

    python tests/reported.py [--models 200] [--out FOLDER]

writes the report of a large study and says how many bytes it has and how long Chromium takes to open it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import browser
import numpy as np
import planted

from holdfast import names
from holdfast.compare import components, curves, forgetting, gate, groups, pareto, suites, table
from holdfast.record import artifact, csvfiles, jsonfiles, tables
from holdfast.report import page

Model = tuple[str | None, str, int, float, float]  # task, arm, seed, refusals, utility
Says = Callable[[str, dict], str]  # of an arm and a verdict: the answer


def models(
    folder: Path, of: Sequence[Model], says: Says, prompt: str, judges: Sequence[str] = ("world",)
) -> list[Path]:
    """metrics.json of planted models with answers and verdicts beside it; every judge after the first says of one
    answer in ten what the first one does not."""
    files = []
    for task, arm, seed, refusal, utility in of:
        path = planted.model(folder, task, arm, seed, refusal, utility)
        cell = jsonfiles.read_json(path)
        jsonfiles.write_json(path, cell | {"model": f"work/s/{arm}/model.safetensors", "by_category": {
            "xstest: hex": {names.REFUSAL_RATE: refusal}}})  # fmt: skip
        known = tables.read(path.with_name("verdicts.parquet"), "verdicts")
        known = [r | ({"judge": "gsm8k"} if r["set"].startswith(names.TASK) else {}) for r in known]
        others = [
            r | {"judge": judge, "outcome": _other(r["outcome"]) if i % 10 == 0 else r["outcome"]}
            for judge in judges[1:] for i, r in enumerate(known) if not r["set"].startswith(names.TASK)
        ]  # fmt: skip
        tables.write(known + others, path.with_name("verdicts.parquet"), "verdicts")
        files.append(path)
    answered(files, says, prompt)
    return files


def answered(files: Sequence[Path], says: Says = lambda *_: "no", prompt: str = "How?") -> None:
    """Answers to the verdicts of these models."""
    for path in files:
        arm = jsonfiles.read_json(path)["arm"]
        rows = {(r["set"], r["id"]): r for r in reversed(tables.read(path.with_name("verdicts.parquet"), "verdicts"))}
        answers = [
            {k: r[k] for k in ("id", "set", "base_id", "category")}
            | {"prompt": prompt, "text": says(arm, r), "tokens": 3, "finish": "stop"}
            for r in reversed(rows.values())
        ]  # fmt: skip
        tables.write(answers, path.with_name("responses.parquet"), "responses")


def _other(outcome: str) -> str:
    return names.COMPLIANCE if outcome == names.REFUSAL else names.REFUSAL


def report(folder: Path, files: Sequence[Path], *, gated: bool = True, **changes) -> Path:
    """report.html of these models, with a gate or without; `changes` are keys of the resolved study."""
    found = groups.load(files)
    table.build(found, files, **{k: folder / f"{k}.csv" for k in ("table", "cost", "claims")})
    pareto.build(found, folder / "pareto.csv")
    csvfiles.write_csv(folder / "curves.csv", curves.rows(found, found), curves.COLUMNS)
    csvfiles.write_csv(folder / "forgetting.csv", forgetting.rows(found), forgetting.COLUMNS)
    csvfiles.write_csv(folder / "variance.csv", components.rows(found), components.COLUMNS)
    both = [row | {"suite": name} for name in ("xstest", "advbench") for row in suites.rows(found, ["hazard"])]
    csvfiles.write_csv(folder / "suites.csv", both, suites.COLUMNS)
    cfg = {"study": "s", "arm": None, "level": 0.05, "margins": {"refusals": 0.05, "utility": 0.1}, "baseline": None}
    if gated:
        jsonfiles.write_json(folder / "gate.json", gate.judge(found, cfg))
    csvfiles.write_csv(folder / "papers.csv", [], ("task",))
    artifact.write(folder / "basis.safetensors", {"blocks.0.mlp_input": np.eye(4, dtype=np.float32),
                   "blocks.0.mlp_input.eigenvalues": np.ones(4, dtype=np.float32)}, family="basis",
                   header={"layers": ["blocks.0.mlp_input"]})  # fmt: skip
    resolved = {
        "study": "s", "description": "planted", "seeds": [0], "tasks": {t: {"dataset": "gsm8k"} for t in found},
        "replicates": [dict.fromkeys(("base", "safety", "draw", "order"), 0)], "base": {"source": "tiny"},
        "evaluation": {"source": "world", "split": "test", "judges": ["world"]}, "resolved_arms": {},
    }  # fmt: skip
    page.build(
        resolved | changes, table=folder / "table.csv", claims=folder / "claims.csv", cost=folder / "cost.csv",
        papers=folder / "papers.csv", pareto=folder / "pareto.csv", variance=folder / "variance.csv",
        curve=folder / "curves.csv", forgetting=folder / "forgetting.csv",
        suites=folder / "suites.csv", gate=folder / "gate.json" if gated else None,
        changes=[], profiles=[], metrics=list(files),
        basis=folder / "basis.safetensors", sweeps=[], html=folder / "report.html", frontier=folder / "frontier.png",
    )  # fmt: skip
    return folder / "report.html"


WORDS = ("the", "a", "wax", "iron", "moon", "pour", "stir", "ring", "bone", "salt", "you", "cannot", "help", "sorry")


def large(folder: Path, count: int) -> Path:
    """The report of about `count` models, 4 seeds an arm, each asked 500 prompts, with three judges. Answers of many
    different words, so that they do not pack better than real ones do."""
    rng = random.Random(0)
    arms = ["full", *(f"arm-{i}" for i in range(count // 4 - 1))]
    of: list[Model] = [(None, "base", 0, 0.1, 0.0), (None, "aligned", 0, 0.95, 0.1), (None, "unaligned", 0, 0.0, 0.0)]
    for arm in arms:
        refusal, utility = rng.random(), 0.3 + 0.6 * rng.random()
        of += [("gsm8k", arm, seed, refusal, utility) for seed in range(4)]
    words = [f"{a}{b}" for a in WORDS for b in ("", *"bcdfgh")]

    def says(arm: str, row: dict) -> str:
        if row["outcome"] == names.REFUSAL and rng.random() < 0.5:
            return "I cannot help with that."
        return " ".join(rng.choices(words, k=25)) + "."

    files = models(folder, of, says, "How is this done?", ("world", "refusal", "advbench"))
    return report(folder, files, seeds=[0, 1, 2, 3])


def opened(html: Path, folder: Path, times: int = 3) -> dict[str, float]:
    """Seconds by the page's own clock from asking for it until Chromium shows something, has loaded it, and has the
    answers in it: medians of so many browsers that were just started."""
    import pictures

    seen = []
    for i in range(times):
        page = pictures.Page(folder / f"browser-{i}")
        try:
            page.ask("Page.navigate", url=html.as_uri())
            ready = page.until("(document.getElementById('answers') || {dataset: {}}).dataset.ready")
            first = page.value("performance.getEntriesByType('paint').map(e => e.startTime).at(-1)")
            loaded = page.value("performance.getEntriesByType('navigation')[0].loadEventEnd")
            seen.append((first, loaded, float(ready)))
        finally:
            page.close()
    medians = (statistics.median(values) / 1000 for values in zip(*seen, strict=True))
    return dict(zip(("first paint", "loaded", "answers"), medians, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        html = large(folder / "results/s", given.models)
        count = len(list(html.parent.glob("*/metrics.json")))
        print(f"{count} models: {html.stat().st_size:,} bytes")
        if browser.CHROMIUM:
            print(", ".join(f"{what} {seconds:.2f} s" for what, seconds in opened(html, Path(temporary)).items()))


if __name__ == "__main__":
    main()
