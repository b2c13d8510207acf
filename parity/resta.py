"""RESTA as the authors of WSR-Tune add it: `scripts/resta_add_safety.py`, run whole on three folders.

The code of RESTA's own authors, who merge with mergekit, was not to be had.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from holdfast.methods import resta
from parity import code, tiny

REPOSITORY, COMMIT = "min-seong-kim/Safety-WaRP-LLM", "62655ede3a130387ded918ae63d3f9b6053b70aa"


def compare(theirs: code.Code) -> list[code.Row]:
    base = tiny.llama(1, torch.float32)
    models = {"base": base, "aligned": tiny.moved(base, 0.05, 2), "finetuned": tiny.moved(base, 0.1, 3)}
    stored = {role: {k: v.clone() for k, v in m.state_dict().items()} for role, m in models.items()}
    script, rows = theirs.module("scripts/resta_add_safety.py"), []
    context = tiny.context(stored, list(stored["base"]))
    settings = resta.Settings(gamma=0.3, vector="base")
    ours = {k: resta.merge(k, context.weights(k), settings, None) for k in context.names}
    with tempfile.TemporaryDirectory() as folder:
        places = {role: Path(folder, role) for role in [*stored, "out"]}
        for role, tensors in stored.items():
            places[role].mkdir()
            save_file(tensors, places[role] / "model.safetensors", metadata={"format": "pt"})
            (places[role] / "config.json").write_text("{}")
        for dtype, within in (("float32", 1e-6), ("bfloat16", 1e-2)):
            asked = [
                "",
                "--model1",
                places["finetuned"],
                "--model2",
                places["aligned"],
                "--model3",
                places["base"],
                "--weight2",
                0.3,
                "--weight3",
                -0.3,
                "--output_path",
                places["out"],
                "--dtype",
                dtype,
            ]
            with mock.patch.object(sys, "argv", [str(x) for x in asked]):
                script.main()
            want = load_file(places["out"] / "model.safetensors")
            because = "float32 on both sides" if dtype == "float32" else "they write bfloat16 unless asked otherwise"
            rows.append(code.Row(f"θ', written as {dtype}", tiny.far(ours, want), within, because))
    return rows


if __name__ == "__main__":
    sys.exit(code.main(sys.modules[__name__]))
