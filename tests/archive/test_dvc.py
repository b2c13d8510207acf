"""DVC with a study that really ran: links into the cache, git branches, experiments, metrics and params."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from workflow import call, edit, planned, snakemake

pytestmark = pytest.mark.dag
CHANGE = ("warp: {method: warp, freeze_fraction: 0.1}", "warp: {method: warp, freeze_fraction: 0.2}")
MODEL = "work/smoke/crafts/warp/seed0/model.safetensors"


@pytest.fixture
def pushed(copy, tmp_path) -> Path:
    """The finished study in a git repository, pushed to a DVC remote and committed."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder = copy
    shutil.copy(ROOT / ".gitignore", folder)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    call(folder, "dvc", "init", "--quiet")
    call(folder, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    call(folder, "holdfast", "push", "smoke")
    commit(folder, "a finished study")
    return folder


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    out = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def run(folder: Path, *targets: str) -> None:
    out = snakemake(folder, "--quiet", "rules", "--", *targets)
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_jobs_never_write_through_a_link_into_the_cache(pushed, tmp_path, link):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(pushed), str(clone))
    call(clone, "dvc", "config", "--local", "cache.type", link)
    call(clone, "holdfast", "pull", "smoke")
    table = clone / "results/smoke/table.csv"
    assert table.is_symlink() if link == "symlink" else table.stat().st_nlink > 1
    assert planned(clone) == {}
    edit(clone / "config/smoke.yaml", *CHANGE)
    run(clone, MODEL, "results/smoke/crafts/warp/seed0/metrics.json")
    objects = [p for p in (clone / ".dvc/cache/files/md5").rglob("*") if p.is_file()]
    for path in objects:
        found = hashlib.md5(path.read_bytes()).hexdigest()
        assert found == (path.parent.name + path.name).removesuffix(".dir")
    assert len(objects) > 50
    assert (clone / MODEL).read_bytes() != (pushed / MODEL).read_bytes()


def test_branches_experiments_and_what_differs(pushed):
    """Another branch and back plans nothing; an experiment in a copy of the project runs what hangs on its setting
    and reports its numbers; dvc shows what differs."""
    edit(pushed / "config/smoke.yaml", *CHANGE)
    run(pushed)
    call(pushed, "holdfast", "push", "smoke")
    git(pushed, "checkout", "--quiet", "-b", "more-frozen")
    commit(pushed, "more frozen")
    assert "arms.warp.freeze_fraction" in call(pushed, "dvc", "params", "diff", "main")
    assert "crafts.warp." in call(pushed, "dvc", "metrics", "diff", "main", "--all")
    models = {}
    for branch in ("main", "more-frozen"):
        git(pushed, "checkout", "--quiet", branch)
        call(pushed, "dvc", "checkout", "--quiet", "--force")
        call(pushed, "holdfast", "snapshot", "restore", "smoke")
        assert planned(pushed) == {}, branch
        models[branch] = (pushed / MODEL).read_bytes()
    assert models["main"] != models["more-frozen"]

    setting = "config/smoke.yaml:arms.warp.freeze_fraction=0.3"
    call(pushed, "dvc", "exp", "run", "--temp", "--name", "third", "--set-param", setting, "dvc/smoke/dvc.yaml")
    assert (pushed / MODEL).read_bytes() == models["more-frozen"] and git(pushed, "status", "--porcelain") == ""
    assert "0.3" in call(pushed, "dvc", "params", "diff", "HEAD", "third")
    call(pushed, "dvc", "exp", "apply", "third")
    call(pushed, "holdfast", "snapshot", "restore", "smoke")
    assert planned(pushed) == {"cards": 1, "import_runs": 1}  # views of the results, which DVC does not make
    assert (pushed / MODEL).read_bytes() not in models.values()
