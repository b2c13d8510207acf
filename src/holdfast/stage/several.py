"""How does one stage run in several processes? Its script starts itself again through `accelerate launch`.

The process that Snakemake started holds log and devices and computes nothing. Its children are the ranks: rank 0 says
and writes what a single process would, the others only compute. They end with the process that started them, however
that ends, and what one of them says about the input it says, once, as its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import EngineError, HoldfastError
from holdfast.stage import alive

FOLDER = "HOLDFAST_PROCESSES"  # what launcher and ranks share: a lock, and the error of the first that has one
CONFIG = "HOLDFAST_ACCELERATE"
DEFAULT = "profiles/fsdp.yaml"
LOCK, ERROR = "launcher", "error"


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


def config_file() -> Path:
    """The file that accelerate is launched with."""
    return Path(os.environ.get(CONFIG, DEFAULT))


def refuse_config(path: Path) -> None:
    """Refuse a file that does not say FSDP2 on one machine, which is what the training loop knows.

    Raises:
        EngineError: no such file, or it says something else.
    """
    import yaml

    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = said["distributed_type"], said["fsdp_config"]["fsdp_version"], said.get("num_machines", 1)
        found = "distributed_type: {}, fsdp_version: {}, num_machines: {}".format(*kind)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        kind, found = ("", 0, 0), f"{type(error).__name__}: {error}"[:160]
    if kind != ("FSDP", 2, 1):
        raise EngineError(
            f"{path} does not say how several processes share a training.", found=found,
            expected="a file of `accelerate config` with distributed_type: FSDP, fsdp_version: 2, num_machines: 1",
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
        try:
            accelerate.launch_command(accelerate.launch_command_parser().parse_args([*command, *sys.argv]))
        except ChildFailedError as error:
            told = Path(folder) / ERROR
            if told.is_file():
                raise RelayedError(told.read_text(encoding="utf-8")) from None
            which, failure = error.get_first_failure()
            say(f"process {which} of {processes} failed, exit code {failure.exitcode}")
            return 1
        finally:
            del os.environ[FOLDER]
            held.close()
    return 0


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
    """Leave an error for the launcher, if no other rank has."""
    try:
        with (Path(os.environ[FOLDER]) / ERROR).open("x", encoding="utf-8") as file:
            file.write(error.block())
    except FileExistsError:
        pass
