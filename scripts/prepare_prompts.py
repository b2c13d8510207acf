"""Stage data preparation, evaluation prompts: hazards, wrapped hazards, lookalikes and crafts."""

from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import prepare
    from holdfast.record import tables

    rows = prepare.prompt_rows(io.cfg, io.log)
    if "splits" in io.cfg:  # of a user, perhaps from an address, which planning does not read
        prepare.refuse_unasked(rows, io.cfg["splits"], io.cfg["source"])
    tables.write(rows, io.output[0], "prompts")
    io.log(f"{len(rows)} prompts")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
