"""Stage judge: stored responses -> verdicts -> metrics. No model is loaded."""

from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.compare import metrics
    from holdfast.judges import verdicts

    rows = verdicts.judge(
        Path(io.input.responses),
        prompts=Path(io.input.prompts),
        tasks={Path(p).stem: Path(p) for p in io.input.tasks},
        datasets=io.cfg["datasets"],
        told=io.cfg["cell"].get("scorers"),
        judges=io.cfg["judges"],
        opinions=dict(zip(io.cfg["asked"], map(Path, io.input.get("opinions", [])), strict=True)),
        out=Path(io.output.verdicts),
    )
    record, divergence = (Path(io.input[k]) if io.input.get(k) else None for k in ("record", "divergence"))
    metrics.write(
        rows,
        cell=io.cfg["cell"],
        datasets=io.cfg["datasets"],
        record=record,
        divergence=divergence,
        out=Path(io.output.metrics),
    )


if __name__ == "__main__":
    main(job.start(snakemake, preload=["holdfast.record.schemas"]))
