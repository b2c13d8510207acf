"""Stage compare_attacks: the trials and the best models of every attack -> attack.csv."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import attacks, groups
    from holdfast.record import results

    attacked, untuned = (groups.load([Path(p) for p in io.input[name]]) for name in ("metrics", "untuned"))
    trials = attacks.gathered([Path(p) for p in io.input.trials])
    rows = attacks.rows(attacked, untuned, trials, io.cfg["dollars_per_hour"])
    results.write(Path(io.output[0]), rows, "attack")


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
