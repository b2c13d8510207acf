"""The one place that knows DVC's insides: what dvc.lock says, how objects are named, kept and sent, how it fails."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from holdfast.engines import versions
from holdfast.errors import ArtifactError, EngineError, said
from holdfast.record import files

SCHEMA, HASH = "2.0", "md5"  # of a dvc.lock that is understood here
FOLDER = ".dir"  # ends the name of an object that lists a folder
_PIECE = 1 << 22
_SECONDS = 30  # in which a remote must have answered
_EXTRAS = ("ssh", "s3")  # kinds of remotes that have one
_WAYS = {
    "ssh": "log in there by hand and see that its disk has room and the folder may be written; dvc remote modify "
           "--local {name} user | port | keyfile VALUE",
    "s3": "dvc remote modify --local {name} access_key_id | secret_access_key | endpointurl | region VALUE, or dvc "
          "remote modify {name} url s3://BUCKET/FOLDER with a bucket that exists",
    "": "see that there is room and the folder may be written, or dvc remote modify {name} url WHERE",
}  # fmt: skip


@dataclass(frozen=True)
class Output:
    """One line of dvc.lock: a file or folder that a stage made."""

    stage: str
    path: str
    md5: str


def run(*arguments: str) -> None:
    """Call dvc.

    Raises:
        ArtifactError: it failed; with the line in which it said why.
    """
    command = [sys.executable, "-m", "dvc", *arguments]  # not --quiet, which hides why it fails
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = [line.strip() for line in re.split(r"[\r\n]+", f"{done.stdout}\n{done.stderr}") if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines or [f"exit code {done.returncode}"]
        raise ArtifactError(
            f"dvc {arguments[0]} did not finish.", found=said[-1].removeprefix("ERROR: ")[:240],
            expected="a DVC project with a reachable remote that has these files",
            do=f"dvc {' '.join(arguments)}; dvc remote list; dvc remote modify NAME url WHERE",
        )  # fmt: skip


def locked(lock: Path) -> list[Output]:
    """What a dvc.lock says was made; nothing where there is none.

    Raises:
        EngineError: it has another form than the tested versions write.
    """
    if not lock.exists():
        return []
    try:
        content = yaml.safe_load(lock.read_text(encoding="utf-8"))
        form = str(content["schema"])
        outs = [(name, out) for name, stage in content["stages"].items() for out in stage.get("outs", [])]
        kinds = sorted({out["hash"] for _, out in outs})
        found = [Output(name, out["path"], out["md5"]) for name, out in outs]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise _unknown(lock, f"no {error}" if isinstance(error, KeyError) else str(error)[:120]) from None
    if form != SCHEMA or kinds not in ([], [HASH]):
        raise _unknown(lock, f"schema {form}, hashes {' '.join(kinds)}")
    return found


def _unknown(lock: Path, found: str) -> EngineError:
    return versions.refuse("dvc", f"{lock} is", found=found, expected=f"schema {SCHEMA}, hashes {HASH}")


@dataclass(frozen=True)
class Store:
    """A place that keeps objects under their md5: DVC's cache here or its default remote."""

    kept: Any  # of dvc_data
    name: str = "cache"  # of the remote
    address: str = "DVC's cache"  # without a password

    def path(self, md5: str) -> str:
        """Where an object is or would be."""
        return str(self.kept.oid_to_path(md5))

    def sizes(self, md5s: Iterable[str]) -> dict[str, int]:
        """md5 -> bytes, of those objects that are there.

        Raises:
            ArtifactError: the place does not say.
        """
        names = sorted(md5s)
        self.kept.fs.fs.invalidate_cache()  # of listings, where files came or went since
        found = self.kept.fs.info([self.path(md5) for md5 in names], return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException) and not isinstance(error, FileNotFoundError):
                raise self.refused(f"{self.address} does not say what it has.", error)
        return {md5: item["size"] for md5, item in zip(names, found, strict=True) if isinstance(item, dict)}

    def state(self, md5: str) -> str:
        """`ok`, `absent` or `other` (bytes than the name says); all of the object is read, since DVC trusts that one
        that exists is right.

        Raises:
            ArtifactError: it cannot be read, which says nothing of its bytes.
        """
        digest = hashlib.md5()
        try:
            with self.kept.fs.open(self.path(md5), "rb") as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
        except FileNotFoundError:
            return "absent"
        except Exception as error:  # each kind of remote has errors of its own
            raise self.refused(f"{self.path(md5)} cannot be read.", error) from None
        return "ok" if digest.hexdigest() == md5.removesuffix(FOLDER) else "other"

    def states(self, md5s: Collection[str], doing: str = "") -> dict[str, str]:
        """md5 -> `state`, several at a time and with a bar in a terminal; `doing` says at what."""
        from dvc.fs.callbacks import TqdmCallback
        from dvc_objects.executors import ThreadPoolExecutor

        with (
            ThreadPoolExecutor(4, cancel_on_error=True) as pool,
            TqdmCallback(desc=doing, unit="file", size=len(md5s)) as bar,
        ):
            return dict(zip(md5s, bar.wrap(pool.map(self.state, md5s)), strict=True))

    def remove(self, md5s: Iterable[str]) -> None:
        """Delete objects, lists of folders first: while a list is there DVC takes all that it names to be there too.

        Raises:
            ArtifactError: the place does not let them go.
        """
        for md5 in sorted(md5s, key=lambda md5: not md5.endswith(FOLDER)):
            try:
                self.kept.fs.remove(self.path(md5))
            except Exception as error:  # each kind of remote has errors of its own
                raise self.refused(f"{self.path(md5)} cannot be deleted.", error) from None

    def take(self, other: Store, md5s: Iterable[str], *, verify: bool) -> None:
        """Copy objects from another place, lists of folders last; each appears whole or not at all.

        With `verify` they are hashed when they are here, and those with other bytes than their name says are not kept.

        Raises:
            ArtifactError: not all of them came; what came stays, so that the next time goes on there.
        """
        from dvc.fs.callbacks import TqdmCallback

        failed: dict[str, BaseException] = {}
        files, sent = sorted(md5s), 0
        lists = [md5 for md5 in files if md5.endswith(FOLDER)]
        for some in ([md5 for md5 in files if not md5.endswith(FOLDER)], lists):
            if failed or not some:
                continue
            with TqdmCallback(desc=f"to {self.address}", unit="file", size=len(some)) as bar:
                try:
                    self.kept.add(
                        [other.path(md5) for md5 in some], other.kept.fs, some, verify=verify, check_exists=False,
                        on_error=failed.__setitem__, callback=bar, batch_size=self.kept.fs.jobs,
                    )  # fmt: skip
                except Exception as error:  # each kind of remote has errors of its own
                    failed.setdefault(some[0], error)
            sent += len(some) - len(failed)
        if failed:
            far = other if self.name == "cache" else self
            what = f"{len(files) - sent} of {len(files)} files did not get from {other.address} to {self.address}."
            raise far.refused(what, next(iter(failed.values())))

    def room(self) -> int | None:
        """Free bytes where a folder is or will be; None for a place that does not say."""
        if self.kept.fs.protocol != "local":
            return None
        folder = Path(self.kept.path)
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def refused(self, what: str, error: BaseException) -> ArtifactError:
        """The error for what the place does not do."""
        return _refused(self.name, self.kept.fs.protocol, what, error)


