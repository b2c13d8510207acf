"""Stage answer benign: the base answers harmless requests itself -> benign rows for its own safety training."""

import math
from pathlib import Path
from types import SimpleNamespace

from holdfast.stage import job


def main(io: SimpleNamespace) -> None:
    from holdfast.data import benign
    from holdfast.evaluate import answers
    from holdfast.model import folders
    from holdfast.record import tables
    from holdfast.study import refusals

    prompts = benign.prompts(io.cfg, refusals.helps)[: math.ceil(benign.SPARE * io.cfg["count"])]
    model, tokenizer = folders.load(Path(io.input.model).parent, role="base")
    limits = {key: io.cfg[key] for key in ("max_new_tokens", "batch_size")}
    said = answers.answer(model, tokenizer, prompts, **limits, say=io.log)
    tables.write(refusals.own_answers(prompts, said, io.cfg["count"], io.log), io.output[0], "safety")


if __name__ == "__main__":
    main(job.start_models(snakemake, hide=["peft"]))
