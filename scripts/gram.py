"""Stage gram: aligned model + refused safety rows -> one Gram matrix per distinct layer input."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.warp import families

    families.build_gram(Path(io.input.model), Path(io.input.safety), io.cfg, Path(io.output[0]), io.log)


if __name__ == "__main__":
    main(job.start_models(snakemake))
