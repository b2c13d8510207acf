"""Stage agreement: opinions of the constitution judge against the world's verdicts."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast import agreement

    agreement.write(
        [Path(p) for p in io.input.metrics],
        verdicts=[Path(p) for p in io.input.verdicts],
        opinions=[Path(p) for p in io.input.opinions],
        out=Path(io.output[0]),
    )


if __name__ == "__main__":
    main(stage.start(snakemake))
