"""A study says before it begins that the disk will not hold it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections import namedtuple

import pytest
import yaml
from conftest import ROOT, save_roles
from transformers import AutoModelForCausalLM

from holdfast.errors import DataError, DiskError
from holdfast.record import files
from holdfast.study import preflight, resolve, room

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    def of(count: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, count))

    return of


def test_nothing_begins_on_a_full_disk(free, tmp_path):
    free(room.LEAST)
    room.refuse_full(tmp_path)
    free(room.LEAST - 1)
    with pytest.raises(DiskError, match=r"20 MB are free in .*"):
        room.refuse_full(tmp_path)


def test_a_dry_run_may_plan_on_a_full_disk_and_a_run_ends_with_2(free, monkeypatch, capsys):
    monkeypatch.delenv("HOLDFAST_ALIVE", raising=False)
    free(0)
    assert preflight.study("smoke", ROOT, dry=True).name == "smoke"
    with pytest.raises(SystemExit) as left:
        preflight.study("smoke", ROOT)
    assert left.value.code == 2 and "DiskError: There is no room" in capsys.readouterr().err


def test_models_that_will_not_fit_are_said(free, tmp_path, tokenizer, monkeypatch):
    folder = save_roles(tmp_path, tokenizer)
    config = tmp_path / "config"
    config.mkdir()
    (config / "s.yaml").write_text(yaml.safe_dump({
        "base": {"source": str(folder / "base")},
        "tasks": {"crafts": {"dataset": "crafts"}}, "arms": {"full": {"method": "full"}, "warp": {"method": "warp"}},
        "seeds": [0, 1],
    }))  # fmt: skip
    resolved = resolve.load("s", config)
    numbers = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder / "base").parameters())
    four_cells_base_aligned = 6 * 4 * numbers
    free(four_cells_base_aligned)
    assert room.line(resolved, folder / "base", tmp_path) is None
    free(four_cells_base_aligned - 1)
    said = room.line(resolved, folder / "base", tmp_path)
    assert said.startswith(f"its models take about {files.shown(four_cells_base_aligned)}, of which 0 B are there")
    made = tmp_path / "work/s/base/model.safetensors"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"x")
    assert room.line(resolved, folder / "base", tmp_path) is None
    assert room.line(resolved, None, tmp_path) is None


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "a.safetensors"), OSError(errno.EDQUOT, "quota"),
     sqlite3.OperationalError("database or disk is full"),
     RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")],
)  # fmt: skip
def test_a_full_disk_is_one_block_whoever_says_it(error):
    found = files.no_room(error)
    assert isinstance(found, DiskError) and found.exit_code == 2 and "are free in" in found.found
    if getattr(error, "filename", None):
        assert "writing a.safetensors" in found.found
    wrapped = ValueError("while saving")
    wrapped.__cause__ = error
    assert files.no_room(wrapped) is not None


def test_other_errors_are_not_of_the_disk():
    circle = ValueError("x")
    circle.__context__ = OSError(errno.ENOENT, "gone")
    circle.__context__.__context__ = circle
    assert files.no_room(circle) is None and files.no_room(DataError("a row")) is None


def _file(folder):
    (folder / "work").write_text("")


def _link(folder):
    (folder / "results").symlink_to("/nowhere/at/all")


def _locked(folder):
    (folder / "logs/s").mkdir(parents=True)
    (folder / "logs/s").chmod(0o500)
    if os.access(folder / "logs/s", os.W_OK):
        pytest.skip("this user may write everywhere")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [(_file, "work is no place to write work/s"), (_link, "a link to /nowhere/at/all"), (_locked, "cannot be written")],
)
def test_a_place_that_cannot_be_written_is_said_before_it_begins(tmp_path, break_it, says):
    room.refuse_unwritable("s", tmp_path)
    (tmp_path / "results/s").mkdir(parents=True)
    room.refuse_unwritable("s", tmp_path)
    (tmp_path / "results/s").rmdir()
    (tmp_path / "results").rmdir()
    break_it(tmp_path)
    with pytest.raises(DiskError, match=says):
        room.refuse_unwritable("s", tmp_path)


def test_a_disk_that_is_mounted_to_be_read_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what access(2) says of it, also to root
    with pytest.raises(DiskError, match=r"no place to write \.snakemake"):
        room.refuse_unwritable("s", tmp_path)
