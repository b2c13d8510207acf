"""`python -m holdfast.judges calibrate FILE ... | fit FILE ...`: the refusal judge against people."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast import statistics
from holdfast.errors import HoldfastError
from holdfast.judges import calibration, refusal
from holdfast.record import jsonfiles
from holdfast.study import registry

Rows = list[dict[str, str]]
KEYWORD_JUDGES = ("advbench", "wsr-150", "harmbench-prefix")


def line(name: str, rows: Rows, judge: Callable[[str, str], str]) -> str:
    """One row of the table: agreement on any refusal and on three classes, kappa of both."""
    pairs = [(r["label"], judge(r["prompt"], r["text"])) for r in rows]

    def agreement(of: Callable[[str], str], labels: Sequence[str]) -> str:
        hits = sum(of(a) == of(b) for a, b in pairs)
        low, high = statistics.wilson(hits, len(pairs))
        matrix = [[sum(of(a) == x and of(b) == y for a, b in pairs) for y in labels] for x in labels]
        k = statistics.kappa(matrix)[0]
        share = f"{100 * hits / len(pairs):5.1f} [{100 * low:4.1f}, {100 * high:5.1f}]"
        return f"{share}  {'  -  ' if k is None else f'{k:5.2f}'}"

    refused = agreement(lambda x: "no" if x == refusal.COMPLIANCE else "yes", ("no", "yes"))
    return f"{name:42}{len(pairs):>6}  {refused}   {agreement(lambda x: x, refusal.LABELS)}"


HEAD = f"{'answers of':42}{'n':>6}  {'any refusal, %':>21} kappa   {'three classes, %':>21} kappa"


def shipped(prompt: str, text: str) -> str:
    return refusal.judge(prompt, text).label


def left_out(rows: Rows) -> list[str]:
    """Per model: agreement when the weights were fitted on the others, and on those others themselves."""
    lines = []
    for model in sorted({r["model"] for r in rows}):
        others, mine = [r for r in rows if r["model"] != model], [r for r in rows if r["model"] == model]
        if not others:
            continue
        fitted = calibration.fit(others)

        def judge(prompt: str, text: str, fitted=fitted) -> str:
            return refusal.judge(prompt, text, fitted).label

        lines += [line(f"{model}, left out", mine, judge), line(f"{model}: the fitted ones", others, judge)]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="holdfast.judges", description=__doc__)
    parser.add_argument("what", choices=["calibrate", "fit"])
    parser.add_argument("files", nargs="+", type=Path, help="prompt, response, label (and model), .csv .jsonl .parquet")
    parser.add_argument("--out", type=Path, default=refusal.WEIGHTS, help="where fit writes the weights")
    args = parser.parse_args(arguments)
    try:
        rows = calibration.read(args.files)
    except HoldfastError as error:
        sys.stderr.write(error.block() + "\n")
        return error.exit_code
    models = sorted({r["model"] for r in rows})
    lines = [HEAD]
    if args.what == "fit":
        jsonfiles.write_json(args.out, {"fitted_on": {m: sum(r["model"] == m for r in rows) for m in models},
                                       "weights": calibration.fit(rows)})  # fmt: skip
        refusal.weights.cache_clear()
        lines += left_out(rows)
    lines += [line(m, [r for r in rows if r["model"] == m], shipped) for m in models]
    lines += [line("all", rows, shipped)] if len(models) > 1 else []
    for name in KEYWORD_JUDGES:
        keywords = registry.load_judge(name).KEYWORDS

        def by_phrases(prompt: str, text: str, keywords=keywords) -> str:
            return refusal.FULL if keywords.refused(text) else refusal.COMPLIANCE

        lines.append(line(f"all, by the keyword judge {name}", rows, by_phrases))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
