"""Stage neurons: in how many samples each neuron of the aligned model matters."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.train import neurons

    neurons.build_counts(Path(io.input.model), Path(io.input.safety), io.cfg, Path(io.output[0]), io.log)


if __name__ == "__main__":
    main(job.start_models(snakemake, hide=["peft"]))
