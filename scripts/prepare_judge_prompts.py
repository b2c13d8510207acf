"""Stage prepare_judge_prompts: requests of the training split, for the judge to learn from."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import prepare
    from holdfast.record import tables

    tables.write(prepare.judge_prompt_rows(io.cfg), Path(io.output[0]), "prompts")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
