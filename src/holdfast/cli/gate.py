"""`holdfast gate STUDY`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.study.resolve import Resolved

_NEEDED = ("study", "task", "arm", "seed", "split", "judge", "datasets", "method")


@click.command()
@arguments.study()
@click.option("--arm", help="the arm to judge; default: what gate.arm says, else each but the baseline")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True,
              help="markdown is for a pull request")  # fmt: skip
def command(study: str, arm: str | None, form: str) -> int:
    """Say whether an arm of a finished study may be shipped.

    Refusals, over-refusal, utility and capabilities must not be worse than a margin allows (`gate` in a study).

    Exit code 0: ship. Exit code 1: do not, something was lost. Exit code 3: not resolved, and how many prompts or draws
    would tell. Of several arms the worst counts.
    """
    from holdfast.compare import gate
    from holdfast.errors import StudyError
    from holdfast.report import verdicts
    from holdfast.study import resolve
    from holdfast.study.reading import check_known

    resolved = resolve.load(study)
    if arm is not None:
        check_known((arm,), resolved.arms, resolved.path, "--arm", "an arm that the study does not have", "arms")
    cfg, results = resolved.gate_cfg(arm), Path("results") / resolved.name
    places = resolved.judged
    metrics = [results / place / "metrics.json" for place in places]
    capabilities = [results / place / "capabilities.parquet" for place in places] if cfg["cells"] else []
    verdicts_of = [path.with_name("verdicts.parquet") for path in metrics]
    missing = [path for path in (*metrics, *verdicts_of, *capabilities) if not path.exists()]
    if missing:
        raise StudyError(
            f"Study '{resolved.name}' is not finished.", found=f"no {missing[0]}" + (f" and {len(missing) - 1} more"
            if missing[1:] else ""), expected="every model judged",
            do=f"snakemake --config study={study} -- results/{resolved.name}/gate.json",
        )  # fmt: skip
    _refuse_others(resolved, dict(zip(places, metrics, strict=True)), study)
    _refuse_older(resolved, metrics, study)
    found = gate.of_files(metrics, capabilities, cfg)
    if form == "json":
        click.echo(json.dumps(found, indent=2, sort_keys=True))
    else:
        click.echo(verdicts.markdown(found) if form == "markdown" else verdicts.text(found))
    return gate.EXIT[found["verdict"]]


def _refuse_others(resolved: Resolved, metrics: dict[str, Path], study: str) -> None:
    """Refuse results that were made before the study said what it says now: a verdict would be about other models.

    Raises:
        StudyError: the first model whose metrics.json says something else, or cannot be read.
    """
    from holdfast.errors import StudyError
    from holdfast.record import jsonfiles, paths

    models: list[tuple[str | None, str, int, str]] = [
        *((None, role, 0, folder) for folder, role in resolved.role_places),
        *((*cell, folder) for folder in resolved.folders for cell in resolved.models(folder)),
    ]

    def same(key: str, a: Any, b: Any) -> bool:
        """Whether a key says the same; of a given model, whether it is the same place."""
        return bool(a == b) or (key == "given" and len({os.path.normpath(paths.home(str(x))) for x in (a, b)}) == 1)

    for (place, path), (task, arm, seed, folder) in zip(metrics.items(), models, strict=True):
        said = json.loads(json.dumps(resolved.judge_cfg(task, arm, seed, "", folder)["cell"]))
        del said["model"]
        try:
            found = dict(jsonfiles.read_json(path))
        except (OSError, ValueError, TypeError):
            found = {}
        other = [k for k, v in said.items() if (k in found or k in _NEEDED) and not same(k, found.get(k), v)]
        if other:
            key = other[0]
            raise StudyError(
                f"{path} is not of the study as {resolved.path} is now." if found else f"{path} is damaged.",
                found=f"{place}: {key} {found.get(key)!r:.80}" if found else "no JSON object",
                expected=f"{key} {said[key]!r:.80}" if found else "what a model is and its rates",
                do=f"snakemake --config study={study} -- results/{resolved.name}/gate.json",
            )  # fmt: skip


def _refuse_older(resolved: Resolved, metrics: Sequence[Path], study: str) -> None:
    """Refuse results that are older than a model or a table of the user's that they were made from.

    Raises:
        StudyError: the newest such file.
    """
    from holdfast.errors import StudyError
    from holdfast.study import inputs

    made = min(path.stat().st_mtime for path in metrics)
    newer = {path: path.stat().st_mtime for path in inputs.measured(resolved) if path.stat().st_mtime > made}
    if newer:
        newest = max(newer, key=newer.__getitem__)
        raise StudyError(
            f"{newest} is newer than what was measured with it.", found=f"results of '{resolved.name}' that are older",
            expected="answers of the models and to the prompts as they are now",
            do=f"snakemake --config study={study} -- results/{resolved.name}/gate.json",
        )  # fmt: skip
