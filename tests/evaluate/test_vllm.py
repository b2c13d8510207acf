"""Answers by vLLM: what it is asked, what is made of what it says, and the same answers where it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from transformers import GenerationConfig

from holdfast.errors import ArtifactError, StudyError
from holdfast.evaluate import answers, vllm_backend
from holdfast.model import folders
from holdfast.record import tables
from holdfast.study import preflight, resolve
from holdfast.world.model import new_model

# In place of vLLM, where that is not: transformers, asked as vLLM is. It refuses what vLLM would not do greedily.
STAND_IN = """
    import os, sys, time
    __version__ = "0.0"
    class SamplingParams:
        def __init__(self, **kwargs):
            assert set(kwargs) == {"temperature", "max_tokens", "stop_token_ids", "ignore_eos", "detokenize"}, kwargs
            assert kwargs["temperature"] == 0 and kwargs["ignore_eos"] and not kwargs["detokenize"]
            self.__dict__.update(kwargs)
    class Out:
        def __init__(self, ids, finish):
            self.outputs = [self]
            self.token_ids, self.finish_reason = tuple(ids), finish
    class LLM:
        def __init__(self, model, dtype, max_model_len, **kwargs):
            assert kwargs["generation_config"] == "vllm" and kwargs["skip_tokenizer_init"] and kwargs["seed"] == 0
            assert not kwargs["trust_remote_code"]
            if kwargs.get("swap_space") == 13: sys.exit("no room for the cache")
            if kwargs.get("swap_space") == 99: time.sleep(60)
            from transformers import AutoModelForCausalLM
            self.model, self.longest = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval(), max_model_len
        def generate(self, prompts, params, use_tqdm):
            import torch
            out = []
            for prompt, p in zip(prompts, params, strict=True):
                ids, new = prompt["prompt_token_ids"], []
                assert len(ids) + p.max_tokens <= self.longest
                while len(new) < p.max_tokens and not (new and new[-1] in p.stop_token_ids):
                    with torch.inference_mode():
                        new.append(int(self.model(torch.tensor([[*ids, *new]])).logits[0, -1].argmax()))
                out.append(Out(new, "stop" if new[-1] in p.stop_token_ids else "length"))
            return out
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An interpreter whose vllm is the stand-in: a script, as in an environment of its own."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/vllm.py").write_text(textwrap.dedent(STAND_IN))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "site"}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv(vllm_backend.VARIABLE, str(python))
    return python


def files(tmp_path, model, tokenizer):
    """A checkpoint that wishes penalties, prompts and headlines."""
    model.generation_config = GenerationConfig(repetition_penalty=1.9, do_sample=True, temperature=3.0)
    folders.save(model, tokenizer, tmp_path / "m", header={"role": "aligned"})
    prompt = {"split": "test", "set": "hazard", "base_id": "b", "category": "c", "wrapper": "", "response": ""}
    texts = ("How do I brew a hex?", "hex", "Tell me how to open a vault without a key, slowly and with care.")
    tables.write([prompt | {"id": str(i), "prompt": t} for i, t in enumerate(texts)], tmp_path / "p.parquet", "prompts")
    rows = [{"id": f"{s}{i}", "split": s, "text": t, "label": 1}
            for s in ("train", "test") for i, t in enumerate(("A match", "Two old ships at sea"))]  # fmt: skip
    tables.write(rows, tmp_path / "agnews.parquet", "agnews")


def respond(tmp_path, name, **more):
    task = {"dataset": "agnews", "max_new_tokens": 4, "instruction": "Say: {text}"}
    cfg = {"split": "test", "max_new_tokens": 20, "batch_size": 2, "tasks": {"agnews": task}} | more
    answers.respond(tmp_path / "m/model.safetensors", prompts=tmp_path / "p.parquet",
                    tasks={"agnews": tmp_path / "agnews.parquet"}, cfg=cfg, out=tmp_path / name)  # fmt: skip
    return tables.read(tmp_path / name, "responses")


SERVED = {"vllm": {"dtype": "float32", "options": {}}}


def test_the_same_table_and_the_same_answers(tmp_path, model, tokenizer, stand_in):
    files(tmp_path, model, tokenizer)
    ours, theirs = respond(tmp_path, "a.parquet"), respond(tmp_path, "b.parquet", **SERVED)
    assert len(ours) == 5 and {r["finish"] for r in ours} & {"stop", "length"}

    def without(rows):
        return [{k: v for k, v in r.items() if k != "generation"} for r in rows]

    assert without(ours) == without(theirs)
    kinds = [{r["set"]: r["generation"] for r in rows} for rows in (ours, theirs)]
    assert not set(kinds[0].values()) & set(kinds[1].values()), "another backend is another way of generating"
    half = respond(tmp_path, "c.parquet", vllm={"dtype": "bfloat16", "options": {}}, system_prompt=None)
    assert {r["generation"] for r in half}.isdisjoint(kinds[1].values())


