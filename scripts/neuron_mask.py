"""Stage neuron mask: counts of safety (and foundation) neurons -> protected rows and columns as bits."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.train import neurons

    safety, *foundation = [Path(p) for p in io.input]
    neurons.build_mask(safety, foundation[0] if foundation else None, io.cfg, Path(io.output[0]))


if __name__ == "__main__":
    main(job.start_models(snakemake, preload=["torch"]))
