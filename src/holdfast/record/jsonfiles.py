"""Small JSON files: equal values are equal bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.record import files


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON through a temp file; keys sorted, so equal values are equal bytes."""
    files.write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it cannot be read. ValueError: it is not JSON.
    """
    return json.loads(Path(path).read_text(encoding="utf-8"))
