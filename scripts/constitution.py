"""Stage constitution: stored responses of one model -> opinions of the constitution judge."""

from pathlib import Path

from holdfast import stage


def main(io) -> None:
    from holdfast.judges import constitution

    source = Path(io.input.judge).parent if io.input.get("judge") else io.cfg["source"]
    constitution.judge(source, responses=Path(io.input.responses), cfg=io.cfg, out=Path(io.output[0]), say=io.log)


if __name__ == "__main__":
    main(stage.start_models(snakemake))
