"""Stage basis: Gram matrices -> one orthonormal basis per distinct layer input (or the random control)."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast.warp import families

    if io.wildcards.basis == "random":
        families.build_random_basis(Path(io.input[0]), io.cfg["seed"], Path(io.output[0]))
    else:
        families.build_basis(Path(io.input[0]), Path(io.output[0]), io.log)


if __name__ == "__main__":
    main(stage.start(snakemake))
