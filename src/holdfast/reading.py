"""One YAML reader: a key written twice is refused, 1e-3 is a number, every mistake is one block."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import StudyError


class _UniqueLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice and reads 1e-3 as a number."""


def _unique_mapping(loader: _UniqueLoader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is written twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_UniqueLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_yaml(path: Path) -> Any:
    """Parse one YAML file.

    Raises:
        StudyError: missing, not UTF-8, not YAML, a key twice, or not a mapping.
    """
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.yaml") if p.stem != "chosen")
        near = difflib.get_close_matches(path.stem, there, n=1)
        raise StudyError(
            f"There is no study file {path}.",
            found=", ".join(there) or "no *.yaml there",
            expected="config/<study>.yaml",
            do=f"did you mean '{near[0]}'?" if near else "snakemake --config study=<name>",
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_UniqueLoader)
    except UnicodeDecodeError as error:
        raise StudyError(
            f"{path} is not UTF-8 text.", found=str(error), expected="UTF-8", do="save it as UTF-8"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise StudyError(
            f"{path} is not valid YAML.",
            found=f"{getattr(error, 'problem', None) or error}" + (f" (line {mark.line + 1})" if mark else ""),
            expected="a mapping of keys to values",
            do="correct that line",
        ) from None
    if not isinstance(data, dict):
        raise StudyError(
            f"{path} is not a study.",
            found=type(data).__name__,
            expected="a mapping of keys",
            do="see config/demo.yaml",
        )
    return data
