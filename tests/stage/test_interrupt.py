"""Ctrl-C before jobs work, while they do, and twice: no traceback, exit code 130, and what there is to say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.stage import alive

BEFORE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started with
from holdfast.stage import interrupt
interrupt.guard()
press = lambda: os.kill(os.getpid(), signal.SIGINT)
"""
WORKS = BEFORE + "interrupt.begin(lambda: sys.stderr.write('stopped\\n'))\n"
FIRST = WORKS + "try:\n    press()\nexcept KeyboardInterrupt:\n    print('in order', interrupt.came(), flush=True)\n"


@pytest.mark.parametrize(
    ("script", "code", "out", "err"),
    [
        (BEFORE + "press()", 130, "", ""),
        (FIRST, 0, "in order True\n", ""),
        (FIRST + "press()", 130, "in order True\n", "stopped\n"),
        (WORKS.replace("lambda: sys", "lambda: 1 / 0 or sys") + "interrupt._came = True\npress()", 130, "", ""),
        (WORKS + "print(interrupt.came())", 0, "False\n", ""),
    ],
    ids=["before", "once", "twice", "twice, and nothing can be said", "never"],
)
def test_ctrl_c_ends_without_a_traceback(script, code, out, err):
    environment = {k: v for k, v in os.environ.items() if k != alive.VARIABLE}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, err)


def test_a_job_is_left_to_its_snakemake():
    script = BEFORE + "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    environment = {**os.environ, alive.VARIABLE: "alive-elsewhere-1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "True\n"


def test_who_ignores_it_goes_on_ignoring_it():
    script = BEFORE.replace("default_int_handler", "SIG_IGN") + "press()\nprint(interrupt.came())"
    environment = {k: v for k, v in os.environ.items() if k != alive.VARIABLE}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