def _refused(name: str, kind: str, what: str, error: BaseException) -> ArtifactError:
    full = files.full(error) is not None  # here, or in the folder that is the remote
    late = isinstance(error, TimeoutError)  # which says nothing
    return ArtifactError(
        what, found="no answer in time" if late else f"{type(error).__name__}: {said(error)}",
        expected="room for all of them" if full else "a remote that answers and may be used",
        do="free some space; the same command again goes on" if full else _WAYS.get(kind, _WAYS[""]).format(name=name),
    )  # fmt: skip


def stores() -> tuple[Store | None, Store | None]:
    """(DVC's cache here, the default remote, which has answered); None for what there is not.

    Raises:
        EngineError: DVC is of a version whose objects are not known here. ArtifactError: the remote does not answer,
            does not let us in or needs a package that is not here.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    versions.check("dvc", "The way DVC keeps objects is")
    try:
        repository = Repo(".")
        name = repository.config["core"].get("remote")
        return Store(repository.cache.local), _remote(repository, name) if name else None
    except NotDvcRepoError:  # nothing was ever pushed
        return None, None
    except DvcException as error:
        raise ArtifactError(
            "DVC's settings cannot be used.", found=said(error), expected="a remote that `dvc remote list` shows",
            do="dvc remote add --default NAME WHERE, or edit .dvc/config and .dvc/config.local",
        ) from None  # fmt: skip


def both() -> tuple[Store, Store]:
    """As `stores`, where neither may be missing.

    Raises:
        ArtifactError: this is no DVC project, or no remote is its default.
    """
    cache, remote = stores()
    if cache is None or remote is None:
        raise ArtifactError(
            "There is no DVC remote.", found="no default remote" if cache else "no DVC project",
            expected="a folder, ssh://USER@HOST/FOLDER or s3://BUCKET/FOLDER to keep tensors in",
            do=("" if cache else "dvc init; ") + "dvc remote add --default NAME WHERE",
        )  # fmt: skip
    return cache, remote


def _remote(repository: Any, name: str) -> Store:
    from dvc.exceptions import DvcException
    from dvc_objects.fs.errors import RemoteMissingDepsError

    settings = repository.config["remote"].get(name.lower(), {})
    url = str(settings.get("url", name))
    address, kind = re.sub(r"//[^/@]*@", "//", url), url.split("://")[0]
    if kind == "ssh":
        settings.setdefault("timeout", _SECONDS)
    try:
        kept = repository.cloud.get_remote_odb()
        if kept.fs.protocol == "s3":  # else s3fs makes a bucket that is not there
            kept.fs.fs.call_s3("head_bucket", Bucket=kept.path.split("/")[0], timeout=_SECONDS)
        else:
            kept.fs.exists(kept.path)
    except (ImportError, RemoteMissingDepsError):
        own = kind in _EXTRAS
        raise ArtifactError(
            f"{address} needs a package that is not here.", found=f"no dvc-{kind}",
            expected=f"the extra `{kind}`" if own else f"DVC's support of {kind}",
            do=f"pip install -c constraints.txt -e '.[{kind}]'" if own else f"pip install dvc-{kind}",
        ) from None  # fmt: skip
    except DvcException:
        raise
    except Exception as error:  # each kind of remote has errors of its own
        raise _refused(name, kind, f"{address} does not let us in.", error) from None
    return Store(kept, name, address)


def listing(places: Iterable[Store | None], md5: str) -> list[dict[str, str]] | None:
    """[{relpath, md5}] of the object that lists a folder, from the first store that has it whole; None where none
    has."""
    for store in places:
        if store is None or store.state(md5) != "ok":
            continue
        entries: list[dict[str, str]] = json.loads(store.kept.fs.cat_file(store.path(md5)))
        if not all({"relpath", "md5"} <= entry.keys() for entry in entries):
            raise versions.refuse("dvc", f"The list of a folder ({md5}) is", found=str(entries)[:80],
                                  expected="entries with relpath and md5")  # fmt: skip
        return entries
    return None
