"""`holdfast plan STUDY`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from holdfast.cli import arguments

BUSY = 0.25  # of the cores


@click.command()
@arguments.study(default="demo")
@click.option("--model-config", type=arguments.FILE, help="config.json of the base model")
@click.option("--tflops", type=click.FloatRange(min=0, min_open=True),
              help="what one device reaches; default: measured here, float32")  # fmt: skip
@click.option("--utilization", type=click.FloatRange(0, 1, min_open=True), default=0.4, show_default=True,
              help="share of it that training reaches")  # fmt: skip
@click.option("--gpu", is_flag=True, help="jobs have a GPU: what they ask, and one training on several")
@click.option("--gpu-memory", type=click.FloatRange(min=0, min_open=True), default=80, show_default=True,
              help="GB of one GPU")  # fmt: skip
def command(
    study: str, model_config: Path | None, tflops: float | None, utilization: float, gpu: bool, gpu_memory: float
) -> None:
    """Say what a study costs before it runs.

    Jobs, FLOPs, time, the memory of one job, the disk of every family, what a job asks of a cluster, how many GPUs
    hold one training, and which difference between two arms the study can see. A cost model with a rate that is
    measured on this machine, or given.
    """
    from holdfast.model import hub, template
    from holdfast.report import terminal
    from holdfast.study import costs, preflight, resolve

    resolved = resolve.load(study)
    preflight.check_packages(resolved, lambda line: click.echo(f"note: {line}", err=True))
    notes: list[str] = []
    hazards = preflight.check_files(resolved, notes.append)
    shape = costs.shape_of(resolved.study.foundation, model_config)
    for line in notes:
        click.echo(f"note: {line}", err=True)
    rate = tflops * 1e12 if tflops else measured_rate()
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if not tflops and load > BUSY * cores:
        click.echo(f"note: this machine is busy (load {load:.1f} on {cores} cores): times are those of a quiet one",
                   err=True)  # fmt: skip
    click.echo(terminal.plan(resolved, shape, rate, utilization, hazards, gpu=gpu, bytes_of_gpu=1e9 * gpu_memory))
    source, revision = resolved.study.foundation.source, resolved.study.foundation.revision
    if source != "tiny" and (base := hub.known(source, revision)):
        click.echo(f"\nThe base's chat template {spoken(template.of_folder(base))}")


def spoken(found: dict[str, Any]) -> str:
    """What a template does, in words; what it does not do is not said.

    >>> spoken({"begins": "<s>", "stop_ids": [2], "adds_a_header": True, "thinks": False, "date": None})
    "begins '<s>', stop ids [2], adds a header"
    """
    said = {k.replace("_", " "): v for k, v in found.items() if v is not None and v is not False}
    return ", ".join(k if v is True else f"{k} {v!r}" for k, v in said.items())


def measured_rate(seconds: float = 0.5) -> float:
    """FLOP/s of float32 matrix products on this machine's device, as torch runs them.

    On a CPU in the time that one thread was given, times the threads: what else runs here changes nothing.
    """
    import torch

    gpu = torch.cuda.is_available()
    n, threads = 4096 if gpu else 768, torch.get_num_threads()
    clock = time.perf_counter if gpu else time.thread_time
    a = torch.randn(n, n, device="cuda" if gpu else "cpu")
    torch.set_num_threads(1)
    try:
        a @ a  # the first one also sets things up
        done, started = 0, clock()
        while clock() - started < seconds:
            a @ a
            if gpu:
                torch.cuda.synchronize()
            done += 1
        return done * 2 * n**3 / (clock() - started) * (1 if gpu else threads)
    finally:
        torch.set_num_threads(threads)
