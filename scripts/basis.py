"""Stage basis: Gram matrices -> one orthonormal basis per distinct layer input, or one of its controls."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.warp import families

    gram, out = Path(io.input.gram), Path(io.output[0])
    if io.wildcards.basis == "random":
        families.build_random_basis(gram, io.cfg["seed"], out)
    elif io.wildcards.basis == "output":
        families.build_output_basis(Path(io.input.model), gram, io.cfg, out)
    elif io.wildcards.basis == "permuted":
        families.build_permuted_basis(Path(io.input.model), Path(io.input.basis), io.cfg, out)
    else:
        families.build_basis(gram, out, io.log)


if __name__ == "__main__":
    main(job.start_models(snakemake, preload=["torch"], decomposes=True))
