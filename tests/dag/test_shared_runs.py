"""Jobs that share the imports, in a run: forks, all of them, and the bytes of jobs that start anew."""

from __future__ import annotations

import re
import shutil
import sys

import pytest
import soak
from workflow import snakemake

from holdfast.stage import sharing

pytestmark = pytest.mark.dag


def test_a_cell_that_starts_anew_has_the_bytes_of_one_that_shared(copy):
    logs = copy / "logs/smoke"
    cell, files = "crafts/lora/seed0", soak.digests(copy, "smoke")
    before = {name: digest for name, digest in files.items() if cell in name and "changes" not in name}
    if sys.platform == "linux" and not sharing.devices.visible():
        took = {p: re.search(r", after ([\d.]+) s to start", p.read_text()) for p in logs.rglob("*.log")}
        assert not [p for p in took if "not shared" in p.read_text()]
        forks = sorted(float(took[logs / kind / f"{cell}.log"][1]) for kind in ("finetune", "respond", "judge"))
        assert forks[1] < float(took[logs / "base.log"][1])  # which has two threads, so it starts anew
    for top in ("work", "results"):
        shutil.rmtree(copy / top / "smoke" / cell)
    out = snakemake(copy, "share=0", "--quiet", "all", "--", f"results/smoke/{cell}/metrics.json")
    assert out.returncode == 0, out.stderr
    after = soak.digests(copy, "smoke")
    made = {name for name in before if name.endswith((".safetensors", ".parquet", "metrics.json", "train.json"))}
    assert len(made) == 5 and {name: after.get(name) for name in made} == {name: before[name] for name in made}


def test_the_benchmark_of_it_compares_two_runs(monkeypatch, capsys):
    from benchmarks import sharing as bench

    monkeypatch.setattr(sys, "argv", ["sharing", "--target", "work/smoke/data/tasks/crafts.parquet"])
    assert bench.main() == 0
    head, anew, shared, end = capsys.readouterr().out.splitlines()
    assert (anew.split()[0], shared.split()[0]) == ("anew", "shared") and end == "1 files, different: none"
