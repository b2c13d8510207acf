"""Stage data preparation, preferences: a refusal and a harmful answer to the same request."""

from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import leaks, prepare
    from holdfast.record import tables
    from holdfast.study import refusals

    rows = prepare.preference_rows(io.cfg, io.log)
    refusals.check_preferences(rows, io.cfg, io.log)
    if io.input.get("prompts"):  # of files that planning may not have had
        asked, source = tables.read(io.input.prompts, "prompts"), f"the preference pairs in {io.cfg['source']}"
        leaks.refuse(rows, asked, "", source, io.log)
    tables.write(rows, io.output[0], "preferences")
    io.log(f"{len(rows)} pairs")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
