"""Stage data preparation, safety: refusals to hazards and answers to benign requests."""

from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import benign, leaks, prepare
    from holdfast.record import tables
    from holdfast.study import refusals

    rows = prepare.safety_rows(io.cfg, io.log, refusals.whole)
    answered = tables.read(io.input.benign, "safety") if io.input.get("benign") else []
    answered = benign.apart(answered, rows, io.log)
    refusals.check_safety(rows + answered, io.cfg, io.log)
    if io.input.get("prompts"):  # of files that planning may not have had, and of every draw of the rows
        source, asked = f"the safety rows in {io.cfg['source']}", tables.read(io.input.prompts, "prompts")
        leaks.refuse(prepare.trained_on(rows), asked, "", source, io.log, io.cfg.get("without", []))
        leaks.refuse(answered, asked, "", "the requests that the base answers itself", io.log)
    rows += answered
    tables.write(rows, io.output[0], "safety")
    io.log(f"{len(rows)} rows")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
