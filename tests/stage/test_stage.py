"""What a script meets: its log, its threads, and an error as one block with exit code 2."""

from __future__ import annotations

import os
import re
import subprocess
import sys

# What who launched Snakemake may have said of itself.
LAUNCHED = {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1", "PMI_SIZE": "4",
            "OMPI_COMM_WORLD_SIZE": "4", "ACCELERATE_MIXED_PRECISION": "bf16", "FSDP_VERSION": "2",
            "TORCHELASTIC_RUN_ID": "x"}  # fmt: skip
SCRIPT = """
import sys, os
from types import SimpleNamespace
class Params(dict):
    pass
fake = SimpleNamespace(threads=3, log=[sys.argv[1]], input=[], output=[], wildcards={}, resources={},
                       params=Params(cfg={"instructions": sys.argv[3]}, threads=2))
from holdfast.stage import job
from holdfast.errors import DataError
io = job.start(fake, hide=("scipy",))
io.log("a line")
print("printed")
assert [k for k in os.environ if k in sys.argv[4:]] == ["PMIX_RANKS"]
assert io.threads == 2 and os.environ["OMP_NUM_THREADS"] == "2" and io.terminal is None
assert ("ATEN_CPU_CAPABILITY" in os.environ) == (sys.argv[3] == "common")
try:
    import scipy
except ImportError:
    io.log("hidden")
if sys.argv[2] == "done":
    import atexit
    atexit.register(lambda: io.log("last words"))
elif sys.argv[2] == "user":
    raise DataError("It is broken.", found="x", expected="y", do="z")
elif sys.argv[2] == "full":
    raise OSError(28, "No space left on device")
else:
    raise RuntimeError("a bug")
"""


def _run(tmp_path, kind, instructions="native"):
    log = tmp_path / "log"
    said = LAUNCHED | {"PMIX_RANKS": "1"}  # the last is no such name
    command = [sys.executable, "-c", SCRIPT, log, kind, instructions, *said]
    own = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"}
    out = subprocess.run(command, capture_output=True, text=True, env=own | said)
    return out, log.read_text()


def test_a_users_error_is_one_block(tmp_path):
    out, log = _run(tmp_path, "user")
    block = "DataError: It is broken.\n  found:    x\n  expected: y\n  do:       z\n"
    assert out.returncode == 2 and out.stderr == block and log == "a line\nprinted\nhidden\n" + block


def test_a_full_disk_is_a_users_error(tmp_path):
    out, log = _run(tmp_path, "full")
    assert out.returncode == 2 and "DiskError: There is no room on the disk." in log and "Traceback" not in log
    assert out.stderr in log


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path):
    out, log = _run(tmp_path, "bug")
    assert out.returncode == 1 and "RuntimeError: a bug" in log and "Traceback" in log


def test_a_stage_that_ends_well_says_so_and_loses_no_line(tmp_path):
    """The process leaves without taking itself apart, after every exit function and with its log flushed."""
    out, log = _run(tmp_path, "done", "common")
    *lines, last = log.splitlines()
    assert out.returncode == 0 and lines == ["a line", "printed", "hidden", "last words"]
    assert re.fullmatch(r"worked [\d.]+ s, after [\d.]+ s to start, in 0\.\d\d GB of memory", last)
