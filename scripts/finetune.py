"""Stage finetune: one cell, aligned model + task rows + a method -> a fine-tuned model."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.track import live
    from holdfast.train import finetune

    given = {k: Path(io.input[k]) for k in finetune.ARTIFACTS if io.input.get(k)}
    log_file = Path(io.output.curve)
    with live.live(io.params.tracking if io.leads else None, log_file, io.log):
        finetune.run(
            aligned=Path(io.input.model),
            task_table=Path(io.input.task),
            safety_table=Path(io.input.safety) if io.input.get("safety") else None,
            harmful_table=Path(io.input.harmful) if io.input.get("harmful") else None,
            artifacts=given,
            cfg=io.cfg,
            folder=Path(io.output.model).parent,
            log_file=log_file,
            record_file=Path(io.output.record),
            checkpoints=Path(io.params.checkpoints),
            code=io.code,
            say=io.log,
            terminal=io.terminal,
            name="/".join(filter(None, io.wildcards)),
        )


if __name__ == "__main__":
    main(job.start_models(snakemake, decomposes=bool(snakemake.input.get("gram"))))