def test_an_answer_ends_where_the_model_has_no_more_positions(tmp_path, model, tokenizer, stand_in):
    folders.save(model, tokenizer, tmp_path / "m", header={"role": "aligned"})
    prompts = [([1] * n, 6) for n in (256, 300, 253, 250, 3)]
    found = vllm_backend.generate(tmp_path / "m", prompts, stops=[], positions=256, settings=SERVED["vllm"])
    assert [(len(new), finish) for new, finish in found] == [
        (0, "context"), (0, "context"), (3, "context"), (6, "length"), (6, "length")
    ]  # fmt: skip
    stop = found[4][0][2]
    cut = vllm_backend.generate(tmp_path / "m", prompts[4:], stops=[stop], positions=None, settings=SERVED["vllm"])
    assert cut == [(found[4][0][: found[4][0].index(stop)], "stop")]


def test_what_vllm_says_when_it_fails_is_in_the_log(tmp_path, model, tokenizer, stand_in, capfd):
    files(tmp_path, model, tokenizer)
    with pytest.raises(ArtifactError, match="vLLM gave no answers"):
        respond(tmp_path, "a.parquet", vllm={"dtype": "float32", "options": {"swap_space": 13}})
    assert "no room for the cache" in capfd.readouterr().err and not (tmp_path / "a.parquet").exists()


def test_it_ends_with_whoever_asked(tmp_path, model, tokenizer, stand_in):
    folders.save(model, tokenizer, tmp_path / "m", header={"role": "aligned"})
    asks = (
        "from pathlib import Path; from holdfast.evaluate import vllm_backend as v\n"
        f"v.generate(Path({str(tmp_path / 'm')!r}), [([1, 2], 3)], stops=[], positions=None,"
        " settings={'dtype': 'float32', 'options': {'swap_space': 99}})"
    )
    asker = subprocess.Popen([sys.executable, "-c", asks], env=os.environ | {"PYTHONPATH": "src"})

    def workers():
        out = subprocess.run(["pgrep", "-f", str(vllm_backend._WORKER)], capture_output=True, text=True).stdout
        return [p for p in out.split() if str(tmp_path).encode() in Path(f"/proc/{p}/environ").read_bytes()]

    deadline = time.monotonic() + 60
    while not workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers()
    asker.kill()
    asker.wait()
    while workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers()


def test_a_worker_that_ends_before_it_reads_is_one_block(tmp_path, monkeypatch):
    """What it did not read is more than a pipe holds, so that it is left to be written when the pipe is closed."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv(vllm_backend.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(ArtifactError, match="ended with code 3"):
        vllm_backend.generate(tmp_path, [([1] * 100_000, 3)], stops=[2], positions=None, settings=SERVED["vllm"])


@pytest.mark.parametrize(("python", "found"), [(sys.executable, "no vllm in"), ("/nowhere/python", "no Python")])
def test_a_study_that_asks_vllm_is_refused_without_it(python, found, tmp_path, monkeypatch):
    monkeypatch.setenv(vllm_backend.VARIABLE, python)
    served = {"backend": "vllm", "vllm": {"options": {"enforce_eager": True}}, "batch_size": 3}
    mine = {"extends": str(ROOT / "config/smoke.yaml"), "evaluation": served}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    study = resolve.load(str(tmp_path / "mine.yaml"))
    assert study.generation_cfg([])["vllm"] == {"dtype": "float32", "options": {"enforce_eager": True}}
    with pytest.raises(StudyError, match=r"evaluation.backend asks vLLM") as error:
        preflight.check_packages(study)
    assert found in error.value.block() and "pip install vllm" in error.value.block()
    said: list[str] = []
    preflight.check_packages(study, said.append)
    assert len(said) == 1 and "asks vLLM, which is not there" in said[0]


@pytest.mark.skipif("HOLDFAST_VLLM" not in os.environ, reason="HOLDFAST_VLLM names no interpreter with vLLM")
def test_vllm_itself_answers_as_transformers_does(tmp_path, tokenizer):
    wide = new_model(tokenizer, hidden_size=128, intermediate_size=96, layers=2, heads=2, kv_heads=1,
                     max_positions=256, seed=0)  # fmt: skip
    files(tmp_path, wide, tokenizer)  # its heads are as wide as vLLM has them
    served = {"vllm": {"dtype": "float32", "options": {"enforce_eager": True}}}
    ours, theirs = respond(tmp_path, "a.parquet"), respond(tmp_path, "b.parquet", **served)
    assert [(r["text"], r["tokens"], r["finish"]) for r in ours] == [
        (r["text"], r["tokens"], r["finish"]) for r in theirs
    ]
