"""Stage opinions: stored responses of one model -> what one model judge or server says of them."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.judges import asking

    source = Path(io.input.judge).parent if io.input.get("judge") else io.cfg["source"]
    asking.ask(
        io.cfg["judge"],
        cfg=io.cfg,
        source=source,
        responses=Path(io.input.responses),
        out=Path(io.output[0]),
        say=io.log,
    )


if __name__ == "__main__":
    main(job.start_models(snakemake))
