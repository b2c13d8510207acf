"""`holdfast prefer FILES`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments

_WANTED = ("refuse", "answer")


@click.command()
@click.argument("files", nargs=-1, required=True, type=arguments.PATH)
@click.option("--out", required=True, type=arguments.PATH, help="File to write, .csv.")
@click.option("--wanted", default="refuse", show_default=True, type=click.Choice(_WANTED), help="Of every request.")
def command(files: tuple[Path, ...], out: Path, wanted: str) -> None:
    """Make preference pairs from several answers, by rules.

    FILES hold prompt and response, several rows per prompt, and perhaps wanted (refuse or answer): .csv, .jsonl or
    .parquet. Where answers differ by the rules (docs/judges.md), the best and the worst become a row with prompt,
    chosen and rejected, as a study takes them (preferences.source). Requests whose answers do not differ give no pair.
    """
    from holdfast.errors import DataError
    from holdfast.judges import preferring
    from holdfast.record.csvfiles import write_csv

    if out.exists() or out.suffix != ".csv":
        raise DataError(
            f"{out} cannot be written.", found=arguments.there(out) if out.exists() else out.name,
            expected="a new file, .csv", do="name another: --out pairs.csv",
        )  # fmt: skip
    rows = preferring.read(files, wanted)
    found, none = preferring.pairs(rows)
    told = (
        f"{none['tied']} tied, {none['unread']} with fewer than two that can be read, {none['alone']} with one answer"
    )
    if not found:
        raise DataError(
            "No request has answers that differ by the rules.", found=f"{len(rows)} answers; requests: {told}",
            expected="a better and a worse answer to some request", do="give answers of several models, or more draws",
        )  # fmt: skip
    write_csv(out, found, preferring.COLUMNS)
    click.echo(f"{len(found)} pairs in {out}; without one: {told}")
