"""MLflow under stress: `python tests/stress.py`, a part of `make soak`.

Twelve importers at once on a fresh database; a server (on PostgreSQL where that is installed) that is killed -9 in the
middle of an import and comes back 40 seconds later; an artifact store on a full disk. After each, every cell has
exactly one run, finished, with every point.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from cells import cell

from holdfast.errors import HoldfastError
from holdfast.track import importing, store

CELLS, POINTS, AWAY_SECONDS = 12, 2500, 40
IMPORT = """
import sys; from pathlib import Path; from holdfast.track import importing
importing.import_study([Path(p) for p in sys.argv[1:]], extra=[Path("table.csv")],
                       resolved={"study": "s"}, out=Path(f"mlflow-{Path(sys.argv[1]).parent.name}.json"), say=print)
"""


def planted(folder: Path) -> list[Path]:
    (folder / "table.csv").write_text("a,b\n1,2\n")
    return [cell(folder, f"arm{i}", points=POINTS) for i in range(CELLS)]


def importer(folder: Path, cells: list[Path]) -> subprocess.Popen:
    command = [sys.executable, "-c", IMPORT, *map(str, cells)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)


def complete(uri: str, experiment: str = "s") -> str:
    """Every cell once, finished, with every point and artifact."""
    client = store.client_of(uri)
    found = client.get_experiment_by_name(experiment)
    runs = [r for r in client.search_runs([found.experiment_id], max_results=1000) if "arm" in r.data.tags]
    names = sorted(r.data.tags[store.CELL] for r in runs)
    assert names == sorted(f"s/t/arm{i}/seed0" for i in range(CELLS)), names
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert run.info.status == "FINISHED" and len(points) == POINTS, (run.info.run_name, len(points))
        there = {f.path for f in client.list_artifacts(run.info.run_id)}
        assert {"metrics.json", "train.json", "train.jsonl", "study.json"} <= there, there
    return f"{len(runs)} runs with {POINTS} points each"


def parallel(folder: Path) -> str:
    """Twelve importers of a cell each, on a database that does not exist yet."""
    cells = planted(folder)
    running = [importer(folder, [cell]) for cell in cells]
    assert [p.wait() for p in running] == [0] * CELLS
    return complete(f"sqlite:///{folder / 'mlflow.db'}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def backend(folder: Path) -> Iterator[str]:
    """Where the server keeps its runs: a PostgreSQL of its own where that is installed (with psycopg2), else SQLite."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None or importlib.util.find_spec("psycopg2") is None:
        yield f"sqlite:///{folder / 'server.db'}"
        return
    # It refuses to run as root.
    user = {"user": "nobody", "group": "nogroup", "extra_groups": ()} if os.geteuid() == 0 else {}
    place, port = Path(tempfile.mkdtemp(prefix="holdfast-pg-")), free_port()
    if user:
        shutil.chown(place, user["user"], user["group"])
    quiet = {"cwd": place, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | user
    subprocess.run([programs / "initdb", "-D", place / "data", "-A", "trust", "-U", "holdfast"], check=True, **quiet)
    running = subprocess.Popen(
        [programs / "postgres", "-D", place / "data", "-p", str(port), "-k", str(place), "-h", "127.0.0.1"], **quiet
    )
    try:
        for _ in range(120):
            if subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], **quiet).returncode == 0:
                break
            time.sleep(0.5)
        yield f"postgresql://holdfast@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait()
        shutil.rmtree(place, ignore_errors=True)


def server(folder: Path, port: int, *arguments: str, backend_uri: str = "") -> subprocess.Popen:
    """An MLflow server of one worker, once it answers; end it with `kill`."""
    started = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", backend_uri or f"sqlite:///{folder / 'server.db'}",
         "--artifacts-destination", str(folder / "kept"), *arguments],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    for _ in range(240):
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                return started
        except OSError:
            time.sleep(0.5)
    kill(started)
    raise RuntimeError("the server does not start")


def kill(server: subprocess.Popen) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def server_killed(folder: Path) -> str:
    """The server dies in the middle of an import, for 40 seconds; the import waits, and ends complete."""
    with backend(folder) as backend_uri:
        return f"{_server_killed(folder, backend_uri)} in {backend_uri.split(':')[0]}"


def _server_killed(folder: Path, backend_uri: str) -> str:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    os.environ["MLFLOW_TRACKING_URI"] = uri
    cells, running_server = planted(folder), server(folder, port, backend_uri=backend_uri)
    running = importer(folder, cells)
    client = store.client_of(uri)
    while True:  # until some cells are there and others are not
        found = client.get_experiment_by_name("s")
        runs = client.search_runs([found.experiment_id]) if found else []
        if len(runs) >= 3 or running.poll() is not None:
            break
        time.sleep(0.1)
    kill(running_server)
    assert running.poll() is None, "the import ended before the server was killed"
    time.sleep(AWAY_SECONDS)
    running_server = server(folder, port, backend_uri=backend_uri)
    first = running.wait()
    again = 0
    while first and again < 3:  # an import that gave up says so with exit code 2; the same command again is all
        again += 1
        first = importer(folder, cells).wait()
    try:
        assert first == 0
        return f"{complete(uri)}, {again} rerun(s)"
    finally:
        kill(running_server)
        del os.environ["MLFLOW_TRACKING_URI"]


def disk_full(folder: Path) -> str:
    """Artifacts on a full disk: one error block, and after there is room the same command is all."""
    small = folder / "mlartifacts"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(small)], capture_output=True)
    if mounted.returncode:
        return "not run: this user may not mount a small disk"
    try:
        cells = planted(folder)
        os.chdir(folder)
        arguments = {"extra": [folder / "table.csv"], "resolved": {"study": "s"}, "out": folder / "m.json", "say": str}
        try:
            importing.import_study(cells, **arguments)
        except HoldfastError as error:
            assert "No space left" in error.found and "hangs on it" in error.what, error.block()
        else:
            raise AssertionError("a full disk was not noticed")
        assert not (folder / "m.json").exists()
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        importing.import_study(cells, **arguments)
        return complete(f"sqlite:///{folder / 'mlflow.db'}")
    finally:
        os.chdir("/")
        subprocess.run(["umount", str(small)], check=False)


def main() -> int:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for scenario in (parallel, server_killed, disk_full):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            found = scenario(Path(folder))
            print(f"{scenario.__name__}: {found} ({time.monotonic() - started:.0f} s)", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
