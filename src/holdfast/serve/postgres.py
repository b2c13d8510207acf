"""A private PostgreSQL below one folder, from the distribution's packages: nothing of the system's own is touched.

It listens on a socket in its data folder, which only its owner may enter, and on no network.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.errors import EngineError

USER, DATABASE, PORT = "holdfast", "postgres", 5432  # the port is a part of the socket's name
_PACKAGES = Path("/usr/lib/postgresql")  # where Debian has them, which are not on the PATH
_SYSTEM_USER = "postgres"  # of that package
PATIENCE_SECONDS = 30.0
_LONGEST_SOCKET = 107  # bytes, of the operating system


def programs() -> Path | None:
    """The folder of the newest initdb and pg_ctl that are installed."""
    found = sorted(_PACKAGES.glob("*/bin/pg_ctl"), key=lambda p: int("0" + p.parts[-3].split(".")[0]))
    on_path = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def address(data: Path) -> str:
    """What SQLAlchemy and MLflow call the database."""
    return f"postgresql://{USER}@/{DATABASE}?host={quote(str(data.resolve()), safe='/')}&port={PORT}"


def start(data: Path, log: Path, *, connections: int) -> None:
    """Make the cluster where there is none, and start it where it does not run.

    Args:
        data: the folder of the cluster; its parent is there.
        connections: how many it takes at a time.

    Raises:
        EngineError: no PostgreSQL is installed, its user cannot reach the folder, or it does not start.
    """
    data = data.resolve()
    where = programs()
    if where is None:
        raise EngineError(
            "There is no PostgreSQL here.", found=f"no pg_ctl in {_PACKAGES} or on the PATH",
            expected="PostgreSQL's programs; no service of it need run",
            do="install them (Debian: apt-get install postgresql), then the same command again",
        )  # fmt: skip
    if len(os.fsencode(data / f".s.PGSQL.{PORT}")) > _LONGEST_SOCKET:
        raise EngineError(
            "The path of the server's folder is too long for a socket.", found=str(data),
            expected=f"at most {_LONGEST_SOCKET - 15} bytes", do="name another folder: --folder FOLDER",
        )  # fmt: skip
    owner = _owner(data if data.exists() else data.parent)
    for path in (data.parent, log.parent):
        _reachable(path, owner)
    if not data.exists():
        new = data.with_name(data.name + ".new")  # a start that was killed leaves half of one
        shutil.rmtree(new, ignore_errors=True)
        _hand_over(new, owner)
        # Whoever may enter the folder may connect: it is the owner's alone.
        _run(where / "initdb", "-D", new, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", owner=owner)
        new.rename(data)
    if not running(data):
        log.touch(0o600)  # statements that failed are in it, hashes of passwords too
        if owner:
            shutil.chown(log, owner["user"])
        _wait_for_the_dead(data)
        options = f"-c listen_addresses='' -k . -p {PORT} -c max_connections={connections}"
        _run(where / "pg_ctl", "-D", data, "-l", log, "-w", "-t", "60", "-o", options, "start", owner=owner, log=log)


def running(data: Path) -> bool:
    """Whether the cluster answers, if only that it is not ready yet; its process may be dead and still be there."""
    where = programs()
    if where is None or not data.exists():
        return False
    command = [str(where / "pg_isready"), "-q", "-h", str(data.resolve()), "-p", str(PORT)]
    return subprocess.run(command, cwd="/", check=False, **_owner(data)).returncode in (0, 1)


def stop(data: Path) -> None:
    """End the cluster with everything written; nothing where it does not run."""
    where = programs()
    if where is not None and running(data):
        _run(where / "pg_ctl", "-D", data.resolve(), "-w", "-t", "60", "-m", "fast", "stop", owner=_owner(data))


def _wait_for_the_dead(data: Path) -> None:
    """A server that was killed is counted as long as nobody has asked how it ended, and none starts beside it. Where
    nobody ever asks, its marks are taken away: by then all that it had started has ended, too."""
    import psutil

    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        mark = data / "postmaster.pid"
        found = psutil.Process(int(mark.read_text(encoding="utf-8").split()[0]))
        until = time.monotonic() + PATIENCE_SECONDS
        while found.status() == psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                for left in (mark, data / f".s.PGSQL.{PORT}.lock"):
                    left.unlink(missing_ok=True)
                return
            time.sleep(0.2)


def _owner(folder: Path) -> Mapping[str, Any]:
    """As whom its programs run: they refuse to be root."""
    if os.geteuid() != 0:
        return {}
    if folder.exists() and (owner := folder.stat().st_uid) != 0:
        found = pwd.getpwuid(owner)
    else:
        try:
            found = pwd.getpwnam(_SYSTEM_USER)
        except KeyError:
            raise EngineError(
                "PostgreSQL does not run as root.", found=f"root, and no user {_SYSTEM_USER}",
                expected="a user for it", do=f"adduser --system {_SYSTEM_USER}, or call this as an ordinary user",
            ) from None  # fmt: skip
    return {"user": found.pw_name, "group": found.pw_gid, "extra_groups": ()}


def _hand_over(folder: Path, owner: Mapping[str, Any]) -> None:
    folder.mkdir(mode=0o700)
    if owner:
        shutil.chown(folder, owner["user"], owner["group"])


def _reachable(folder: Path, owner: Mapping[str, Any]) -> None:
    """Refuse a folder that another user than this one must enter, and cannot."""
    if owner and subprocess.run(["test", "-x", folder], cwd="/", **owner).returncode:
        raise EngineError(
            "PostgreSQL does not run as root, and the user it runs as cannot reach the server's folder.",
            found=f"{folder}, closed to {owner['user']}", expected="a folder that others may pass through (chmod 711)",
            do="name another folder, as --folder /var/lib/holdfast, or call this as an ordinary user",
        )  # fmt: skip


def _run(*command: str | Path, owner: Mapping[str, Any], log: Path | None = None) -> None:
    """Run one of its programs, which says nothing unless it fails; one that leaves a daemon says it in `log`."""
    done = subprocess.run(
        command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if log else subprocess.PIPE, encoding="utf-8", check=False, **owner,
    )  # fmt: skip
    if done.returncode:
        said = (log.read_text(encoding="utf-8", errors="replace") if log else done.stderr).strip().splitlines()
        raise EngineError(
            f"PostgreSQL's {Path(command[0]).name} failed.", found=said[-1] if said else f"exit code {done.returncode}",
            do=f"see {log}" if log else f"try it by hand: {' '.join(map(str, command))}",
        )  # fmt: skip
