"""Stage realign: a fine-tuned cell and the models it is merged with -> a realigned model."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.merge import driver
    from holdfast.record import tables

    others = [Path(p).parent for p in io.input.get("others", [])]
    checkpoints = {
        role: Path(io.input[role]).parent
        for role in ("finetuned", "aligned", "base", "unaligned")
        if io.input.get(role)
    }
    checkpoints |= {f"finetuned:{i}": path for i, path in enumerate(others)}
    driver.run(
        checkpoints=checkpoints,
        cfg=io.cfg,
        folder=Path(io.output.model).parent,
        record_file=Path(io.output.record),
        gram_file=Path(io.input.gram) if io.input.get("gram") else None,
        preferences=tables.read(io.input.preferences, "preferences") if io.input.get("preferences") else None,
        say=io.log,
    )


if __name__ == "__main__":
    asks = bool(snakemake.input.get("preferences"))  # a method that has the model say how likely answers are
    main(job.start_models(snakemake, hide=["peft"], preload=job.MODELS if asks else ["torch"], decomposes=True))
