"""Stage gate: the metrics and verdicts of every cell -> which arms may be shipped."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import gate

    capabilities = [Path(p) for p in io.input.get("capabilities", [])]
    gate.build([Path(p) for p in io.input.metrics], capabilities, io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start(snakemake))
