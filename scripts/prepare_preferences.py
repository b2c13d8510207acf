"""Stage data preparation, preferences: a refusal and a harmful answer to the same request."""

from holdfast import stage


def main(io) -> None:
    from holdfast import tables
    from holdfast.data import prepare

    rows = prepare.preference_rows(io.cfg)
    tables.write(rows, io.output[0], "preferences")
    io.log(f"{len(rows)} pairs")


if __name__ == "__main__":
    main(stage.start(snakemake, preload=["holdfast.schemas"]))
