"""What a record says of the machine it was made on."""

from __future__ import annotations

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
