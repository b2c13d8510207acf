"""A private SLURM of two nodes on this machine, for tests of the cluster profile: no root daemon of the system is used.

Needs Debian's slurmctld, slurmd, slurm-client and munge, and root. Each node has a device that counts as a GPU.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
SYSTEM = Path("/etc/slurm")  # which is to be empty
NODES = {"node1": 17001, "node2": 17002}
CONF = """\
ClusterName=holdfast
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=17000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
SlurmdTimeout=15
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SchedulerParameters=bf_interval=5,sched_min_interval=200000,batch_sched_delay=0,requeue_delay=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:1\n"


class Cluster:
    """A running SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """The variables that its commands need."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, name: str) -> None:
        """Start the node daemon of that name, or the controller."""
        command = ["slurmctld", "-D", "-i"] if name == "controller" else ["slurmd", "-D", "-N", name]
        log = (self.folder / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)

    def kill(self, name: str) -> None:
        """Kill a node as a power cut does: its daemon and all that it started."""
        self.daemons.pop(name).kill()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                spool = str((process / "cwd").readlink()).startswith(str(self.folder / f"spool-{name}"))
                if spool or f"SLURMD_NODENAME={name}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """What a command of SLURM prints."""
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout

    def wait(self, seconds: float = 60) -> None:
        """Until all nodes are idle."""
        until = time.monotonic() + seconds
        while set(self.ask("sinfo", "-h", "-N", "-o", "%T").split()) != {"idle"}:
            if time.monotonic() > until:
                raise TimeoutError(self.ask("sinfo", "-N", "-l"))
            time.sleep(0.5)


def missing() -> list[str]:
    """The programs that are not here."""
    return [p for p in PROGRAMS if shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]


@contextlib.contextmanager
def cluster(folder: Path, *, cpus: int = 2, memory: int = 4000) -> Iterator[Cluster]:
    """A cluster that ends with the block. `memory` of a node in MB."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    host = socket.gethostname()
    nodes = [NODE.format(name=n, host=host, port=p, cpus=cpus, memory=memory) for n, p in NODES.items()]
    partition = "PartitionName=main Nodes=ALL Default=YES OverSubscribe=NO\n"
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder) + "".join(nodes) + partition)
    devices = []
    for name in NODES:
        device = folder / f"{name}-gpu0"
        if not device.exists():
            subprocess.run(["mknod", str(device), "c", "1", "3"], check=True)
        devices.append(f"NodeName={name} Name=gpu File={device}\n")
        (folder / f"spool-{name}").mkdir(exist_ok=True)
    (folder / "gres.conf").write_text("AutoDetect=off\n" + "".join(devices))
    (folder / "state").mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = {"key-file": key, "socket": "munge.sock", "pid-file": "munge.pid", "log-file": "munge.log",
             "seed-file": "munge.seed"}  # fmt: skip
    options = [f"--{k}={folder / v if isinstance(v, str) else v}" for k, v in files.items()]
    # Snakemake's jobs lose SLURM_CONF on their way, and then look there.
    links = [SYSTEM / name for name in ("slurm.conf", "gres.conf")]
    SYSTEM.mkdir(exist_ok=True)
    for link in links:
        link.symlink_to(folder / link.name)
    found = Cluster(folder)
    munge = subprocess.Popen(["munged", "--foreground", "--force", *options], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while not (folder / "munge.sock").exists() and time.monotonic() < until:
            time.sleep(0.1)
        for name in ("controller", *NODES):
            found.start(name)
        time.sleep(1)
        found.wait()
        yield found
    finally:
        for name in list(found.daemons):
            if name == "controller":
                found.daemons[name].terminate()
            else:
                found.kill(name)
        munge.terminate()
        for link in links:
            link.unlink()
