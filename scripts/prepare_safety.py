"""Stage data preparation, safety: refusals to hazards and answers to benign requests."""

from holdfast import stage


def main(io) -> None:
    from holdfast import tables
    from holdfast.data import prepare

    rows = prepare.safety_rows(io.cfg)
    tables.write(rows, io.output[0], "safety")
    io.log(f"{len(rows)} rows")


if __name__ == "__main__":
    main(stage.start(snakemake, preload=["holdfast.schemas"]))
