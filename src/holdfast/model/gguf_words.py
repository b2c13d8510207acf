"""How the tokenizer in a GGUF file splits a text before it merges: as the original does, also where transformers would
split like GPT-2 whatever the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What files call the ways to split, as llama.cpp reads them. Those that transformers knows it splits by.
_GPT2 = frozenset({"gpt-2", "phi-2", "mpt", "olmo", "jais"})
_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r"})  # every digit alone, then as GPT-2
# A piece that is a token is that token, also where no merge leads to it.
_WHOLE = frozenset({"llama3", "llama-v3", "llama-bpe", "tekken"})
_COMPOSED = frozenset({"qwen2"})  # letters and their accents are put together (NFC) first


def known() -> frozenset[str]:
    """Every way to split a text that is rebuilt as it was."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    return _GPT2 | _DIGITS | frozenset(GGUF_PRE_TOKENIZER_SPLITS)


def split_as(tokenizer: PreTrainedTokenizerBase, way: str | None) -> None:
    """Have a byte-level tokenizer that transformers made of a GGUF file split texts the way the file names."""
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if way in _DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if way in _WHOLE:
        backend.model.ignore_merges = True
    if way in _COMPOSED:
        backend.normalizer = normalizers.NFC()


def spaced(tokenizer: PreTrainedTokenizerBase, prefixed: bool) -> None:
    """Have a SentencePiece tokenizer that transformers made of a GGUF file put a space before every text (`prefixed`),
    also after a special token and before another space, as llama.cpp and the tokenizers of Llama 2 do; or before none.

    transformers puts one before the first piece alone, and none where a space is.
    """
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):  # Phi-3's does so already, Gemma's has its own
        return
    before = [normalizers.Prepend("\u2581")] if prefixed else []
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "\u2581")])
    backend.pre_tokenizer = None
