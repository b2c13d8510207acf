"""Where lies what Bianchi et al. (2023) published beside SafeInstr, and under which licence?"""

from __future__ import annotations

LICENCE = "CC-BY-NC-4.0 (Bianchi et al. 2023, vinid/safety-tuned-llamas)"
_ADDRESS = "https://raw.githubusercontent.com/vinid/safety-tuned-llamas/36a4b8d5c2177ed165bf61f59b590161394f7f12/data"


def where(kind: str, name: str) -> tuple[str, str]:
    """(place, address) of a file of theirs for `training` or `evaluation`."""
    return f"safety-tuned-llamas/{name}", f"{_ADDRESS}/{kind}/{name}"
