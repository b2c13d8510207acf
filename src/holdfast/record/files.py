"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.errors import DiskError, said
from holdfast.record import paths

# As libraries say it that raise errors of their own: safetensors, SQLite, torch.
_FULL = (
    "No space left on device",
    "os error 28",
    "disk is full",
    "Disk quota exceeded",
    "PytorchStreamWriter failed writing",
)
_NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextlib.contextmanager
def whole(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed onto it when the body ends without error.

    A reader sees the old file or the new one, never half of either, also when the writer is killed.
    """
    path = Path(path)
    if not path.name:
        raise DiskError(f"A file of no name cannot be written: {str(path)!r}.", found="no name", expected="a file",
                        do="name one")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # such as a name that is too long, which says so already
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text whole."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copy a file whole."""
    with whole(target) as temporary:
        shutil.copyfile(source, temporary)


def full(error: BaseException | None) -> BaseException | None:
    """The error that says of a disk that it is full, if one is behind this."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(x in str(error) for x in _FULL):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def no_room(error: BaseException | None) -> DiskError | None:
    """The block of a disk that is full, where that is behind an error."""
    if (found := full(error)) is None:
        return None
    file, free = getattr(found, "filename", None), shutil.disk_usage(Path.cwd()).free
    return DiskError(
        "There is no room on the disk.",
        found=f"{said(found)}{f', writing {file}' if file else ''}; {shown(free)} are free in {Path.cwd()}",
        expected="room for what is written (holdfast plan STUDY says how much a study needs)",
        do="make room: what is finished is kept, and the same command goes on",
    )  # fmt: skip


def no_place(error: BaseException, given: Sequence[str]) -> DiskError | None:
    """The block of a file or folder that may not be read or written, or, of what was `given` on the command line, has a
    file where a folder is meant; anywhere else that is no mistake of the user's."""
    if not isinstance(error, OSError) or not error.filename:
        return None
    place = str(Path(str(error.filename).removesuffix(".tmp")))  # what is written beside it first
    words = [str(paths.home(word)) for g in given if (word := g.split("=", 1)[-1])]
    named = any(x.startswith(place) or place.startswith(x) for x in words)
    # Where folders are made as they are missing, one that cannot be is in a place like /proc.
    made = any(f"{x}/".startswith(f"{place}/") for x in words)
    unmade = made and error.errno == errno.ENOENT and Path(place).parent.is_dir()
    wrong = (named and error.errno in _NO_FOLDER) or unmade
    if error.errno not in _NO_RIGHT and not wrong:
        return None
    return DiskError(
        f"{place} cannot be read or written.", found=said(error),
        expected="a place of yours, below folders", do="name another, or give yourself the right to it",
    )  # fmt: skip


def shown(count: float) -> str:
    """A number of bytes for people, with three digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
