"""Rounding alike on processors of every maker: when a run asks for it, and what a record says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from holdfast.model import machine
from holdfast.record import jsonfiles, portable
from holdfast.report import page
from holdfast.stage import job


@pytest.fixture
def cpus(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu sse avx fma avx2 avx512f\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    return file


def test_a_run_rounds_alike_everywhere_unless_somebody_steers_it(cpus):
    environ = {"HOME": "/"}
    assert portable.settle(environ, cpus)
    assert environ == {"HOME": "/", "ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2,STRICT", portable.MARK: "1"}
    assert portable.settle(environ, cpus) and portable.steered(environ) == {}
    for name in portable.STEERING:
        own = {name: "x"}
        assert not portable.settle(own, cpus) and own == portable.steered(own) == {name: "x"}


@pytest.mark.parametrize("text", ["", "flags : avx2\n", "flags\t: fma\n", "Features\t: fp asimd\n", None])
def test_a_processor_without_avx2_is_left_alone(tmp_path, text):
    """torch believes the setting, and would die of it."""
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    environ = {}
    assert not portable.settle(environ, file) and environ == {}


def test_what_decomposes_takes_the_compatible_code_of_such_a_run_only(monkeypatch, cpus):
    own, alike = {"MKL_CBWR": "AVX2"}, {}
    portable.settle(alike, cpus)
    for environ in (own, alike):
        portable.decompose(environ)
    assert own == {"MKL_CBWR": "AVX2"}
    assert alike["MKL_CBWR"] == "COMPATIBLE" and portable.steered(alike) == {}
    monkeypatch.setattr(job, "start", lambda *_: SimpleNamespace())
    for name, value in (portable.ROUNDING | {portable.MARK: "1"}).items():
        monkeypatch.setenv(name, value)
    job.start_models(None)
    assert job.os.environ["MKL_CBWR"] == "AVX2,STRICT"
    job.start_models(None, decomposes=True)
    assert job.os.environ["MKL_CBWR"] == "COMPATIBLE"


def test_records_say_it_and_two_makers_are_one_kind(monkeypatch, tmp_path):
    for name in (*portable.STEERING, portable.MARK):
        monkeypatch.delenv(name, raising=False)
    assert "portable" not in machine.machine()
    for name, value in (portable.ROUNDING | {portable.MARK: "1"}).items():
        monkeypatch.setenv(name, value)
    found = machine.machine()
    assert found["portable"] is True and "environment" not in found
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # as a replicate's `instructions: common` has it
    assert machine.machine()["environment"] == {"ATEN_CPU_CAPABILITY": "default"}

    def said(*records):
        paths = []
        for i, record in enumerate(records):
            paths.append(tmp_path / f"cell{i}/metrics.json")
            paths[-1].parent.mkdir(exist_ok=True)
            jsonfiles.write_json(paths[-1].with_name("train.json"), {"machine": record})
        return page.machines(paths)

    other = found | {"cpu": "another maker's"}
    [line] = said(found, other)
    assert "other makers gave the same bits" in line
    [line] = said({k: v for k, v in found.items() if k != "portable"}, found)
    assert "2 kinds of machine" in line
    [line] = said({k: v for k, v in found.items() if k != "portable"})
    assert "rounds otherwise" in line
