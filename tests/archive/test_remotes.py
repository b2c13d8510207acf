"""A folder, an sshd and an S3 server as remotes: what goes over the wire, what heals, what is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import servers
import yaml
from conftest import ROOT

from holdfast.archive import audit, objects, remote
from holdfast.cli.main import main
from holdfast.engines import dvc
from holdfast.errors import ArtifactError
from holdfast.study import resolve

STUDY = {
    "tasks": {"crafts": {"dataset": "crafts"}},
    "arms": {"full": {"method": "full"}},
    "constitution": {"guidelines_file": str(ROOT / "config/guidelines/world.txt")},
}
KINDS = ("folder", "ssh", "s3")
Pushed = namedtuple("Pushed", "cache store known")


def study(folder: Path) -> Path:
    """Files as a finished study has them: 3 in each family, one of them the same everywhere."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(STUDY))
    for family, (_, folders) in remote.families(resolve.load(str(folder / "mine.yaml"))).items():
        for place in folders:
            (folder / place / "sub").mkdir(parents=True)
            for name, size in (("sub/a.bin", 200_000), ("b.bin", 70_000)):
                (folder / place / name).write_bytes((family.encode() + b"\0") * (size // (len(family) + 1)))
            (folder / place / "config.json").write_text('{"the same": "everywhere"}')
    return folder


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Path:
    """A study that DVC keeps, and no remote yet."""
    folder = study(tmp_path_factory.mktemp("committed"))
    with contextlib.chdir(folder):
        resolved = resolve.load("mine.yaml")
        remote.stages_file(resolved).parent.mkdir(parents=True)
        remote.stages_file(resolved).write_text(remote.definition(resolved))
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
        dvc.run("commit", "--force", str(remote.stages_file(resolved)))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def server(request, tmp_path_factory):
    top = tmp_path_factory.mktemp(request.param)
    if request.param == "folder":
        yield servers.Server(str(top / "kept"), {})
        return
    missing = servers.NO_SSH if request.param == "ssh" else servers.NO_S3
    if missing:
        pytest.skip(missing)
    with getattr(servers, request.param)(top) as running:
        yield running


def settings(url: str, **others: str) -> None:
    lines = "".join(f"    {key} = {value}\n" for key, value in {"url": url, **others}.items())
    Path(".dvc/config").write_text(f"[core]\n    remote = r\n    no_scm = true\n['remote \"r\"']\n{lines}")


@pytest.fixture
def project(committed, server, tmp_path, monkeypatch) -> servers.Server:
    """Here is the study, whose remote is an empty place of the server."""
    shutil.copytree(committed, tmp_path / "a", symlinks=True)
    monkeypatch.chdir(tmp_path / "a")
    mine = replace(server, url=f"{server.url}/{tmp_path.name}")
    settings(mine.url, **mine.settings)
    return mine


def elsewhere(project: servers.Server, monkeypatch) -> Path:
    """A clone: the study file, dvc.yaml and dvc.lock, and nothing else."""
    here = Path.cwd()
    there = here.with_name("b")
    shutil.rmtree(there, ignore_errors=True)
    shutil.copytree(here, there, ignore=shutil.ignore_patterns("work", "results", "cache", "tmp"))
    monkeypatch.chdir(there)
    return here


def opened() -> Pushed:
    """The cache, the remote and what the lock says, as a new process would see them."""
    cache, store = dvc.both()
    return Pushed(cache, store, objects.pushed(Path("dvc/mine/dvc.lock"), [cache, store]))


def send(verify: bool = False) -> str:
    """What a push sends, in its own words."""
    at, said = opened(), []
    objects.send(at.known, at.cache, at.store, verify=verify, say=said.append, again="again")
    return said[0]


def fetch(verify: bool = False) -> str:
    at, said = opened(), []
    objects.fetch(at.known, at.cache, at.store, verify=verify, say=said.append, heal="heal")
    return said[0]


def put(store: dvc.Store, md5: str, content: bytes) -> None:
    """Other bytes under the name of an object, as a broken disk or an unfinished copy would leave."""
    store.kept.fs.remove(store.path(md5))
    store.kept.fs.pipe_file(store.path(md5), content)


def held(store: dvc.Store, md5: str) -> bytes:
    return store.kept.fs.cat_file(store.path(md5))


def files(folder: Path) -> dict[str, bytes]:
    found = (p for top in ("work", "results") for p in (folder / top).rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found if not p.name.startswith(".git")}


def test_a_study_travels_and_only_what_is_new_goes_over_the_wire(project, monkeypatch, capsys):
    def ran(*arguments: str) -> str:
        assert main([*arguments]) == 0
        return capsys.readouterr().out

    names = set(remote.families(resolve.load("mine.yaml")))
    known = opened().known
    size = sum(len(p.read_bytes()) for p in Path(".dvc/cache/files").rglob("*") if p.is_file())
    assert len(known.objects) == 3 * len(names) + 1  # two files and a list of each family, and one file of all
    first = ran("push", "mine.yaml")
    shown = f"{size / 1e6:.3g} MB"
    assert first.startswith(
        f"{len(known.objects)} of {len(known.objects)} files ({shown}) go to {project.url}\npushed "
    )
    Path("work/mine/base/new.bin").write_bytes(b"n" * 5000)
    second = ran("push", "mine.yaml", "base")
    assert second.startswith("2 of 5 files (5.")  # the file and the new list
    whole = files(elsewhere(project, monkeypatch))
    assert ran("pull", "mine.yaml", "base").startswith("5 of 5 files (")
    assert files(Path()) == {name: content for name, content in whole.items() if name.startswith("work/mine/base/")}
    count = len(opened().known.objects)
    assert ran("pull", "mine.yaml").startswith(f"{count - 5} of {count} files (") and files(Path()) == whole
    assert ran("pull", "mine.yaml").startswith(f"0 of {count} files (0 B) go from {project.url}: all are there\n")


def test_what_the_remote_lost_or_cut_short_is_sent_again_by_any_push(project):
    send()
    at = opened()
    family, listed = next((folder, sorted(inside)) for folder, inside in at.known.folders.items())
    lost, cut = listed[:2]
    at.store.kept.fs.remove(at.store.path(lost))
    put(at.store, cut, held(at.store, cut)[:-1])
    naming = sum(bool(inside & {lost, cut}) for inside in at.known.folders.values())
    assert send().startswith(f"{2 + naming} of ")
    assert set(opened().store.states(at.known.objects).values()) == {"ok"}
    put(at.store, family, b" " * len(held(at.store, family)))  # a list says what is there, and is read by every push
    assert send().startswith("1 of ") and opened().store.state(family) == "ok"


def test_other_bytes_of_the_same_length_are_found_by_verify_and_never_fetched(project, monkeypatch):
    send()
    at = opened()
    wrong = next(md5 for md5, path in at.known.objects.items() if path == "work/mine/base/b.bin")
    bad = b"x" + held(at.store, wrong)[1:]
    put(at.store, wrong, bad)
    assert send().startswith("0 of ")
    here = elsewhere(project, monkeypatch)
    with pytest.raises(ArtifactError, match=r"work/mine/base/b\.bin cannot be fetched") as error:
        fetch()
    assert "heal" in error.value.do and "other bytes" in error.value.found
    cache = opened().cache
    assert cache.sizes(at.known.objects).keys() == at.known.objects.keys() - {wrong}
    assert not Path("work").exists()
    (problem,) = audit.remote_problems(resolve.load("mine.yaml"), at.known, opened().store)
    assert problem.path == "work/mine/base/b.bin" and problem.repair.startswith("holdfast push mine --verify")
    monkeypatch.chdir(here)
    assert send(verify=True).startswith("2 of ")  # the file and the list that names it
    assert held(opened().store, wrong) != bad and send(verify=True).startswith("0 of ")
    monkeypatch.chdir(here.with_name("b"))
    assert fetch().startswith("1 of ")


def test_the_list_of_a_folder_goes_before_what_it_names_is_replaced(project, monkeypatch):
    """DVC takes a list as proof: a push that is killed while it heals must not leave one."""
    send()
    at = opened()
    wrong = next(md5 for md5, path in at.known.objects.items() if path == "work/mine/base/b.bin")
    lists = {md5 for md5, inside in at.known.folders.items() if wrong in inside}
    at.store.kept.fs.remove(at.store.path(wrong))
    monkeypatch.setattr(dvc.Store, "take", lambda *_, **__: None)
    send()
    assert at.known.objects.keys() - opened().store.sizes(at.known.objects).keys() == {wrong} | lists


KILLED = """
import os, signal, sys
from dvc.fs.callbacks import TqdmCallback
from holdfast.cli.main import main
from holdfast.engines import dvc
left, update, take = int(sys.argv[1]), TqdmCallback.relative_update, dvc.Store.take
def die(self, value=1):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    update(self, value)
def taken(*arguments, **others):
    TqdmCallback.relative_update = die
    take(*arguments, **others)
dvc.Store.take = taken
sys.exit(main(sys.argv[2:]))
"""


def test_a_push_and_a_pull_that_are_killed_go_on_where_they_were(project, monkeypatch):
    def killed(after: int, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(after), *arguments], env=environment, capture_output=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()

    killed(4, "push", "mine.yaml")
    at = opened()
    there = at.store.sizes(at.known.objects)
    assert 0 < len(there) < len(at.known.objects) and not there.keys() & at.known.folders.keys()
    assert set(at.store.states(there).values()) == {"ok"}
    total = len(at.known.objects)
    assert send().startswith(f"{total - len(there)} of {total} files")
    whole = files(elsewhere(project, monkeypatch))
    killed(4, "pull", "mine.yaml")
    assert not Path("work").exists()
    assert main(["pull", "mine.yaml"]) == 0 and files(Path()) == whole


def test_a_damaged_cache_is_not_pushed_and_not_pulled_from(project, monkeypatch, capsys):
    at = opened()
    md5 = next(md5 for md5, path in at.known.objects.items() if path == "work/mine/base/b.bin")
    path = Path(at.cache.path(md5))
    good = path.read_bytes()

    def damage() -> None:
        path.chmod(0o644)
        path.write_bytes(b"x" + good[1:])
        path.chmod(0o444)

    damage()
    assert main(["push", "mine.yaml"]) == 2
    said = capsys.readouterr().err
    assert "work/mine/base/b.bin is damaged in DVC's cache" in said and f"rm -f {path}; holdfast push mine" in said
    assert opened().store.sizes(at.known.objects) == {}
    path.unlink()
    assert main(["push", "mine.yaml"]) == 0 and path.read_bytes() == good  # as the block says
    damage()
    assert fetch().startswith("0 of ") and path.read_bytes() != good
    with monkeypatch.context() as patched, pytest.raises(ArtifactError, match="cannot be fetched"):
        patched.setattr(dvc.Store, "take", lambda *_, **__: None)
        fetch(verify=True)
    assert not path.exists()
    assert fetch(verify=True).startswith("1 of ") and path.read_bytes() == good


def test_a_remote_that_lost_a_file_is_one_block_before_anything_is_written(project, monkeypatch):
    send()
    at = opened()
    lost = next(md5 for md5, path in at.known.objects.items() if path == "work/mine/base/b.bin")
    at.store.kept.fs.remove(at.store.path(lost))
    elsewhere(project, monkeypatch)
    with pytest.raises(ArtifactError, match=r"work/mine/base/b\.bin cannot be fetched") as error:
        fetch()
    assert "1 files of the study are not there" in error.value.found and not Path(".dvc/cache/files").exists()
    at.store.kept.fs.remove(at.store.path(next(m for m, path in at.known.objects.items() if path == "work/mine/base")))
    with pytest.raises(ArtifactError, match="work/mine/base cannot be fetched"):
        fetch()


# ---- What is refused ------------------------------------------------------------------------------------------------


def refused(capsys, *says: str) -> None:
    """A push and a pull end in one block and write nothing."""
    before = {p: p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file() and ".dvc/tmp" not in str(p)}
    for verb in ("push", "pull"):
        assert main([verb, "mine.yaml"]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("ArtifactError: ")
        assert all(f"\n  {label}:" in said.err for label in ("found", "expected", "do"))
        for text in says:
            assert text in said.err, said.err
    assert before == {p: p.stat().st_mtime_ns for p in Path().rglob("*") if p.is_file() and ".dvc/tmp" not in str(p)}


@pytest.fixture
def local(committed, tmp_path, monkeypatch) -> Path:
    """The study with a folder as its remote."""
    shutil.copytree(committed, tmp_path / "a", symlinks=True)
    monkeypatch.chdir(tmp_path / "a")
    settings(str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_no_project_and_no_remote_are_one_block(local, capsys):
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n")
    refused(capsys, "There is no DVC remote", "no default remote", "dvc remote add --default NAME WHERE")
    Path(".dvc/config").write_text("[core]\n    remote = nowhere\n    no_scm = true\n")
    refused(capsys, "remote 'nowhere' doesn't exist", "dvc remote add")
    shutil.rmtree(".dvc")
    refused(capsys, "There is no DVC remote", "no DVC project", "dvc init; dvc remote add")


@pytest.mark.parametrize("kind", ["ssh", "s3", "gs"])
def test_a_remote_whose_package_is_not_here_says_what_to_install(kind, local, monkeypatch, capsys):
    from dvc_objects.fs.base import FileSystem

    none = classmethod(lambda kind: ["that"] if kind.protocol != "local" else [])
    monkeypatch.setattr(FileSystem, "get_missing_deps", none)  # whether its package is here or not
    settings(f"{kind}://me:hush@host/folder")
    say = f"dvc-{kind}" if kind == "gs" else f"pip install -c constraints.txt -e '.[{kind}]'"
    refused(capsys, f"{kind}://host/folder needs a package that is not here", f"no dvc-{kind}", say)


def test_a_full_disk_is_seen_before_and_what_came_until_then_stays(local, monkeypatch, capsys):
    room = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: room)
        assert main(["push", "mine.yaml"]) == 2
        assert "There is too little room" in (said := capsys.readouterr().err) and "1 KB free" in said
        assert not local.exists()
    from dvc_objects.fs import local as local_fs

    real, count = local_fs.copyfile, 0

    def full(*arguments, **others):
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **others)

    monkeypatch.setattr(local_fs, "copyfile", full)
    assert main(["push", "mine.yaml"]) == 2
    said = capsys.readouterr().err
    assert "files did not get from DVC's cache to" in said and "No space left on device" in said
    at = opened()
    assert len(at.store.sizes(at.known.objects)) == 3
    monkeypatch.setattr(local_fs, "copyfile", real)
    assert send().startswith(f"{len(at.known.objects) - 3} of ")


def test_a_folder_that_cannot_be_written_is_one_block(local, tmp_path, capsys):
    (tmp_path / "a file").write_text("")
    settings(str(tmp_path / "a file" / "kept"))
    assert main(["push", "mine.yaml"]) == 2
    assert "NotADirectoryError" in (said := capsys.readouterr().err) and "dvc remote modify r url WHERE" in said
    if os.geteuid() == 0:
        return  # whom nothing is forbidden
    (tmp_path / "shut").mkdir(mode=0o500)
    settings(str(tmp_path / "shut" / "kept"))
    assert main(["push", "mine.yaml"]) == 2
    assert "PermissionError" in (said := capsys.readouterr().err) and "dvc remote modify r url WHERE" in said


@pytest.mark.parametrize("server", ["ssh"], indirect=True)
def test_an_ssh_remote_that_does_not_let_us_in_is_one_block(project, tmp_path, monkeypatch, capsys):
    ways = "dvc remote modify --local r user | port | keyfile"
    settings(project.url, **project.settings | {"keyfile": str(servers.key(tmp_path / "other"))})
    refused(capsys, "does not let us in", "Permission denied", ways)
    settings(project.url, **project.settings | {"port": str(servers.free_port())})
    refused(capsys, "does not let us in", "Connect call failed", ways)
    with servers.silent() as port, monkeypatch.context() as patched:
        patched.setattr(dvc, "_SECONDS", 2)
        settings(project.url, **project.settings | {"port": str(port)})
        refused(capsys, "does not let us in", "no answer in time", ways)
    settings("ssh://nobody.invalid/kept", **project.settings)
    refused(capsys, "ssh://nobody.invalid/kept does not let us in", ways)
    settings(project.url, **project.settings)
    assert main(["push", "mine.yaml"]) == 0


@pytest.mark.parametrize("server", ["s3"], indirect=True)
def test_an_s3_remote_that_does_not_let_us_in_is_one_block(project, monkeypatch, capsys):
    settings(project.url, **project.settings | {"secret_access_key": "guess"})
    refused(capsys, "does not let us in", "access_key_id | secret_access_key")
    settings("s3://typo/remote", **project.settings)
    refused(capsys, "s3://typo/remote does not let us in", "FileNotFoundError", "a bucket that exists")
    settings(project.url, **project.settings | {"endpointurl": f"http://127.0.0.1:{servers.free_port()}"})
    refused(capsys, "does not let us in", "endpointurl")
    with servers.silent() as port, monkeypatch.context() as patched:
        patched.setattr(dvc, "_SECONDS", 2)
        settings(project.url, **project.settings | {"endpointurl": f"http://127.0.0.1:{port}"})
        refused(capsys, "does not let us in", "no answer in time", "endpointurl")
    settings(project.url, **project.settings)
    assert main(["push", "mine.yaml"]) == 0
