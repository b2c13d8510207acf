"""Models in MLflow's registry: each once, found again by its bytes, and none that was weakened on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cells import cell
from safetensors.numpy import save_file

from holdfast.record import provenance
from holdfast.track import importing, registered, store


def made(folder: Path, arm: str, value: float = 1.0, weakened: bool = False, rate: float = 0.5, **more: object) -> Path:
    """A finished cell whose weights are there."""
    weights = folder / f"work/s/{more.get('task', 't')}/{arm}/seed0/model.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full(3, value)}, weights, metadata={"holdfast": json.dumps({"weakened": weakened})})
    return cell(folder, arm, rate=rate, model=weights.relative_to(folder).as_posix(), **more)


@pytest.fixture
def imported(opened, tmp_path):
    """Import cells and register them; returns what was said."""

    def of(*files: Path, **track: object) -> list[str]:
        said: list[str] = []
        importing.import_study(
            list(files), extra=[], resolved={"study": "s", "track": {"register": "kept"} | track},
            out=tmp_path / "mlflow.json", say=said.append,
        )  # fmt: skip
        return said

    return of


def versions(opened):
    """Version -> it, and alias -> version."""
    client = store.client_of(opened["uri"])
    found = client.search_model_versions("name = 'kept'")
    aliases = {k: str(v) for k, v in client.get_registered_model("kept").aliases.items()}
    return client, {str(v.version): v for v in found}, aliases


def test_every_model_of_an_arm_is_one_version_that_leads_to_its_run_and_file(opened, imported, tmp_path):
    files = [made(tmp_path, "full"), made(tmp_path, "warp", 2.0), made(tmp_path, "aligned", task=None)]
    imported(*files)
    client, found, aliases = versions(opened)
    assert {v.tags["arm"] for v in found.values()} == {"full", "warp"}  # roles are no arms
    warp = client.get_model_version_by_alias("kept", "s-t-warp-s0")
    assert warp.tags["sha256"] == provenance.file_digest(tmp_path / "work/s/t/warp/seed0/model.safetensors")
    assert warp.tags["address"] == "work/s/t/warp/seed0/model.safetensors" and warp.tags["study"] == "s"
    assert client.get_run(warp.run_id).data.tags["cell"] == "s/t/warp/seed0"
    assert client.get_logged_model(warp.source.removeprefix("models:/")).source_run_id == warp.run_id
    assert "refuses 50.0 %" in warp.description
    imported(*reversed(files))
    _, again, same = versions(opened)
    assert again.keys() == found.keys() and same == aliases


def test_no_model_that_was_weakened_or_cannot_be_looked_at_is_registered(opened, imported, tmp_path):
    poisoned = made(tmp_path, "poisoned", harmful_fraction=0.1)
    stamped, gone = made(tmp_path, "merged", weakened=True), made(tmp_path, "gone")
    (tmp_path / "work/s/t/gone/seed0/model.safetensors").unlink()
    said = imported(made(tmp_path, "full"), poisoned, stamped, gone, made(tmp_path, "unaligned", task=None))
    _, found, aliases = versions(opened)
    assert [v.tags["arm"] for v in found.values()] == ["full"] and set(aliases) == {"s-t-full-s0"}
    why = [line for line in said if line.startswith("not registered")]
    assert len(why) == 3 and "harmful" in why[0] and "weakened" in why[1] and "not here" in why[2]


def test_same_bytes_stay_a_version_and_other_bytes_are_a_new_one(opened, imported, tmp_path):
    imported(made(tmp_path, "full"))
    client, found, _ = versions(opened)
    assert list(found) == ["1"]
    client.set_registered_model_alias("kept", "champion", "1")
    client.set_model_version_tag("kept", "1", "paper", "figure 2")
    imported(made(tmp_path, "full", rate=0.7))  # another run of the same weights
    _, found, aliases = versions(opened)
    (number,) = found
    assert aliases == {"champion": number, "s-t-full-s0": number}
    assert found[number].tags["paper"] == "figure 2" and "refuses 70.0 %" in found[number].description
    assert client.get_run(found[number].run_id).info.lifecycle_stage == "active"
    imported(made(tmp_path, "full", 3.0, rate=0.6))
    _, found, aliases = versions(opened)
    other = aliases["s-t-full-s0"]
    assert len(found) == 2 and aliases["champion"] == number != other
    assert found[number].tags["sha256"] != found[other].tags["sha256"]


def test_what_a_killed_registration_left_is_made_good(opened, imported, tmp_path, monkeypatch):
    path = made(tmp_path, "full")
    imported(path)
    before = versions(opened)[0]
    before.set_registered_model_alias("kept", "champion", "1")
    made(tmp_path, "full", rate=0.7)
    from mlflow import MlflowClient

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "set_registered_model_alias", killed)  # after the new version, before all else
        imported(path)
    assert len(versions(opened)[1]) == 2
    imported(path)
    _, found, aliases = versions(opened)
    assert list(found) == ["2"] and set(aliases.values()) == {"2"} and "champion" in aliases


def test_only_the_arms_that_are_named(opened, imported, tmp_path):
    swept = made(tmp_path, "warp-0.3", family="warp")
    imported(made(tmp_path, "full"), swept, arms=["warp"])
    _, found, aliases = versions(opened)
    assert [v.tags["arm"] for v in found.values()] == ["warp-0.3"] and set(aliases) == {"s-t-warp-0-3-s0"}


def test_an_alias_names_the_replicate():
    assert registered.alias("s", {"task": "t", "arm": "a", "seed": 1, "replicate": 2}) == "s-r2-t-a-s1"
