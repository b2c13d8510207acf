"""A model folder looked over before anything runs: from its JSON files and the headers of its weights.

The Snakefile asks for it at every start of a study whose base is a folder; what needs torch, once a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from holdfast.errors import ArtifactError, ChatTemplateError, said
from holdfast.model import template, weights
from holdfast.model.once import once
from holdfast.record import paths

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Of a configuration, what the same tensors compute with. What is not here (limits, types, the last digit of a norm)
# differs between models of one base that are rightly compared.
_COMPUTES = frozenset({
    "num_attention_heads", "num_key_value_heads", "n_head", "num_heads", "head_dim", "hidden_act", "hidden_activation",
    "activation_function", "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_pct",
    "attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar", "logit_scale", "logits_scaling",
    "attention_multiplier", "embedding_multiplier", "residual_multiplier", "use_parallel_residual", "parallel_attn",
    "num_experts_per_tok", "norm_topk_prob", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "alibi",
})  # fmt: skip
_SHARED = 0.99  # of the aligned model's tokens must be known to any model that is held against it


def check(folder: Path | str, *, chats: bool = True) -> None:
    """Refuse a folder that could not be loaded, trained or asked; one that `chats` needs a template.

    Raises:
        ArtifactError: no configuration, no tokenizer, weights missing, damaged or of another vocabulary.
        ChatTemplateError: the tokenizer cannot render a conversation or end one.
    """
    folder = paths.home(folder)
    if not folder.is_dir():
        raise weights.wrong(folder, "is not a folder", found="a file" if folder.exists() else "nothing there")
    config = weights.read_json(folder, "config.json")
    tensors = weights.tensors(folder)
    weights.check(folder, config, tensors)
    inner = config.get("text_config")
    size = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    embeddings = next((tensors[k].shape for k in weights.EMBEDDINGS if k in tensors), None)
    if embeddings is not None and isinstance(size, int) and embeddings[0] != size:
        raise weights.wrong(
            folder, "has embeddings of another vocabulary than its config.json",
            found=f"{embeddings[0]} rows", expected=f"vocab_size {size}", do="use the config.json it was saved with",
        )  # fmt: skip
    _head(folder, embeddings is not None and not config.get("tie_word_embeddings", True), tensors)
    _tokenizer(folder, size, chats)
    known = [(p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.iterdir()) if p.is_file()]

    def look() -> None:
        whole = _understood(folder)
        weights.check(folder, whole, tensors)
        _head(folder, embeddings is not None and not whole.get("tie_word_embeddings"), tensors)
        weights.check_sample(folder, tensors)
        if chats:
            template.of_folder(folder, size)
        _skeleton(folder)

    once([str(folder.resolve()), known, chats], look)


def positions(folder: Path | str) -> int | None:
    """How many tokens the model of a folder can see; None where its config.json does not say."""
    config = weights.read_json(paths.home(folder), "config.json")
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        if isinstance(part.get("max_position_embeddings"), int):
            return int(part["max_position_embeddings"])
    return None


def refuse_other_words(
    tokenizer: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase, source: Path | str
) -> None:  # fmt: skip
    """Refuse a tokenizer that gives tokens of the aligned model's other ids; it may know a few more.

    Raises:
        ArtifactError: names one.
    """
    mine, theirs = tokenizer.get_vocab(), aligned.get_vocab()
    other = min((t for t, i in theirs.items() if mine.get(t, i) != i), key=theirs.__getitem__, default=None)
    if other is not None or len(mine.keys() & theirs.keys()) < _SHARED * len(theirs):
        raise ArtifactError(
            f"{source} has another tokenizer than the aligned model.",
            found=f"{other!r}: {mine[other]}" if other else f"{len(mine)} tokens, few of them the same",
            expected=f"{other!r}: {theirs[other]}" if other else f"the {len(theirs)} tokens of the aligned model",
            do="name models of one base only, with the tokenizer they were trained with",
        )  # fmt: skip


def own_head(folder: Path) -> bool:
    """Whether the output layer of a model is its own, and not its embeddings; some files hold such a layer twice."""
    return any(k in weights.tensors(folder) for k in weights.HEAD) and not _understood(folder).get(
        "tie_word_embeddings"
    )


def refuse_other_head(own: bool, aligned: bool, source: Path | str) -> None:
    """Refuse a model with an output layer of its `own` where the `aligned` one has none, or the other way round.

    Raises:
        ArtifactError: which of the two has one.
    """
    if own != aligned:
        what = {True: "an output layer of its own", False: "the embeddings as its output layer"}
        raise ArtifactError(
            f"{source} has another output layer than the aligned model.", found=what[own],
            expected=f"{what[aligned]}, as the aligned model has",
            do="save both with the same tie_word_embeddings, or name models of one base only",
        )  # fmt: skip


def refuse_other_configuration(
    source: Path | str, aligned: Path, configuration: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Refuse a model whose configuration makes something else of the same tensors: positions, heads, activations.

    Args:
        source: its folder, or, where its `configuration` is known, what it is called.

    Raises:
        ArtifactError: the first key that differs, with both values.
    """
    mine = _computing(_understood(Path(source)) if configuration is None else configuration)
    theirs = _computing(_understood(aligned))
    different = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
    if different:
        key = different[0]
        raise ArtifactError(
            f"{source} computes with its tensors otherwise than the aligned model: {key} differs.",
            found=f"{mine.get(key, 'absent')}" + (f"   ({', '.join(different)})" if different[1:] else ""),
            expected=f"{theirs.get(key, 'absent')}",
            do="name models of one base only; one with other positions or heads is another model",
        )  # fmt: skip


