"""Stage data preparation, one task: a training pool, validation and test rows."""

from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import leaks, prepare, sources, table
    from holdfast.record import tables

    source = None if io.cfg["source"] == "world" else sources.local_folder(io.cfg["dataset"], io.cfg["source"])
    rows = prepare.task_rows(io.cfg, source)
    if io.input.get("prompts"):  # of files that planning may not have had
        asked = tables.read(io.input.prompts, "prompts")
        trained = table.requests(rows, io.cfg["dataset"])
        leaks.refuse(trained, asked, "", f"the training rows of tasks.{io.wildcards.task}", io.log)
    tables.write(rows, io.output[0], io.cfg["dataset"])
    io.log(f"{len(rows)} rows of {io.cfg['dataset']}")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
