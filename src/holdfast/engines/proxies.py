"""A server on this machine is reached past every proxy: a judge, MLflow."""

from __future__ import annotations

import os

HERE = ("localhost", "127.0.0.1", "::1")
_NAMES = ("no_proxy", "NO_PROXY")  # some libraries read one, some the other


def spare_this_machine() -> None:
    """Have whatever opens connections in this process, and in those that it starts, ask no proxy for this machine."""
    said = next((os.environ[name] for name in _NAMES if os.environ.get(name)), "")
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    for name in _NAMES:
        os.environ[name] = ",".join([*hosts, *(host for host in HERE if host not in hosts)])