def _computing(config: Mapping[str, Any], path: str = "", *, within: bool = False) -> dict[str, Any]:
    """The leaves of a configuration below a key of `_COMPUTES`, by their dotted path."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        inside = within or key in _COMPUTES
        if isinstance(value, Mapping):
            found |= _computing(value, f"{path}{key}.", within=inside)
        elif inside:
            found[f"{path}{key}"] = value
    return found


def _head(folder: Path, own: bool, tensors: Mapping[str, weights.Tensor]) -> None:
    """Refuse a model with an output layer of its `own` that has none."""
    if own and not any(k in tensors for k in weights.HEAD):
        raise weights.wrong(
            folder, "says that its output layer is its own, but has none",
            found="no lm_head.weight", expected="lm_head.weight, or tie_word_embeddings: true",
            do="correct tie_word_embeddings in config.json",
        )  # fmt: skip


def _understood(folder: Path) -> dict[str, Any]:
    """The configuration as transformers reads it, defaults filled in.

    Raises:
        ArtifactError: a kind of model that it does not know without running code of the checkpoint, or no decoder.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        whole: dict[str, Any] = config.to_dict()
    except Exception as error:  # noqa: BLE001 - a wrong value raises whatever the reader of that key raises
        raise weights.wrong(
            folder, "has a config.json that transformers does not understand",
            found=said(error),
            expected="the configuration of a model that transformers knows by itself; no code of a checkpoint is run",
            do="use the config.json it was saved with, or another model",
        ) from None  # fmt: skip
    kinds = whole.get("architectures") or []
    if kinds and not any(str(k).endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for k in kinds):
        raise weights.wrong(
            folder, "is no language model that answers", found=", ".join(map(str, kinds)), expected="...ForCausalLM",
            do="name a decoder",
        )  # fmt: skip
    return whole


def _skeleton(folder: Path) -> None:
    """Refuse weights that are not those of the model which the configuration describes: every flag of it (biases,
    layers, heads) asks for tensors. Nothing is read but their names and shapes.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # which are told below, by name
        )
        model, found = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    except Exception as error:  # noqa: BLE001 - a wrong value raises whatever the reader of that key raises
        raise weights.wrong(
            folder, "has a config.json that no model of transformers can be built from", found=said(error),
            expected="the configuration of the model in the folder", do="use the config.json it was saved with",
        ) from None  # fmt: skip
    finally:
        logging.set_verbosity(level)
    refuse_gaps(type(model).__name__, found, folder)


def refuse_gaps(model: str, found: Mapping[str, Any], source: Path | str) -> None:
    """Refuse a model of which a tensor was not in the file and would stay random, or that leaves one of the file out.

    Args:
        model: its class; found: what transformers says of its loading.
    """
    kinds = {"missing": "missing_keys", "unexpected": "unexpected_keys", "of another size": "mismatched_keys"}
    wrong = {
        what: sorted(name for name in map(str, found.get(key) or ()) if not name.endswith(weights.COMPUTED))
        for what, key in kinds.items()
    }
    if any(wrong.values()):
        said = "; ".join(f"{what}: {', '.join(names[:3])}{' ...' * (len(names) > 3)} ({len(names)})"
                         for what, names in wrong.items() if names)  # fmt: skip
        raise ArtifactError(
            f"The weights in {source} are not those of its config.json.", found=said,
            expected=f"every tensor of {model} and no other",
            do="save the model again with save_pretrained (of the model itself, not of a wrapper around it)",
        )  # fmt: skip


def _tokenizer(folder: Path, size: int | None, chats: bool) -> None:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise weights.wrong(
            folder, "has no tokenizer", found=weights.listed(folder), expected="tokenizer.json or tokenizer.model"
        )
    config = weights.read_json(folder, "tokenizer_config.json")
    template = (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file()
    template = template or bool(config.get("chat_template"))
    end = config.get("eos_token")
    if not end and (folder / "special_tokens_map.json").is_file():
        end = weights.read_json(folder, "special_tokens_map.json").get("eos_token")
    if (chats and not template) or not end:
        raise ChatTemplateError(
            f"The tokenizer of {folder} cannot render a conversation.",
            found=f"chat template: {'yes' if template else 'no'}, end token: {'yes' if end else 'no'}",
            expected="a chat template and an end-of-text token",
            do="copy chat_template.jinja and tokenizer_config.json of the original model into the folder",
        )
    if (folder / "tokenizer.json").is_file() and isinstance(size, int):
        content = weights.read_json(folder, "tokenizer.json")
        vocabulary = (content.get("model") or {}).get("vocab") or {}
        ids = [t.get("id", 0) for t in content.get("added_tokens") or []]
        ids += vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        if ids and max(ids) >= size:
            raise weights.wrong(
                folder, "has a tokenizer that knows more tokens than the model",
                found=f"token id {max(ids)}", expected=f"ids below vocab_size {size}",
                do="use the tokenizer the model was saved with",
            )  # fmt: skip
