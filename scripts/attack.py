"""Stage attack: an aligned model, task rows and a defence -> an attacker's trials and his best model."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.attack import search

    of = {name: value for name, value in io.input.items() if value}
    search.Search(
        inputs={name: value if isinstance(value, str) else list(value) for name, value in of.items()},
        cfg=io.cfg,
        kept=Path(io.params.kept),
        code=io.code,
        say=io.log,
        terminal=io.terminal,
        name="/".join(filter(None, io.wildcards)),
    ).run(
        folder=Path(io.output.model).parent,
        record_file=Path(io.output.record),
        trials_file=Path(io.output.trials),
    )


if __name__ == "__main__":
    decomposes = bool(snakemake.params.cfg["merge"] or snakemake.input.get("gram"))
    main(job.start_models(snakemake, decomposes=decomposes))
