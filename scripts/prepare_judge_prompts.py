"""Stage prepare_judge_prompts: requests of the training split, for the judge to learn from."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import tables
    from holdfast.data import prepare

    tables.write(prepare.judge_prompt_rows(io.cfg), Path(io.output[0]), "prompts")


if __name__ == "__main__":
    main(stage.start(snakemake, preload=["holdfast.schemas"]))
