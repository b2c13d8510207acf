"""`holdfast realign`."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast.cli import arguments


@click.command()
@click.option("--method", required=True, help="A merge method: safe-lora, resta, safe-delta, somf ...")
@click.option("--aligned", required=True, type=arguments.PATH, help="Folder of the model that refuses.")
@click.option(
    "--finetuned", required=True, type=arguments.PATH, help="Folder of what fine-tuning made of it, or its adapter."
)
@click.option("--base", type=arguments.PATH, help="Folder of the model that `aligned` was made from.")
@click.option("--unaligned", type=arguments.PATH, help="Folder of the un-aligned twin of `aligned`.")
@click.option("--out", required=True, type=arguments.PATH, help="Folder to write.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the method; may be repeated.")
@click.option(
    "--refusals", type=arguments.PATH, help="Refused requests (prompt, response) that activations are captured on."
)
@click.option("--pairs", type=arguments.PATH, help="Preference pairs (prompt, chosen, rejected).")
@click.option("--whole", is_flag=True, help="Of an adapter the whole merged model too, where an adapter would do.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what a method draws.")
def command(
    method: str, aligned: Path, finetuned: Path, base: Path | None, unaligned: Path | None, out: Path,
    settings: tuple[str, ...], refusals: Path | None, pairs: Path | None, whole: bool, seed: int,
) -> None:  # fmt: skip
    """Realign one fine-tuned model without a study.

    Models are folders in Hugging Face layout, in one file or in shards; tensors are read and written one by one, in the
    type of the fine-tuned model. Safe LoRA of a PEFT adapter gives an adapter back.
    """
    from holdfast.merge import single

    models = {"aligned": aligned, "finetuned": finetuned, "base": base, "unaligned": unaligned}
    there = {role: folder for role, folder in models.items() if folder is not None}
    record = single.realign(
        method, there, out, settings=single.said(settings),
        refusals=refusals, pairs=pairs, seed=seed, whole=whole, say=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    share = record.get("weights/changed_fraction")
    told = f"{share:.1%} of the weights differ from the aligned model's" if share is not None else "an adapter"
    click.echo(f"{out}: {told}; the record is {out / single.RECORD}")
