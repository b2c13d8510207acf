"""One training in several processes: the stage script, launched as a job is, on two gloo processes of this machine.

Their trajectory is that of one process. Not bit by bit: a gradient is the sum of sums of two processes, which rounds in
another order. TOLERANCE has room for what float32 makes of that (measured: 2e-8, where weights move by 1e-2); a row
too many, or the norm of half the gradients, is a thousand times as much. `test_spread` has every method.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from holdfast.errors import EngineError
from holdfast.model import folders, layers
from holdfast.record import artifact, container, tables
from holdfast.stage import several
from holdfast.study import registry
from holdfast.train import finetune
from holdfast.warp import masks
from holdfast.warp.basis import random_orthogonal

MODULES = ["q_proj", "up_proj"]
# 22 rows, steps of 8: the last step of an epoch has 6 rows, 3 for each process. Two micro-batches, one for each.
TRAINING = {"learning_rate": 3e-3, "epochs": 2, "batch_size": 4, "accumulation": 2, "max_length": 128,
            "max_grad_norm": 0.5, "log_every_steps": 1, "checkpoint_seconds": 0.0}  # fmt: skip
TOLERANCE = 1e-6

PREAMBLE = """
import sys
sys.path[:0] = {path!r}
from types import SimpleNamespace
class Named(dict):
    __getattr__ = dict.__getitem__
snakemake = SimpleNamespace(**{{k: Named(v) if isinstance(v, dict) else v for k, v in {given!r}.items()}})
{extra}
"""


@pytest.fixture
def cell(tmp_path, model, tokenizer, world):
    """Starts the stage of one cell and returns its process; the inputs lie in tmp_path."""
    tables.write(world.agnews("train", 22), tmp_path / "agnews.parquet", "agnews")
    folders.save(model, tokenizer, tmp_path / "aligned", header={"role": "aligned"})
    weights = tmp_path / "aligned/model.safetensors"
    targets = layers.resolve(model, MODULES)
    basis = {x.input: random_orthogonal(x.module.weight.shape[1], 1) for x in targets}
    head = {"layers": list(layers.inputs(targets)), "aligned": container.identity(weights)}
    artifact.write(tmp_path / "basis.safetensors", basis, family="basis", header=head)
    draw = torch.Generator().manual_seed(1)
    frozen = {x.name: masks.pack((torch.rand(x.module.weight.shape, generator=draw) < 0.3).numpy()) for x in targets}
    head |= {"layers": [x.name for x in targets], "basis_file": container.identity(tmp_path / "basis.safetensors")}
    artifact.write(tmp_path / "mask.safetensors", frozen, family="mask", header=head)

    def start(name, processes=2, extra=""):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        needs = {k: str(tmp_path / f"{k}.safetensors") for k in ("basis", "mask")}
        cfg = {
            "method": "warp", "settings": {"trainable": "all"}, "modules": MODULES, "training": TRAINING,
            "task": "agnews", "instruction": None, "train_rows": 22, "seed": 0, "processes": processes,
        }  # fmt: skip
        given = {
            "input": {"model": str(weights), "task": str(tmp_path / "agnews.parquet"), **needs},
            "output": {"model": str(folder / "model.safetensors"), "record": str(folder / "train.json"),
                       "curve": str(folder / "train.jsonl")},
            "params": {"cfg": cfg, "code": "", "checkpoints": str(folder / "checkpoints"), "tracking": None},
            "wildcards": ["agnews", name], "log": [str(folder / "log")], "threads": processes, "resources": {},
        }  # fmt: skip
        if processes == 1:  # as the stage does, here
            made = given["output"]
            return finetune.run(
                aligned=weights, task_table=tmp_path / "agnews.parquet", safety_table=None, cfg=cfg, code="",
                artifacts={k: Path(v) for k, v in needs.items()}, folder=folder, log_file=Path(made["curve"]),
                record_file=Path(made["record"]), checkpoints=folder / "checkpoints",
            )  # fmt: skip
        script = folder / "script.py"
        stage = (ROOT / "scripts/finetune.py").read_text()
        script.write_text(PREAMBLE.format(path=[str(ROOT / "src")], given=given, extra=extra) + stage)
        return launched(script)

    return start


# What a user's own file may say besides, and a launcher that started Snakemake: nothing of it counts.
OTHER = """
distributed_type: FSDP
mixed_precision: fp16
num_processes: 7
main_process_port: 1
use_cpu: true
fsdp_config: {fsdp_version: 2, fsdp_state_dict_type: FULL_STATE_DICT, fsdp_cpu_ram_efficient_loading: true}
"""
LAUNCHED = {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1", "PMI_SIZE": "4",
            "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}  # fmt: skip


def launched(script):
    """A job's process, as Snakemake starts it."""
    config, more = ROOT / "profiles/fsdp.yaml", {}
    if script.parent.name == "killed":
        config, more = script.with_name("other.yaml"), LAUNCHED
        config.write_text(OTHER)
    env = os.environ | more | {"HOLDFAST_ACCELERATE": str(config), "TMPDIR": str(script.parent)}
    return subprocess.Popen([sys.executable, script], env=env, stderr=subprocess.PIPE, text=True)


