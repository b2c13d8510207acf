"""Fixtures: a pico Llama of the world, and the real data where HOLDFAST_DATA points at it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("holdfast", deadline=None)
settings.load_profile("holdfast")
ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices this small lose time to a second thread


@pytest.fixture(scope="session")
def world():
    from holdfast.world.generator import World

    return World(3)


@pytest.fixture(scope="session")
def tokenizer(world):
    from holdfast.model import chat
    from holdfast.world.model import train_tokenizer

    texts = [chat.render(r["prompt"], r["response"]) for r in world.pretraining(600)]
    return train_tokenizer(texts + [chat.render("News: x", "Sci/Tech")] * 5, 700)


@pytest.fixture
def model(tokenizer):
    from holdfast.world.model import new_model

    return new_model(
        tokenizer, hidden_size=32, intermediate_size=48, layers=2, heads=4, kv_heads=2, max_positions=256, seed=0
    )


SMALL = {"hidden_size": 32, "intermediate_size": 48, "layers": 1, "heads": 4, "kv_heads": 2, "max_positions": 256}


def save_roles(folder: Path, tokenizer) -> Path:
    """A folder with a small aligned model and a base of the same shape."""
    from holdfast.model import folders
    from holdfast.world.model import new_model

    for seed, role in enumerate(("aligned", "base")):
        folders.save(new_model(tokenizer, **SMALL, seed=seed), tokenizer, folder / role, header={"role": role})
    return folder


@pytest.fixture(scope="session")
def encoded(world, tokenizer):
    from holdfast.model import chat

    return [chat.encode(tokenizer, r["prompt"], r["response"]) for r in world.safety(24, 0)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("HOLDFAST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("HOLDFAST_DATA does not point at the real data files")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """The project with a finished smoke study; the first process of the tests that asks makes it, for all of them."""
    from filelock import FileLock
    from workflow import finished

    top = tmp_path_factory.getbasetemp()
    folder = (top.parent if "PYTEST_XDIST_WORKER" in os.environ else top) / "project"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.with_suffix(".finished").exists():
            shutil.rmtree(folder, ignore_errors=True)
            finished(folder)
            folder.with_suffix(".finished").touch()
    return folder


@pytest.fixture
def copy(project, tmp_path) -> Path:
    """The finished project, to be changed; times are kept."""
    folder = tmp_path / "p"
    shutil.copytree(project, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def template_store(tmp_path_factory):
    """An initialised store, made once: creating one takes seconds."""
    from holdfast.track import store

    folder = tmp_path_factory.mktemp("store")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store.create_store({"study": "s"}, folder / "store.json")
    patch.undo()
    return folder


@pytest.fixture
def opened(template_store, tmp_path, monkeypatch):
    """An MLflow store of an empty study, in the folder of the test."""
    from holdfast.track import store

    shutil.copy(template_store / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return store.create_store({"study": "s"}, tmp_path / "store.json")
