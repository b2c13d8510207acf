"""How does one stage run in several processes? Its script starts itself again through `accelerate launch`.

The process that Snakemake started holds log and devices and computes nothing. Its children are the ranks: rank 0 says
and writes what a single process would, the others only compute. They end with the process that started them, however
that ends, and what one of them says about the input it says, once, as its own.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from holdfast.errors import EngineError, HoldfastError
from holdfast.stage import alive

FOLDER = "HOLDFAST_PROCESSES"  # what launcher and ranks share: a lock, and the error of one that has one
CONFIG = "HOLDFAST_ACCELERATE"
DEFAULT = "profiles/fsdp.yaml"
LOCK, ERROR = "launcher", "error"
_NOT = ("fsdp_offload_params", "fsdp_activation_checkpointing", "dynamo_config", "parallelism_config", "fp8_config")
# What accelerate, torchrun, operators of containers and MPI tell the processes that they start.
_TOLD = re.compile(
    "(ACCELERATE|FSDP|MEGATRON_LM|PARALLELISM_CONFIG|TORCHELASTIC|PMI|(OMPI|MV2)_COMM_WORLD)_.*"
    "|((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
)


class RelayedError(HoldfastError):
    """What one of several processes said, in its own words."""

    def __init__(self, block: str) -> None:
        self.text = block
        super().__init__(block)

    def block(self) -> str:
        """The block of that process."""
        return self.text


def world() -> int:
    """How many processes compute this stage together."""
    return int(os.environ["WORLD_SIZE"]) if FOLDER in os.environ else 1


def rank() -> int:
    """Which of them this is; 0 writes."""
    return int(os.environ["RANK"]) if FOLDER in os.environ else 0


def asked(cfg: Any) -> int:
    """How many processes a stage's settings ask for."""
    return int(cfg.get("processes", 1)) if isinstance(cfg, dict) else 1


def forget_launchers(environment: MutableMapping[str, str]) -> None:
    """Take out what somebody says who launched Snakemake: a job would wait for other ranks, or round otherwise."""
    for name in [*filter(_TOLD.fullmatch, environment)]:
        del environment[name]


def config_file() -> Path:
    """The file that accelerate is launched with."""
    return Path(os.environ.get(CONFIG, DEFAULT))


def refuse_config(path: Path) -> None:
    """Refuse a file that does not say FSDP2 on one machine, which is what the training loop knows, or says more:
    weights on the host, for which nothing is written, and what a study says itself or would round otherwise.

    Raises:
        EngineError: no such file, or it says something else.
    """
    import yaml

    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = said["distributed_type"], said["fsdp_config"]["fsdp_version"], said.get("num_machines", 1)
        found = "distributed_type: {}, fsdp_version: {}, num_machines: {}".format(*kind)
        more = {k: v for k, v in {**said, **said["fsdp_config"]}.items() if k in _NOT and v}
        found += "".join(f", {k}: {v}" for k, v in more.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        kind, found, more = ("", 0, 0), f"{type(error).__name__}: {error}"[:160], {}
    if kind != ("FSDP", 2, 1) or more:
        raise EngineError(
            f"{path} does not say how several processes share a training.", found=found,
            expected="a file of `accelerate config` with distributed_type: FSDP, fsdp_version: 2, num_machines: 1"
            + (f", without {' and '.join(more)}" if more else ""),
            do=f"correct it, or take the project's: --config accelerate={DEFAULT}",
        )  # fmt: skip


def launch(processes: int, devices: list[str], say: Callable[[str], None]) -> int:
    """Run this very script in so many processes and return the exit code: 0 when all of them ended well, else 1.

    Args:
        devices: the GPUs they may see; none where they compute on the CPU.

    Raises:
        EngineError: the configuration of accelerate is another, or there are fewer devices than processes.
        RelayedError: what a process says about its input.
    """
    refuse_config(config_file())
    refuse_devices(processes, devices)
    from accelerate.commands import launch as accelerate
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: TID251 - not where anything is planned

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # tracebacks are in the log already
    say(f"{processes} processes, by {config_file()}")
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        held = alive.hold(Path(folder) / LOCK)
        os.environ[FOLDER] = folder
        command = ["--config_file", str(config_file()), "--num_processes", str(processes), "--main_process_port", "0"]
        # The precision is the study's; without a folder for logs torch leaves one of its own behind.
        command += ["--mixed_precision", "no", "--log_dir", folder]
        try:
            accelerate.launch_command(accelerate.launch_command_parser().parse_args([*command, *sys.argv]))
            return 0
        except ChildFailedError as error:
            which, failure = error.get_first_failure()
        finally:
            del os.environ[FOLDER]  # with which this process would be taken for a rank
            held.close()
        told = Path(folder) / ERROR
        if told.is_file():
            raise RelayedError(told.read_text(encoding="utf-8"))
    say(f"process {which} of {processes} failed, {_how(failure.exitcode)}")
    return 1


def _how(code: int) -> str:
    """What an exit code means, in words.

    >>> _how(1), _how(-9)
    ('exit code 1', 'killed by SIGKILL, which is what a machine does that is out of memory')
    """
    if code >= 0:
        return f"exit code {code}"
    by = signal.Signals(-code).name
    return f"killed by {by}" + (", which is what a machine does that is out of memory" if by == "SIGKILL" else "")


def refuse_devices(processes: int, devices: list[str]) -> None:
    """Refuse to put two processes on one GPU.

    Raises:
        EngineError: there are fewer, and not none.
    """
    if 0 < len(devices) < processes:
        raise EngineError(
            "There are fewer GPUs than processes that train together.", found=f"{len(devices)} here",
            expected=f"{processes} (`resources.gpus` of the study), in one machine",
            do="lower resources.gpus, or run it where there are more",
        )  # fmt: skip


def join() -> None:
    """Be one of the ranks: end with the launcher, and keep silent beside rank 0."""
    folder = Path(os.environ[FOLDER])

    def end() -> None:
        shutil.rmtree(folder, ignore_errors=True)  # which the launcher could not any more
        os._exit(1)

    alive.end_with(folder / LOCK, end)
    if rank():
        warnings.simplefilter("ignore")
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for the whole process


def tell(error: HoldfastError) -> None:
    """Leave an error for the launcher, at once whole: the ranks that still write when one has ended are killed."""
    folder = Path(os.environ[FOLDER])
    mine = folder / f"{ERROR} of {rank()}"
    mine.write_text(error.block(), encoding="utf-8")
    mine.replace(folder / ERROR)
