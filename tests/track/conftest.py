"""A store that is made once for all tests of this folder: creating one takes seconds."""

from __future__ import annotations

import shutil

import pytest

from holdfast.track import store


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """An initialised store, made once: creating one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.create_store({"study": "s"}, folder / "store.json")
    patch.undo()
    return folder


@pytest.fixture
def opened(template, tmp_path, monkeypatch):
    shutil.copy(template / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return store.create_store({"study": "s"}, tmp_path / "store.json")
