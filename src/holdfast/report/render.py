"""A template, its style and its scripts as one file that fetches nothing and runs nothing but what we wrote."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from holdfast.record import files

TEMPLATES = Path(__file__).parent / "templates"


def write(path: Path, template: str, scripts: tuple[str, ...], **values: Any) -> None:
    """Render a template of the folder with its `style` and `scripts` in place, under a content security policy that
    names these scripts by their digests: an answer that contains a script is text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    texts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in scripts]
    page = environment.get_template(template).render(
        policy=policy(texts), style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in texts], **values,
    )  # fmt: skip
    files.write_text(path, page)


def policy(scripts: list[str]) -> str:
    """Nothing is fetched; these scripts run and no other; pictures are those in the page."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    named = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {named}"
