"""The smoke study on a private SLURM of two nodes, with jobs and nodes that fail: the bytes of the local run.

`make cluster-test` runs it; seven minutes on two cores, the local run included.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import slurm
import soak

pytestmark = [pytest.mark.dag, pytest.mark.slow]
ASKED = "HOLDFAST_CLUSTER"
# Debian's client has no accounting; jobs are looked at as often as they are short here.
HERE = ("--slurm-status-command", "squeue", "--slurm-no-account", "--slurm-init-seconds-before-status-checks", "2")
SECONDS = 1500


@pytest.fixture
def cluster(tmp_path):
    if not os.environ.get(ASKED):
        pytest.skip(f"{ASKED} is not set: make cluster-test")
    if absent := slurm.missing():
        pytest.skip(f"not installed: {', '.join(absent)}")
    if os.geteuid():
        pytest.skip("only root can start the daemons")
    with slurm.cluster(tmp_path / "slurm", memory=9000) as found:
        yield found


class Run:
    """Snakemake on the cluster."""

    def __init__(self, cluster: slurm.Cluster, folder: Path, *more: str) -> None:
        self.cluster, self.log = cluster, folder / "cluster.log"
        env = cluster.env | {"PYTHONPATH": str(folder / "src"), "MLFLOW_TRACKING_URI": ""}
        command = [soak.SNAKEMAKE, "--workflow-profile", "profiles/slurm", *HERE, "--config", "study=smoke", *more]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out)

    def job_of(self, rule: str, seconds: float = SECONDS) -> tuple[str, str]:
        """(id, node) of a running job of a rule."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.cluster.ask("squeue", "-h", "-t", "running", "-o", "%i %N %k").splitlines():
                job, node, *comment = line.split(maxsplit=2)
                if comment and rule in comment[0]:
                    return job, node
            time.sleep(0.5)
        raise AssertionError(f"no job of {rule} ran\n{self.log.read_text()[-3000:]}")

    def end(self) -> str:
        """The log, after the last job."""
        code = self.process.wait(SECONDS)
        text = self.log.read_text()
        assert code == 0, text[-6000:]
        return text


def test_jobs_that_are_cancelled_killed_or_too_large_and_a_node_that_dies_change_no_byte(cluster, project, tmp_path):
    folder = soak.copy_project(tmp_path / "p")
    # At first less than any process of Python takes, then what is planned.
    run = Run(cluster, folder, "--set-resources", "compute_basis:mem_mb=(attempt - 1) * 1500 + 60")
    job, _ = run.job_of("train_base")
    cluster.ask("scancel", job)
    _, node = run.job_of("finetune")
    cluster.kill(node)
    time.sleep(20)
    cluster.start(node)
    log = run.end()
    # One was cancelled, one took too much, one was on the node: it is tried again by SLURM or by Snakemake.
    failed = set(re.findall(r"Error in rule (\w+):", log))
    assert {"train_base", "compute_basis"} <= failed, failed
    assert soak.digests(folder, "smoke") == soak.digests(project, "smoke")
    assert not soak.leftovers(folder, "smoke")
    asked = [line.split() for line in cluster.ask("squeue", "-h", "-t", "all", "-o", "%i %m %C").splitlines()]
    assert len(asked) < 40  # what takes seconds is together
    assert all(int(cpus) <= 2 for _, _, cpus in asked)
