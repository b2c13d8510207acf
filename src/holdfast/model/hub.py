"""Where on this machine lie the files of a model that a study names: a folder, or a hub id fetched before or now."""

from __future__ import annotations

import json
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from holdfast.errors import ArtifactError, said
from holdfast.model import adapter, gguf, package, weights
from holdfast.record import paths

SECONDS = 10.0  # to answer whether a model is there
# What stands beside the weights of a model; `template.json` is what was found of its template here.
COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "chat_template*", "vocab.*", "merges.txt", "template.json",
)  # fmt: skip
# What is fetched of a hub model: no weights in other formats, and none twice; or an adapter.
_FILES = (*COMPANIONS, weights.WEIGHTS, weights.INDEX, "model-*.safetensors", adapter.CONFIG, adapter.WEIGHTS)


def known(source: str, revision: str | None = None) -> Path | None:
    """The folder of a source, where it is on this machine already: with weights, every shard of them. Of a GGUF file,
    a package's too, the folder it was opened into, if it was."""
    path = package.place(source, revision)
    if path is None:
        return None
    if paths.there(path) and gguf.named(path):
        return opened if (opened := gguf.folder(path)).joinpath(weights.WEIGHTS).is_file() else None
    if paths.there(path):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
        weights.tensors(folder)
    except (OSError, HFValidationError, ArtifactError):
        return None
    return folder


def reachable(source: str, revision: str | None = None) -> bool:
    """Whether a hub model is here, or the hub answers for it within seconds; a hub that has no such model, or does not
    let anybody have it, answers: the run will say so. What answers in its place, a proxy that lets nobody through or a
    page to log in, speaks no JSON."""
    if known(source, revision) is not None:
        return True
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(
            f"{constants.ENDPOINT}/api/models/{source}/revision/{revision or 'main'}", timeout=SECONDS
        ) as said:
            return isinstance(json.load(said), dict)
    except HTTPError as error:
        is_json = error.headers.get_content_type() == "application/json"
        return error.code < 500 and ("X-Error-Code" in error.headers or is_json)
    except (OSError, HTTPException, ValueError):
        return False


def configuration(source: str, revision: str | None = None) -> Path | None:
    """The config.json of a hub model, from here or from there; None where neither has it for us."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for here in (True, False):
        if here or reachable(source, revision):  # else it is tried again and again
            try:
                return Path(hf_hub_download(source, "config.json", revision=revision, local_files_only=here))
            except (OSError, HFValidationError, HfHubHTTPError):
                continue
    return None


def fetched(source: str, revision: str | None = None) -> Path:
    """The folder of a source, fetched from the hub where it is not on this machine.

    Raises:
        ArtifactError: neither a folder here nor a model there.
    """
    path = paths.home(source)
    if paths.there(path):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(_FILES)))
    except (OSError, HFValidationError, HfHubHTTPError) as error:
        raise ArtifactError(
            f"No model could be fetched as {source}.",
            found=said(error),
            expected="a folder in Hugging Face layout, or the id of a model on the hub and a connection to it",
            do="check the source in the study, and its revision",
        ) from None
