"""The tiny Llama of the fictional world and its tokenizer, as ordinary Hugging Face objects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from holdfast.model import chat

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the chat template of `model.chat`.

    `texts` are rendered conversations or plain documents; the result is a
    `PreTrainedTokenizerFast` with bos, eos (= end of turn) and pad tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(chat.SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        bos_token=chat.BOS,
        eos_token=chat.END,
        pad_token=chat.PAD,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=[chat.USER, chat.ASSISTANT],
    )
    tokenizer.chat_template = chat.TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerBase, *, hidden_size: int, intermediate_size: int, layers: int, heads: int,
              kv_heads: int, max_positions: int, seed: int) -> LlamaForCausalLM:  # fmt: skip
    """A fresh `LlamaForCausalLM` in float32; the seed fixes every weight."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=max_positions,
            tie_word_embeddings=True,
            initializer_range=0.03,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return model.float()  # type: ignore[no-any-return, no-untyped-call]
