"""Which objects is a pushed study made of, which of them does a place lack, and how do they get there?

DVC takes the list of a folder as proof that all it names is there, and what exists as right. So nothing is left to
that here: every object is asked for by name and size, and with `verify` read and hashed. What a remote lacks or holds
wrong is sent again, together with the lists that name it, which are deleted first and sent last: a push that is killed
at any moment leaves a remote that says itself what it lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from holdfast.engines import dvc
from holdfast.errors import ArtifactError
from holdfast.record import files

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pushed:
    """What dvc.lock says of a study."""

    files: dict[str, tuple[str, str]] = field(default_factory=dict)  # path -> (family, md5)
    objects: dict[str, str] = field(default_factory=dict)  # md5 -> the path that it is of
    folders: dict[str, frozenset[str]] = field(default_factory=dict)  # md5 of a list -> what it names
    unread: dict[str, str] = field(default_factory=dict)  # md5 of a list that no place has whole -> its folder

    def paths(self, md5s: Collection[str]) -> str:
        """Where some objects belong, in a few words."""
        named = sorted(self.objects[md5] for md5 in md5s)
        return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def pushed(lock: Path, places: Sequence[dvc.Store | None], families: Collection[str] = ()) -> Pushed:
    """What a dvc.lock says was pushed, or only `families` of it; lists of folders come from the first of `places`."""
    found = Pushed()
    for out in dvc.locked(lock):
        if families and out.stage not in families:
            continue
        found.objects[out.md5] = out.path
        if not out.md5.endswith(dvc.FOLDER):
            found.files[out.path] = (out.stage, out.md5)
            continue
        entries = dvc.listing(places, out.md5)
        if entries is None:
            found.unread[out.md5] = out.path
            continue
        found.folders[out.md5] = frozenset(item["md5"] for item in entries)
        for item in entries:
            path = str(PurePosixPath(out.path) / item["relpath"])
            found.files[path] = (out.stage, item["md5"])
            found.objects[item["md5"]] = path
    return found


def damaged(known: Pushed, store: dvc.Store) -> Iterator[tuple[str, str, str]]:
    """(what, where, absent | other) of every object the remote lacks or holds with other bytes; all are read."""
    states = store.states(known.objects, "checking")
    for md5, what in sorted(known.objects.items(), key=lambda item: item[1]):
        if states[md5] != "ok":
            yield what, store.path(md5), states[md5]


def send(known: Pushed, cache: dvc.Store, store: dvc.Store, *, verify: bool, say: Say, again: str) -> None:
    """Bring the remote all objects that it lacks or has cut short; with `verify` those with other bytes too.

    Args:
        known: of families that were just committed, so that the cache has them.
        verify: read and hash all that the remote has, and what was sent when it is there.
        say: told before anything goes over the wire what will.
        again: the command, for the block of a broken cache.

    Raises:
        ArtifactError: the cache has other bytes, too little room, or the remote fails; nothing that is right was
            deleted, and the next push goes on.
    """
    here, there = cache.sizes(known.objects), store.sizes(known.objects)
    lacking = {md5 for md5 in known.objects if md5 not in there or there[md5] != here.get(md5)}
    lacking |= _wrong(store, _read(there.keys() - lacking, verify), "checking the remote")
    lacking |= {md5 for md5, inside in known.folders.items() if inside & lacking}
    wrong = sorted(_wrong(cache, lacking, "checking the cache"))
    if wrong:
        raise ArtifactError(
            f"{known.paths(wrong)} is damaged in DVC's cache.", found="other bytes than recorded",
            expected="what was committed", do=f"rm -f {' '.join(map(cache.path, wrong[:3]))}; {again}",
        )  # fmt: skip
    _announce(say, f"to {store.address}", {md5: here[md5] for md5 in lacking}, known, store)
    store.remove(lacking & there.keys())
    store.take(cache, lacking, verify=False)
    wrong = sorted(_wrong(store, lacking, "checking what was sent")) if verify else []
    if wrong:
        raise ArtifactError(
            f"{store.address} does not keep what it is given.", found=f"other bytes of {known.paths(wrong)}",
            expected="the bytes that were sent", do="another remote: dvc remote modify NAME url WHERE",
        )  # fmt: skip


def fetch(known: Pushed, cache: dvc.Store, store: dvc.Store, *, verify: bool, say: Say, heal: str) -> None:
    """Bring DVC's cache here all objects that it lacks; what arrives with other bytes than its name says is not kept.

    Args:
        known: what is wanted.
        verify: read and hash what the cache already has too, and fetch it again where it is wrong.
        say: told before anything goes over the wire what will.
        heal: the command that repairs the remote, for the block of one that is damaged.

    Raises:
        ArtifactError: the remote lacks an object or holds other bytes, there is too little room, or it fails; what came
            whole stays in the cache, and the next pull goes on.
    """
    here = cache.sizes(known.objects).keys()
    wrong = _wrong(cache, _read(here, verify), "checking the cache")
    lacking = {md5 for md5 in known.objects if md5 not in here or md5 in wrong}
    there = store.sizes(lacking)
    absent = [known.unread[md5] for md5 in known.unread] or [known.objects[md5] for md5 in lacking - there.keys()]
    if absent:
        raise _broken(store, f"{len(absent)} files of the study are not there", sorted(absent)[0], heal)
    _announce(say, f"from {store.address}", there, known, cache)
    cache.remove(wrong)
    cache.take(store, lacking, verify=True)
    wrong = lacking - cache.sizes(lacking).keys()
    if wrong:
        raise _broken(store, f"other bytes than recorded in {len(wrong)} files", known.paths(wrong), heal)


def _read(md5s: Collection[str], verify: bool) -> list[str]:
    """What is read to be sure: everything, or lists of folders alone, which are small and on which all else hangs."""
    return [md5 for md5 in md5s if verify or md5.endswith(dvc.FOLDER)]


def _wrong(store: dvc.Store, md5s: Collection[str], doing: str) -> set[str]:
    return {md5 for md5, state in store.states(md5s, doing).items() if state != "ok"}


def _announce(say: Say, way: str, sizes: dict[str, int], known: Pushed, target: dvc.Store) -> None:
    """Say what goes over the wire, where there is room for it."""
    count, total, room = len(known.objects), sum(sizes.values()), target.room()
    if room is not None and room < total:
        raise ArtifactError(
            f"There is too little room for {len(sizes)} files in {target.address}.", found=f"{files.shown(room)} free",
            expected=f"{files.shown(total)}", do="free some space, or name fewer families",
        )  # fmt: skip
    say(f"{len(sizes)} of {count} files ({files.shown(total)}) go {way}" + ("" if sizes else ": all are there"))


def _broken(store: dvc.Store, found: str, what: str, heal: str) -> ArtifactError:
    return ArtifactError(
        f"{what} cannot be fetched from {store.address}.", found=found, expected="the files as they were pushed",
        do=f"{heal}, where the study is whole; then the same command again",
    )  # fmt: skip
