"""Stage data preparation, evaluation prompts: hazards, wrapped hazards, lookalikes and crafts."""

from holdfast import stage


def main(io) -> None:
    from holdfast import tables
    from holdfast.data import prepare

    rows = prepare.prompt_rows(io.cfg)
    tables.write(rows, io.output[0], "prompts")
    io.log(f"{len(rows)} prompts")


if __name__ == "__main__":
    main(stage.start(snakemake, preload=["holdfast.schemas"]))
