"""Stage diverge: a fine-tuned model, the aligned one and its answers -> how far their next tokens are apart."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.evaluate import divergence

    divergence.measure(
        Path(io.input.model),
        Path(io.input.aligned),
        Path(io.input.responses),
        cfg=io.cfg,
        out=Path(io.output[0]),
        say=io.log,
    )


if __name__ == "__main__":
    main(job.start_models(snakemake, hide=["peft"]))
