"""An MLflow server with passwords on a private PostgreSQL, all of it in one folder: started, stopped, and its users.

`mlflow server` does the work. Here is what it must be told so that nothing is lost and nobody else gets in.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.engines import proxies, versions
from holdfast.errors import ArtifactError, EngineError, UsageError
from holdfast.record import files, jsonfiles
from holdfast.serve import postgres

ADMIN, PATIENCE_SECONDS, WORKERS = "admin", 600.0, 2
MARK = "HOLDFAST_SERVES"  # in the environment of every process of a server: its folder
# A worker answers at most 40 requests at a time (threads of anyio). With fewer connections than that (15 unless it is
# told) a request that waits too long is refused, and a client that logs in the background loses its points and says
# nothing. Three stores of a worker (runs, models, users) have a pool each.
POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "20"}
CONNECTIONS = 3 * 40 * WORKERS + 20
# Workers that have said nothing for five seconds are killed, unless told otherwise: on a busy machine before they have
# begun, again and again.
PATIENT = "--timeout-worker-healthcheck 120"
# Everybody reads everything; what somebody made, others change only where that one allows it. Checking a password takes
# longer than most answers: one that was right is for half a minute, which a changed one may stay valid.
AUTH = """\
[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {admin}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 30
"""
_SETTINGS = {"host": "127.0.0.1", "port": 5000, "artifacts": ""}


class Server:
    """A server of a folder, whether it runs or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.data, self.log = self.folder / "postgresql", self.folder / "mlflow.log"
        self.auth, self.key = self.folder / "auth.ini", self.folder / "secret-key"
        self.password = self.folder / "admin-password"

    @property
    def settings(self) -> dict[str, Any]:
        """Where it listens and where artifacts go, as it was last started."""
        kept = self.folder / "server.json"
        return _SETTINGS | (jsonfiles.read_json(kept) if kept.exists() else {})

    @property
    def address(self) -> str:
        """What a client on this machine calls it."""
        host, port = self.settings["host"], self.settings["port"]
        return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"

    def processes(self) -> list[Any]:
        """Every process of its MLflow, also those that one which was killed left behind."""
        import psutil

        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder):
                    found.append(process)
        return found

    def start(self, *, more: Sequence[str] = (), say: Callable[[str], None] = lambda _: None, **given: Any) -> None:
        """Bring it up; what is there already stays, and what runs already is left alone.

        Args:
            more: what `mlflow server` is told besides.
            given: settings that are other ones from now on: host, port, artifacts (a folder or s3://...; empty: a
                folder beside the database).

        Raises:
            EngineError: a package is not here, the port is taken, or one of both does not start.
        """
        for package, name in (("psycopg2", "psycopg2-binary"), ("flask_wtf", "flask-wtf")):
            if find_spec(package) is None:
                raise EngineError(
                    f"An MLflow server with passwords on PostgreSQL needs {name}.", found=f"{package} is not installed",
                    expected="the extra `server`", do="pip install -c constraints.txt -e '.[tracking,server]'",
                )  # fmt: skip
        versions.check("mlflow", "What MLflow's server is told is")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        with self._alone():
            settings = self.settings | {k: v for k, v in given.items() if v is not None}
            if self._whole():
                other = "" if settings == self.settings else "; stop it first, for other settings"
                say(f"runs already at {self.address}{other}")
                return
            self._end_mlflow()
            _refuse_taken(settings["host"], settings["port"])
            say("starting PostgreSQL")
            postgres.start(self.data, self.folder / "postgresql.log", connections=CONNECTIONS)
            jsonfiles.write_json(self.folder / "server.json", settings)
            self._secrets()
            say("starting MLflow (which makes its tables the first time)")
            self._start_mlflow(settings, more)

    def stop(self) -> bool:
        """End both, with everything written. Whether anything ran."""
        if not self.folder.exists():
            return False
        with self._alone():
            ran = self._end_mlflow() or postgres.running(self.data)
            postgres.stop(self.data)
        return ran

    def add_user(self, name: str, *, again: bool = False) -> str:
        """Make a user, or (`again`) give one a new password; returns the password, which is kept nowhere.

        Raises:
            UsageError: the user is there already, or is not. ArtifactError: the server does not answer, or does not
            take the administrator's password.
        """
        password = secrets.token_urlsafe(15)
        verb, path = ("PATCH", "update-password") if again else ("POST", "create")
        status, said = self._ask(f"api/2.0/mlflow/users/{path}", verb, {"username": name, "password": password})
        if status == 200:
            return password
        if "RESOURCE_ALREADY_EXISTS" in said or "RESOURCE_DOES_NOT_EXIST" in said:
            raise UsageError(
                f"The server has {'no' if again else 'a'} user {name}{'' if again else ' already'}.", found=name,
                expected="a user that is there" if again else "a new name",
                do=f"holdfast server user {name}" + ("" if again else " --again gives a new password"),
            )  # fmt: skip
        refused = status in (401, 403)
        raise ArtifactError(
            f"The server at {self.address} did not {'change' if again else 'make'} the user {name}.",
            found=f"{status} {said}"[:200], expected="a running server that knows its administrator",
            do=f"write the administrator's password into {self.password}" if refused else "holdfast server start",
        )  # fmt: skip

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop of a folder at a time."""
        with (self.folder / "lock").open("w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _secrets(self) -> None:
        """The key that signs sessions, and the administrator's password, made once; none but the owner reads them."""
        _keep(self.key, lambda: secrets.token_hex(32))
        password = _keep(self.password, lambda: secrets.token_urlsafe(18))
        database = postgres.address(self.data).replace("%", "%%")
        text = AUTH.format(database=database, admin=ADMIN, password=password.replace("%", "%%"))
        if not self.auth.exists():  # whoever edits it keeps what was written
            _keep(self.auth, lambda: text)

    def _start_mlflow(self, settings: dict[str, Any], more: Sequence[str]) -> None:
        artifacts = settings["artifacts"] or str(self.folder / "artifacts")
        command = [
            sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth",
            "--backend-store-uri", postgres.address(self.data), "--artifacts-destination", artifacts,
            "--host", settings["host"], "--port", str(settings["port"]), "--workers", str(WORKERS),
            "--uvicorn-opts", PATIENT, *more,
        ]  # fmt: skip
        own = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_TRACKING_")}
        env = own | POOL | {
            MARK: str(self.folder), "MLFLOW_AUTH_CONFIG_PATH": str(self.auth), "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.key.read_text(encoding="utf-8"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }  # fmt: skip
        with self.log.open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and time.monotonic() < until:
            if self._answers():
                return
            time.sleep(0.5)
        self._end_mlflow()
        last = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise EngineError(
            "The MLflow server does not answer.", found=last[-1] if last else "it said nothing",
            expected=f"an answer in {PATIENCE_SECONDS:.0f} seconds", do=f"see {self.log}",
        )  # fmt: skip

    def _end_mlflow(self) -> bool:
        """End its processes, with force where asking does not help. Whether there were any."""
        import psutil

        found = self.processes()
        for end in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.send_signal(end)
            if not psutil.wait_procs(found, timeout=15)[1] and not self.processes():
                break
        return bool(found)

    def _whole(self) -> bool:
        """Whether all of it runs: workers whose parent or database was killed answer that they are well."""
        led = any(os.getsid(p.pid) == p.pid for p in self.processes())
        return led and postgres.running(self.data) and self._answers()

    def _answers(self) -> bool:
        """Whether it is up, its tables made."""
        try:
            with _opened(f"{self.address}/health", 5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _ask(self, path: str, method: str, body: dict[str, str]) -> tuple[int, str]:
        """(status, text) of what its administrator is answered; 0 where nothing answers."""
        known = self.password.read_text(encoding="utf-8").strip() if self.password.exists() else ""
        request = urllib.request.Request(f"{self.address}/{quote(path)}", json.dumps(body).encode(), method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{ADMIN}:{known}".encode()).decode())
        try:
            with _opened(request, 60) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError as error:
            return 0, str(error)


def _keep(path: Path, make: Callable[[], str]) -> str:
    """The text of a file that only its owner reads, made where there is none."""
    if not path.exists():
        with files.whole(path) as temporary:
            temporary.unlink(missing_ok=True)
            temporary.touch(0o600)
            temporary.write_text(make(), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _opened(request: urllib.request.Request | str, seconds: float) -> Any:
    """What a server on this machine answers."""
    proxies.spare_this_machine()
    return urllib.request.urlopen(request, timeout=seconds)


def _refuse_taken(host: str, port: int) -> None:
    """Refuse a port that somebody else listens at."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        raise EngineError(
            f"The server cannot listen at {host}:{port}.", found=str(error), expected="a free port of this machine",
            do="name another: holdfast server start --port 5001",
        ) from None  # fmt: skip
