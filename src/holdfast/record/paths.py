"""Where is what a user's path names? A path may not be one at all: no such user, too long, a circle of links."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.errors import ArtifactError, said


def home(value: str | Path) -> Path:
    """The path with `~` as the user's home; as it is where it begins with a name that nobody here has."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        return Path(value)


def cache() -> Path:
    """Where lies what can be made again from a user's files, for all studies: `HOLDFAST_CACHE`, or the user's cache."""
    own = os.environ.get("HOLDFAST_CACHE")
    return home(own) if own else home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "holdfast"


def cached(folder: Path) -> Path:
    """A folder in the cache, made where it is not there.

    Raises:
        ArtifactError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} is read-only")
    except OSError as error:
        raise ArtifactError(
            f"The cache {cache()} cannot be written.", found=said(error), expected="a folder that you may write to",
            do="set HOLDFAST_CACHE to one, with room for the models in it",
        ) from None  # fmt: skip
    return folder


def there(path: Path) -> bool:
    """Whether a file or folder is there; a name that is too long, or in a circle of links, is not."""
    try:
        return path.exists()
    except (OSError, RuntimeError):
        return False
