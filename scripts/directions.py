"""Stage directions: Gram matrices -> the leading directions of the safety activations that `lead` holds."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.warp import families

    families.build_directions(Path(io.input[0]), io.cfg, Path(io.output[0]), io.log)


if __name__ == "__main__":
    main(job.start_models(snakemake, preload=["torch"], decomposes=True))
