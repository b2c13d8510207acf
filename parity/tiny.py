"""The tiny models and tensors that both sides are run on, and ours asked with tensors instead of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from holdfast.merge.driver import Context, Weights

VOCABULARY = 64


def llama(seed: int = 0, dtype: torch.dtype = torch.float64) -> LlamaForCausalLM:
    """Two blocks, 32 wide, four heads, random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def moved(model: LlamaForCausalLM, by: float, seed: int) -> LlamaForCausalLM:
    """A copy whose weights lie a normal step of size `by` away."""
    other = llama(0, model.dtype)
    other.load_state_dict(model.state_dict())
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p += by * torch.randn(p.shape, generator=stream).to(p)
    return other


def batch(rows: int = 4, length: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tokens of which all but the first four are to be predicted."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (rows, length), generator=stream)
    labels = ids.clone()
    labels[:, :4] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A random tensor."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def far(a: Any, b: Any) -> float:
    """The largest difference of two tensors, as a share of the largest entry of the second; of two mappings the
    largest of all."""
    if isinstance(a, Mapping):
        return max(far(a[k], b[k]) for k in b)
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


class Stored:
    """Tensors by name, read as a checkpoint is."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = {k: v.detach() for k, v in tensors.items()}

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.tensors[name]


def context(models: Mapping[str, Mapping[str, torch.Tensor]], names: list[str], **others: Any) -> Context:
    """What a merge method looks at, of models that are tensors: role -> name -> tensor."""
    stored: dict[str, Any] = {role: Stored(tensors) for role, tensors in models.items()}

    def no_model(role: str) -> Any:
        raise AssertionError(role)

    return Context(names, lambda name: Weights(stored, name), no_model, **others)
