"""Study files as text: one YAML reader, and every mistake of a user as one block that names the key.

A key written twice is refused and 1e-3 is a number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from holdfast.errors import HoldfastError, StudyError, meant
from holdfast.record import paths
from holdfast.study import places
from holdfast.study.checked import Name, Strict
from holdfast.study.keys import Arm


class _UniqueLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice and reads numbers and truth values as YAML 1.2 does: 1e-3 is a
    number, `off` a word, 0100 a hundred, 1:30 no number."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[-1] not in ("bool", "int", "float")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _unique_mapping(loader: _UniqueLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # `<<`: what it brings may be written over
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float):
            raise yaml.constructor.ConstructorError(None, None, "a key is not a plain word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is written twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
):  # fmt: skip
    _UniqueLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_study(path: Path, root: Path | None = None) -> dict[str, Any]:
    """The mapping of a study file laid over the study it `extends`, if it names one.

    Mappings are merged key by key, `null` removes a key, anything else replaces what was there. A path is looked for
    beside the file that names it, then here, then in the project (`root`); a study that is extended beside, then in
    the project's config/.

    Raises:
        StudyError: as `read_yaml`, or the studies extend each other in a circle.
    """
    layers, seen = [read_yaml(path)], [_resolved(path)]
    while parent := layers[-1].pop("extends", None):
        if not isinstance(parent, str) or "\0" in parent:
            raise StudyError(
                f"{path}: extends must be the name of a study file.",
                found=repr(parent)[:80], expected="a file beside this one, for example demo.yaml", do="correct extends",
            )  # fmt: skip
        source = seen[-1].parent / paths.home(parent)
        if root and not paths.there(source) and paths.there(shipped := root / "config" / paths.home(parent)):
            source = shipped
        if _resolved(source) in seen:
            raise StudyError(
                f"{path}: the studies extend each other in a circle.",
                found=" -> ".join(p.name for p in [*seen, source]), expected="a study that extends no other at the end",
                do=f"remove extends from {source.name}",
            )  # fmt: skip
        seen.append(_resolved(source))
        layers.append(read_yaml(source))
    merged: dict[str, Any] = {}
    for layer, file in reversed(list(zip(layers, seen, strict=True))):
        folders = [file.parent, Path(), *([root] if root else [])]
        merged = _laid_over(merged, places.anchored(layer, folders))
    return merged


def _resolved(path: Path) -> Path:
    """The file behind links; a circle of links is no file, which reading it says."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in below.items() if above.get(k, ...) is not None}
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = _laid_over(out[key], value)
        elif value is not None or key not in below:
            out[key] = value
    return out


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse one YAML file.

    Raises:
        StudyError: missing, not UTF-8, not YAML, a key twice, or not a mapping.
    """
    if not paths.there(path) or not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.yaml") if not p.stem.startswith("chosen"))
        raise StudyError(
            f"There is no study file {path}.",
            found=", ".join(there) or "no *.yaml there",
            expected="config/<study>.yaml, or the path to a file",
            do=meant(path.stem, there, "correct it; a study that lies elsewhere is named by its path, with .yaml"),
        )
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_UniqueLoader)
    except OSError as error:
        raise StudyError(
            f"{path} cannot be read.", found=error.strerror or str(error), expected="a file that you may read",
            do="change its permissions",
        ) from None  # fmt: skip
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
            do="indent with blanks: YAML knows no tabs" if "'\\t'" in str(error) else "correct that line",
        ) from None
    if not isinstance(data, dict):
        raise StudyError(
            f"{path} is not a study.",
            found=type(data).__name__,
            expected="a mapping of keys",
            do="see config/demo.yaml",
        )
    return data


def unknown_key(path: Path, where: str, known: list[str]) -> NoReturn:
    """Refuse a key and name the nearest valid one.

    Raises:
        StudyError: always; `where` is the key with all that is above it.
    """
    key = where.rsplit(".", 1)[-1]
    raise StudyError(
        f"{path}: unknown key '{where}'.",
        found=key,
        expected=", ".join(sorted(known)),
        do=meant(key, known, "remove it"),
    )


def check_known(found: Iterable[str], known: Collection[str], path: Path, where: str, what: str, extend: str) -> None:
    """Every name in `found` is one of `known`, or StudyError: `where` names `what`."""
    for name in found:
        if name not in known:
            raise StudyError(
                f"{path}: {where} names {what}.", found=name, expected=" | ".join(known),
                do=meant(name, known, f"correct {where}, or extend {extend}"),
            )  # fmt: skip


def _model_at(location: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel]:
    """The pydantic model that holds the last key of an error's location."""
    for part in location[:-1]:
        if part in model.model_fields:
            annotation = model.model_fields[part].annotation
            for candidate in (annotation, *getattr(annotation, "__args__", ())):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    model = candidate
    return model


