"""Stage respond: one checkpoint answers every prompt it is evaluated on, greedily, once."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.evaluate import answers

    answers.respond(
        Path(io.input.model),
        prompts=Path(io.input.prompts),
        tasks={Path(p).stem: Path(p) for p in io.input.tasks},
        cfg=io.cfg,
        out=Path(io.output[0]),
        base=Path(io.input.base) if io.input.get("base") else None,
        say=io.log,
    )


if __name__ == "__main__":
    main(job.start_models(snakemake, hide=["peft"]))
