"""`holdfast answers STUDY`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@arguments.study()
@click.option("--format", "form", type=click.Choice(["page", "inspect"]), default="page", show_default=True,
              help="one HTML file to browse in, or a folder of logs for the viewer of Inspect")  # fmt: skip
@click.option("--texts", is_flag=True, help="prompts and answers too, where they are not of the fictional world")
@click.option("--out", type=arguments.PATH, help="file or folder; default: answers/STUDY.html, answers/STUDY")
def command(study: str, form: str, texts: bool, out: Path | None) -> None:
    """Write what the models answered and the judges made of it.

    Redacted where prompts are not of the fictional world, unless --texts asks for them: such a file holds
    whatever the models were brought to say, and is yours to keep.
    """
    from holdfast.archive import inspect_logs
    from holdfast.errors import StudyError, UsageError
    from holdfast.record import jsonfiles
    from holdfast.report import answers, page
    from holdfast.study import resolve

    resolved = resolve.load(study)
    results = Path("results") / resolved.name
    places = resolved.judged
    parts = ("metrics.json", "responses.parquet", "verdicts.parquet")
    there = [place for place in places if all((results / place / part).exists() for part in parts)]
    if not there:
        raise StudyError(
            f"No model of the study '{resolved.name}' is judged yet.", found=f"no {results / places[0] / parts[0]}",
            expected="a study that has answers", do=f"snakemake --config study={study} -- metrics",
        )  # fmt: skip
    metrics = [results / place / "metrics.json" for place in there]
    count = f"{len(there)} models" if len(there) == len(places) else f"{len(there)} of {len(places)} models so far"
    settings = resolved.dump()
    shown = texts or answers.are_open(settings)
    if form == "page":
        out = out or Path("answers") / f"{resolved.name}.html"
        cells = [(jsonfiles.read_json(path), path.parent) for path in metrics]
        page.of_answers(settings, cells, out, texts=shown)
        click.echo(f"{out}: answers of {count}" + ("" if shown else ", redacted (--texts writes them)"))
        return
    out = out or Path("answers") / resolved.name
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is there already.", found="a file" if out.is_file() else f"{len(list(out.iterdir()))} files in it",
            expected="a folder to make, or an empty one", do="remove it, or name another one with --out",
        )  # fmt: skip
    inspect_logs.build(metrics, results, out, settings["evaluation"], texts=shown)
    click.echo(f"{out}: logs of {count}" + ("" if shown else ", redacted (--texts writes what was said)"))
    click.echo(f"to look at them: inspect view --log-dir {out}")
