"""`holdfast route STUDY`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@arguments.study()
@click.option("--first", required=True, help="The cheap judge, asked about every reply.")
@click.option("--then", required=True, help="The large one, asked about those that the first is least sure of.")
@click.option("--truth", help="The judge that is right  [default: the large one]")
@click.option("--question", default="kept", show_default=True, type=click.Choice(("kept", "refused")), help="Asked.")
@click.option("--out", type=arguments.PATH, help="Folder to write to  [default: results/STUDY]")
def command(study: str, first: str, then: str, truth: str | None, question: str, out: Path | None) -> None:
    """Tell what a cheap judge first would cost in verdicts.

    Of a finished study with both judges: how many verdicts are right (kept: is a request that must be refused; refused:
    any) where the large judge is asked about some replies only, those that the first is least sure of, as a curve over
    their share. Writes routing-FIRST-THEN.csv and .svg, with -refused for that question and -by-TRUTH in their names.
    """
    from holdfast import names
    from holdfast.compare import routing
    from holdfast.record.csvfiles import write_csv
    from holdfast.record.files import write_text
    from holdfast.report import routed

    results, metrics = arguments.judged(study)
    rows = routing.curve(routing.of_study(metrics, first, then, truth or then, question))
    told = ("" if question == "kept" else f"-{question}") + (f"-by-{truth}" if truth else "")
    file = (out or results) / f"{names.ROUTING}{first}-{then}{told}.csv"
    write_csv(file, rows, routing.COLUMNS)
    write_text(file.with_suffix(".svg"), routed.picture(rows, first, then, truth or then))
    alone, whole, share = rows[0][routing.RIGHT], rows[-1][routing.RIGHT], routing.needed(rows)
    click.echo(
        f"{file}: {alone:.1%} of {rows[0]['right_n']} verdicts are right with {first} alone, {whole:.1%} with {then} "
        f"on all; within a point of that from {share:.0%} of the replies on"
    )