def ended(process, folder):
    """The folder of a job that ended well."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, (folder / "log").read_text()[-3000:] + said
    assert not said and not left(folder), "nothing on the terminal, no folder left"
    return folder


def left(folder):
    """Folders of accelerate, torch or ours in TMPDIR."""
    return [p.name for pattern in ("holdfast-*", "torchelastic_*") for p in folder.glob(pattern)]


def ranks(script):
    """Processes that run this script, the one that was started first left out."""
    found = [p for p in psutil.process_iter(["cmdline"]) if str(script) in (p.info["cmdline"] or ())]
    return sorted(found, key=lambda p: p.create_time())[1:]


def until(true, seconds=300):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def curve(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


SLOW = """
import os, time
if "RANK" in os.environ:
    from holdfast.train import progress
    once = progress.Log.on_step_end
    def slowly(self, *args, **kwargs):
        time.sleep(0.5)
        return once(self, *args, **kwargs)
    progress.Log.on_step_end = slowly
"""


def test_the_stage_in_two_processes_killed_and_resumed(cell, tmp_path):
    two = ended(cell("two"), tmp_path / "two")
    (tmp_path / "killed").mkdir()
    job = cell("killed", extra=SLOW)
    until(lambda: list(tmp_path.glob("killed/checkpoints/checkpoint-*/trainer_state.json")))
    mine = ranks(tmp_path / "killed/script.py")
    assert len(mine) == 2
    os.kill(job.pid, signal.SIGKILL)  # no word to its children
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in mine), 20)
    job.communicate()
    assert not (tmp_path / "killed/model.safetensors").exists()
    again = ended(cell("killed"), tmp_path / "killed")
    log = (again / "log").read_text().splitlines()
    assert [line for line in log if "resuming from checkpoint-" in line], log
    assert sum("step 6/6" in line for line in log) == 1 and log[-1].startswith("worked"), "rank 0 alone speaks"
    assert (again / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert [(r["step"], r["loss"]) for r in curve(again)] == [(r["step"], r["loss"]) for r in curve(two)]
    assert not (again / "checkpoints").exists()

    alone, one = cell("one", processes=1), tmp_path / "one"
    start, a, b = (load_file(tmp_path / f"{x}/model.safetensors") for x in ("aligned", "one", "two"))
    apart, moved = (max(float((a[k] - x[k]).abs().max()) for k in a) for x in (b, start))
    assert 0 < apart < TOLERANCE < 1e-3 * moved
    for x, y in zip(curve(one), curve(two), strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-6)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-5)
    mine = json.loads((two / "train.json").read_text())
    assert mine["processes"] == {"number": 2, "sharding": "FSDP2", "device": "cpu", "backend": "gloo"}
    assert "processes" not in alone and mine["frozen_drift"] < 1e-6 > alone["frozen_drift"]
    same = ("frozen_fraction", "rows", "steps", "supervised_tokens", "trainable_parameters", "moved_fraction")
    assert {k: mine[k] for k in same} == {k: alone[k] for k in same}


# What becomes of processes, without a model: what a rank does, what the job does then, and its last word.
ENDS = {
    "an error of the input": ("raise DataError('It is broken.', found='x', expected='y', do='z')", 2, "  do:       z"),
    "a bug": ("1 / 0", 1, "process 0 of 2 failed, exit code 1"),
    "a killed rank": ("if rank: os.kill(os.getpid(), 9)\ntime.sleep(60)", 1,
                      "process 1 of 2 failed, killed by SIGKILL, which is what a machine does that is out of memory"),
}  # fmt: skip
STUB = """
import os, sys, time
from types import SimpleNamespace
from holdfast.errors import DataError
from holdfast.stage import job
fake = SimpleNamespace(threads=2, log=[{log!r}], input=[], output=[], wildcards=dict(), resources=dict(),
                       params=dict(cfg=dict(processes=2)))
