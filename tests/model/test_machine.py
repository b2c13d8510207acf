"""What a record says of the machine it was made on."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from holdfast.model import machine
from holdfast.record import portable


def test_a_record_says_what_decides_its_bits(monkeypatch):
    for name in (*portable.STEERING, portable.MARK):
        monkeypatch.delenv(name, raising=False)
    found = machine.machine()
    assert found["cpu"] and found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads() and found["blas"] != "unknown"
    assert "environment" not in found
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert machine.machine()["environment"] == {"MKL_CBWR": "COMPATIBLE"}


def test_a_gpu_is_named_with_its_driver_and_what_decides_its_bits(monkeypatch, tmp_path):
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@x)\n"
        "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1)\n"
    )
    monkeypatch.setattr(machine, "DRIVER", version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    found = machine.machine()
    assert found["gpu"] == "a card" and found["tf32"] in (True, False) and found["driver"] == "550.54.15"
    assert found["deterministic"] is False and found["cuda"]
    version.unlink()
    assert machine.machine()["driver"] == "unknown"


HELD = """
import ctypes, sys, torch
from holdfast.model import machine

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "rest1", "rest2", "rest3")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo
machine.LARGE = int(sys.argv[1])
machine.return_blocks(torch.nn.Linear(8, 8))
torch.empty(30 << 20, dtype=torch.uint8)  # freed at once, after which glibc keeps what is smaller
before = libc.mallinfo2().hblks
small = torch.empty(900 << 10, dtype=torch.uint8)
between = libc.mallinfo2().hblks
kept = torch.empty(1100 << 10, dtype=torch.uint8)
print(between - before, libc.mallinfo2().hblks - between)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or newer counts its blocks")
@pytest.mark.parametrize(("large", "mapped"), [(1, "0 1"), (1 << 28, "0 0")])
def test_a_large_models_process_maps_every_large_block_by_itself(large, mapped):
    found = subprocess.run([sys.executable, "-c", HELD, str(large)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == mapped


FREED = """
import torch
from holdfast.model import machine

def resident():
    return int(next(x for x in open("/proc/self/status") if x.startswith("RssAnon")).split()[1])

torch.ones(30 << 20, dtype=torch.uint8)  # freed at once, after which glibc keeps what is smaller
many = [torch.ones(900 << 10, dtype=torch.uint8) for _ in range(100)]
last = torch.ones(900 << 10, dtype=torch.uint8)  # above the others, so that the heap cannot shrink to below them
del many
before = resident()
machine.return_freed()
print((before - resident()) >> 10)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc alone gives back the middle of its heap"
)
def test_what_was_freed_is_given_back():
    found = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 80  # MiB, of the 88 that were freed
