"""Stage label_pairs: replies of base and aligned model, or the user's pairs -> labelled pairs as examples."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import prepare
    from holdfast.judges import constitution
    from holdfast.record import tables

    if io.cfg["pairs"] != "world":
        rows = prepare.own_judge_pairs(io.cfg["pairs"])
    else:
        answers = [tables.read(p, "responses") for p in io.input.answers]
        asked = {r["id"]: r for r in tables.read(io.input.prompts[0], "prompts")}
        rows = constitution.label(answers, asked, mismatched=io.cfg["mismatched"], seed=io.cfg["seed"])
    tables.write(constitution.examples(rows, io.cfg["guidelines"]), Path(io.output[0]), "judge_examples")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