io = job.start(fake)
rank = int(os.environ["RANK"])
assert io.leads == (rank == 0) and os.environ["OMP_NUM_THREADS"] == "1"
io.log("a line")
while "a line" not in open({log!r}).read():  # of the other process: what comes now may end both
    time.sleep(0.01)
print("printed")
{body}
"""


@pytest.mark.parametrize("how", ENDS)
def test_how_a_job_of_several_processes_ends(how, tmp_path):
    body, code, last = ENDS[how]
    (tmp_path / "script.py").write_text(STUB.format(log=str(tmp_path / "log"), body=body))
    job = launched(tmp_path / "script.py")
    _, said = job.communicate(timeout=120)
    log = (tmp_path / "log").read_text()
    block = "DataError: It is broken.\n  found:    x\n  expected: y\n  do:       z\n"
    assert job.returncode == code and log.count("a line\n") == 1 and log.count("printed\n") <= 1
    assert said == (block if code == 2 else "") and log.count(block) == (code == 2)
    assert not ranks(tmp_path / "script.py") and not left(tmp_path)
    assert [re.sub("process . of", "process 0 of", x) if how == "a bug" else x for x in log.splitlines()][-1] == last
    assert ("ZeroDivisionError" in log) == (how == "a bug") and "ChildFailedError" not in log


@pytest.mark.parametrize(("text", "devices", "found"), [
    ("", [], "TypeError"), (None, [], "FileNotFoundError"),
    ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}", [], "fsdp_version: 1"),
    ("distributed_type: MULTI_GPU\nfsdp_config: {fsdp_version: 2}", [], "MULTI_GPU"),
    ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_offload_params: true}", [],
     "fsdp_offload_params: True"),
    ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_activation_checkpointing: true}", [],
     "fsdp_activation_checkpointing: True"),
    ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\ndynamo_config: {dynamo_backend: INDUCTOR}", [],
     "INDUCTOR"),
    ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}", ["0"], "1 here"),
])  # fmt: skip
def test_what_cannot_be_launched_is_said_before(text, devices, found, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    monkeypatch.setenv(several.CONFIG, str(tmp_path / "a.yaml"))
    with pytest.raises(EngineError) as error:
        several.launch(2, devices, lambda _: None)
    assert found in error.value.found
    several.refuse_config(ROOT / several.DEFAULT)
    several.refuse_devices(2, ["0", "1"])
    several.refuse_devices(2, [])  # on the CPU


def test_the_page_on_clusters_says_of_every_method_whether_several_processes_train_it():
    rows = re.findall(r"^\| (`.*?) \| (yes|no)", (ROOT / "docs/cluster.md").read_text(), re.M)
    said = {name: answer == "yes" for listed, answer in rows for name in re.findall(r"`([\w-]+)`", listed)}
    methods = {n: registry.load(n) for n in registry.method_names()}
    assert said == {n: not m.Settings().alone() for n, m in methods.items() if m.KIND == "train"}