def from_pydantic(
    error: ValidationError, path: Path, prefix: str, model: type[BaseModel], arm: Arm | None = None
) -> HoldfastError:
    """The first of pydantic's complaints as one block that names the key.

    Args:
        prefix: where in the file `model` stands.
        arm: the arm whose method settings were validated, since its own keys are allowed there too.
    """
    first = error.errors(include_url=False)[0]
    location = tuple(part for part in first["loc"] if part != "[key]")
    where = ".".join(str(p) for p in (prefix, *location) if p != "")
    if first["type"] == "extra_forbidden":
        holder = _model_at(location, model)
        known = [field.alias or key for key, field in holder.model_fields.items()]
        if arm is not None:
            known += [k for k in Arm.model_fields]
        try:
            unknown_key(path, where, known)
        except StudyError as unknown:
            return unknown
    expected = first["msg"].removeprefix("Value error, ")
    expected = expected.replace("valid tuple", "list").replace("valid dictionary", "mapping of keys")
    expected = re.sub(r" or instance of \w+", "", expected)
    words = re.findall(r"'([^']+)'", expected) if first["type"] == "literal_error" else []
    correct = f"correct {where} (every field is described in config/README.md)"
    return StudyError(
        f"{path}: {repr(where) if where else 'the study'} is not valid.",
        found=_found(first),
        expected=expected[0].lower() + expected[1:],
        do=meant(str(first["input"]), words, correct),
    )


def _found(complaint: Any) -> str:
    """What pydantic complains of; of many keys that do not go together, which there are."""
    value = complaint["input"]
    if complaint["type"] == "missing":
        return "nothing"
    words = repr(value)
    return (f"keys {', '.join(map(str, value))}" if isinstance(value, dict) and len(words) > 120 else words)[:120]


def refuse_credentials(value: Any, path: Path, where: str = "") -> None:
    """An address with a name or password in it would end in logs, records and MLflow."""
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_credentials(item, path, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            refuse_credentials(item, path, where)
    elif isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]*://[^/?#]*@", value, re.IGNORECASE):
        raise StudyError(
            f"{path}: {where} has a name or password in its address, which would end in logs and records.",
            found=re.sub(r"//[^/?#]*@", "//...@", value)[:80], expected="an address without them",
            do="fetch the file and name the copy, or log in with the service's own tool",
        )  # fmt: skip


class _Choice(Strict):
    learning_rate: float | None = Field(None, gt=0, lt=1)
    settings: dict[str, Any] = {}


def read_chosen(path: Path) -> dict[str, Any]:
    """The settings a sweep chose: {arm: {task: {learning_rate, settings}}}.

    Raises:
        StudyError: as `read_yaml`, or not of that form.
    """
    chosen = read_yaml(path)
    try:
        TypeAdapter(dict[Name, dict[Name, _Choice]]).validate_python(chosen)
    except ValidationError as error:
        raise from_pydantic(error, path, "", _Choice) from None
    return chosen
