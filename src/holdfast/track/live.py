"""Live curves: training writes train.jsonl and never waits for MLflow; a background thread copies new points, and
every failure of it is only logged."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.track import store
from holdfast.track.store import CELL, STATUS

LIVE_AFTER_SECONDS, LIVE_EVERY_SECONDS = 30.0, 15.0


@contextlib.contextmanager
def live(cfg: dict[str, Any] | None, curve: Path, say: Callable[[str], None]) -> Iterator[None]:
    """While the body trains, copy new points of `curve` to MLflow from a background thread.

    Starts after half a minute, so that short runs never pay for importing mlflow; a store that is
    missing, locked or broken is reported in the log and costs the training nothing.
    """
    stop = threading.Event()

    def follow(cfg: dict[str, Any]) -> None:
        if stop.wait(LIVE_AFTER_SECONDS):
            return
        try:
            uri = store.default_uri(Path())
            client, run_id, sent = store.client_of(uri), None, 0
            experiment = store.known(client, uri, cfg["study"])
            if experiment is None:
                say("live curves: no experiment yet, skipped")
                return
            while True:
                points = store.points(curve.with_name(curve.name + ".partial"))
                if run_id is None and points:
                    with store.lock(uri, cfg["cell"]):
                        for run in store.runs_of(client, experiment.experiment_id, cfg["cell"]):
                            if run.info.status == "RUNNING":
                                client.delete_run(run.info.run_id)
                        tags = {CELL: cfg["cell"], STATUS: "training", "study": cfg["study"]}
                        run = client.create_run(
                            experiment.experiment_id, start_time=points[0].timestamp,
                            run_name=f"{cfg['cell']} (training)", tags=tags,
                        )  # fmt: skip
                        run_id = run.info.run_id
                if run_id is not None and len(points) > sent:
                    store.log_points(client, run_id, points[sent:])
                    sent = len(points)
                if stop.wait(LIVE_EVERY_SECONDS):
                    return
        except Exception as error:  # noqa: BLE001 - tracking must never stop a training run
            say(f"live curves stopped: {type(error).__name__}: {str(error)[:160]}")

    thread = threading.Thread(target=follow, args=(cfg,), daemon=True) if cfg else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread:
            thread.join(timeout=5)
