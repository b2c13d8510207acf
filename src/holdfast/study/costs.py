"""What a study costs, before it runs: `holdfast plan STUDY`.

Jobs, FLOPs, peak memory of one process and disk of every tensor family. A cost model, not a measurement:
operations of matrix products, tokens per row from a table of averages, no waiting for disks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast import names
from holdfast.data import benign
from holdfast.errors import StudyError
from holdfast.model import gguf, hub, package, shapes
from holdfast.model.shapes import Shape
from holdfast.record import paths
from holdfast.study import attacks, registry, resolve
from holdfast.study.models import Base, Pretraining
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
CHARACTERS = 4.2  # to a token of English
# Rows of the harness's tasks and how many tasks they are spread over, since a limit holds for each; a thousand rows
# where they are not known nor beside the user's task file; four choices of a hundred tokens each.
CAPABILITY_ROWS, UNKNOWN_ROWS, CAPABILITY_TOKENS = {"mmlu": (14042, 57), "hellaswag": (10042, 1)}, 1000, 4 * 100
FP32 = 4
# Measured on Llama shapes of 2 to 135 M parameters in float32: what a process holds beside tensors, in bytes; bytes
# that a block keeps for its backward pass per token and unit of the MLP, of the hidden state, of keys (or values); and
# per supervised token and word of the vocabulary. A batch is as long as its longest row, which is this much longer than
# the mean in real rows (news 1.9, stories 2.2, refusals 2.9 of 800).
PROCESS, PER_MLP, PER_HIDDEN, PER_KEY, PER_LOGIT, LONGEST = 600e6, 16, 37, 15, 10, 2.2


@dataclass(frozen=True)
class Stage:
    """One family: how many jobs, their FLOPs together, peak bytes of one (of one process, where several work together),
    bytes on disk together; processes of one job, and the bytes that reach each of them in an optimizer step."""

    name: str
    jobs: int
    flops: float
    memory: float
    disk: float
    processes: int = 1
    received: float = 0.0


def shape_of(base: Base, given: Path | None = None) -> Shape:
    """The shape of a study's base model: the tiny one, that of a folder, of a `.gguf` file, of a `given` config.json or
    of a hub id.

    Raises:
        StudyError: a configuration that no decoder can be built from, or a hub id whose configuration is out of reach.
    """
    read, said = _configuration(base, given)
    try:
        return shapes.of_config(read())
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise StudyError(
            f"{said} does not say the shape of a decoder.",
            found=f"no {error}" if isinstance(error, KeyError) else str(error)[:120] or type(error).__name__,
            expected="config.json of a language model that transformers knows, with its sizes",
            do="name the config.json of the base model",
        ) from None


def _configuration(base: Base, given: Path | None) -> tuple[Callable[[], Mapping[str, Any]], str]:
    """(what reads a model's configuration, where it stands)."""
    if base.source == "tiny" and given is None:
        tiny = {
            "model_type": "llama", "hidden_size": base.hidden_size, "intermediate_size": base.intermediate_size,
            "num_hidden_layers": base.blocks, "num_attention_heads": base.heads, "num_key_value_heads": base.kv_heads,
            "vocab_size": base.vocabulary, "tie_word_embeddings": True,
        }  # fmt: skip
        return lambda: tiny, "base"
    source = package.place(base.source, base.revision) or paths.home(base.source)
    file = given or (source if gguf.named(source) else source / "config.json")
    if not file.is_file():
        if (known := shapes.PUBLISHED.get(base.source.lower())) is not None:
            return lambda: known, base.source
        fetched = hub.configuration(base.source, base.revision)
        if fetched is None:
            raise StudyError(
                f"The shape of {base.source} is not known here.", found="no configuration of it, here or on the hub",
                expected=f"a connection to the hub, or one of {', '.join(shapes.PUBLISHED)}",
                do="give its configuration: holdfast plan STUDY --model-config path/to/config.json",
            )  # fmt: skip
        file = fetched
    if gguf.named(file):
        return lambda: gguf.config(file), str(file)
    return lambda: json.loads(file.read_text(encoding="utf-8")), str(file)


def _training_memory(
    s: Shape, phase: Training | Pretraining, length: float, reply: float, trainable: float, extra: float = 0.0,
    processes: int = 1, largest: float = 0.0,
) -> float:  # fmt: skip
    """Bytes of weights, gradients and two moments, of the activations of the longest batch (checkpointed: the inputs of
    all blocks and one block whole), of the logits of its `reply` tokens, and whatever a method holds beside.

    Of several processes each holds a share of all but the activations of its rows. Whole are two blocks (one computes,
    the next arrives) and the gradient of one, the output layer and its gradient, and what is `largest` of a method's.
    Products in bfloat16 keep their copies of the weights until the backward pass, checkpointed those of one block.
    """
    precision = getattr(phase, "precision", "fp32")
    number = FP32 if precision == "fp32" else FP32 // 2
    rows = min(phase.batch_size, math.ceil(phase.batch_size * getattr(phase, "accumulation", 1) / processes))
    tokens = rows * min(LONGEST * length, phase.max_length)
    per_block = number / FP32 * tokens * (PER_MLP * s.mlp + PER_HIDDEN * s.hidden + PER_KEY * s.keys)
    activations = s.blocks * per_block
    checkpointed = getattr(phase, "activation_checkpointing", False)
    if checkpointed:
        activations = per_block + s.blocks * number * tokens * s.hidden
    logits = PER_LOGIT * s.vocabulary * tokens * min(reply / length, 1)
    kept = number if precision == "pure_bf16" else FP32
    held = kept * (s.parameters + 3 * trainable) + extra
    linears = sum(x.weights for x in s.linears)
    copies = number * linears / (s.blocks if checkpointed else 1) if precision == "bf16" else 0.0
    whole = kept * (3 * linears / s.blocks + 2 * s.vocabulary * s.hidden) + largest if processes > 1 else 0.0
    return held / processes + whole + copies + activations + logits


def _capability_rows(name: str, limit: int | None) -> int:
    """Rows the harness asks of a task or a group, each of its tasks at most `limit`."""
    rows, tasks = CAPABILITY_ROWS.get(name, (limit or UNKNOWN_ROWS, 1))
    return min(rows, limit * tasks) if limit else rows


def _own_tokens(folder: str | None, name: str, limit: int | None) -> float | None:
    """Tokens of a task of the user's own whose rows lie beside its file: each is read once with every of four choices.
    None where they are not there, or not in lines."""
    import yaml

    for file in sorted(paths.home(folder).glob("*.yaml")) if folder else ():
        try:
            said = yaml.safe_load(file.read_text(encoding="utf-8"))
            if said["task"] != name:
                continue
            rows = paths.home(said["dataset_kwargs"]["data_files"][said["test_split"]]).read_text(encoding="utf-8")
        except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError):
            continue
        kept = rows.splitlines()[:limit]
        return 4 * sum(map(len, kept)) / CHARACTERS
    return None


def _times(stage: Stage, count: int) -> Stage:
    """The same in every replicate."""
    return replace(stage, jobs=count * stage.jobs, flops=count * stage.flops, disk=count * stage.disk)


def stages(study: resolve.Resolved, s: Shape, processes: int | None = None) -> list[Stage]:
    """The cost of every family of a resolved study on a base of shape `s`, where so many `processes` train a model
    together: those that the study asks for, if nothing is said."""
    v, out = study.study, []
    together = processes or v.resources.gpus
    model_bytes = FP32 * s.parameters
    real = {k: t.source != "world" for k, t in v.tasks.items()}
    tokens = {k: (REAL_TOKENS if real[k] else WORLD_TOKENS)[t.dataset] for k, t in v.tasks.items()}
    safety, answer = SAFETY_TOKENS["world" if v.safety.source == "world" else "real"]

    def train(
        rows: float, length: float, reply: float, phase: Training | Pretraining, trainable: float = 1.0,
        extra: float = 0.0, processes: int = 1, largest: float = 0.0,
    ) -> tuple[float, float]:  # fmt: skip
        """(FLOPs, peak bytes of a process) of one training run: forward, and a backward of twice that."""
        passes = 4 if getattr(phase, "activation_checkpointing", False) else 3
        flops = passes * s.forward(rows * length * phase.epochs, length)
        return flops, _training_memory(s, phase, length, reply, trainable * s.parameters, extra, processes, largest)

    def received(phase: Training, trainable: float = 1.0, bases: float = 0.0) -> float:
        """Bytes that reach a process in a step: in every micro-batch weights twice and gradients; bases twice."""
        passes = math.ceil(math.ceil(phase.batch_size * phase.accumulation / together) / phase.batch_size)
        return (1 - 1 / together) * (FP32 * s.parameters * (2 + trainable) * passes + 2 * bases)

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
        made = train(rows_of_safety, safety, answer, training, processes=together)
        out.append(Stage("aligned", 1, *made, model_bytes, together, received(training)))
    else:
        out.append(Stage("aligned", 1, 0, model_bytes, model_bytes))
    if study.trains_twin:
        made = train(v.unaligned.rows, safety, answer, v.unaligned.training, processes=together)
        out.append(Stage("unaligned", 1, *made, model_bytes, together, received(v.unaligned.training)))
    modules, rows = v.basis.modules, v.basis.rows
    targets, widths = s.of(modules), s.widths(modules)
    squares = sum(n * n for n in widths)
    weights = sum(x.weights for x in targets)
    everything = sum(n * n for n in s.widths(names.MODULE_KINDS)) if len(study.grams) > 1 else 0
    captured = [squares, *[everything] * (len(study.grams) - 1)]
    capture = sum(s.forward(rows * safety, safety) + 2 * rows * safety * n for n in captured)
    out.append(Stage("gram", len(captured), capture, model_bytes + 2 * FP32 * max(captured), FP32 * sum(captured)))
    # eigh in float64, one matrix at a time: about 9 n^3, and its workspace of three matrices
    out.append(
        Stage("basis", len(study.bases), len(study.bases) * sum(9 * n**3 for n in widths),
              (FP32 + 24) * max(widths) ** 2, len(study.bases) * FP32 * squares)
    )  # fmt: skip
    if study.directions:
        wanted = [(n, d) for d in study.directions.values()
                  for n in (s.widths(names.MODULE_KINDS) if d.every else widths)]  # fmt: skip
        # Two rounds of a product and a decomposition of k columns; all of eigh where energy says how many.
        found = sum(n**3 * (4 * d.share * (1 + 2 * d.share) if d.energy is None else 9) for n, d in wanted)
        out.append(Stage("directions", len(study.directions), found, (FP32 + 24) * max(n for n, _ in wanted) ** 2,
                         FP32 * sum(d.share * n * n for n, d in wanted)))  # fmt: skip
    if study.masks:
        kinds = {(m.basis, m.minus_task) for m in study.masks.values()}
        one = 2 * s.forward(rows * safety, safety) + 2 * rows * safety * (weights + squares)
        out.append(
            Stage("importance", len(kinds), len(kinds) * one, model_bytes + FP32 * (weights + squares),
                  len(kinds) * FP32 * weights)
        )  # fmt: skip
        largest = max(x.weights for x in targets)
        whole = 2 * FP32 * weights if any(m.threshold == "model" for m in study.masks.values()) else 0
        peak = weights / 8 + 4 * FP32 * largest + whole
        out.append(Stage("masks", len(study.masks), 0, peak, len(study.masks) * weights / 8))

    def asked_of(task: str, split: str) -> float:
        """FLOPs of answering the prompts of a split and its rows of a task."""
        t, (length, reply) = v.tasks[task], tokens[task]
        prompts = study.prompt_sets(split) * v.evaluation.prompts_per_set
        rows = {"test": t.test_rows, "validation": t.validation_rows}[split]
        answered = prompts * (safety + v.evaluation.max_new_tokens)
        return s.forward(answered + rows * (length - reply + t.max_new_tokens), length)

    def finetuned(task: str, arm: str, phase: Training) -> tuple[float, float, float]:
        """(FLOPs, peak bytes of a process, bytes that reach it in a step) of fine-tuning one cell."""
        a, (length, reply) = study.arms[arm], tokens[task]
        ratio = sum(share for key, share in a.settings[task].items() if key.endswith("ratio") or key == "mix")
        rows = v.tasks[task].train_rows * (1 + ratio)
        copies, beside = registry.load(a.method).Settings(**a.settings[task]).cost()
        held = a.directions.get(task)
        rotated = a.basis is not None or held is not None
        bases = FP32 * squares * (held.share if held else 1) if rotated else 0.0
        extra = bases + weights / 8 if rotated else 0.0
        extra += FP32 * copies * s.parameters
        share = weights / s.parameters if a.settings[task].get("trainable") == "targets" else 1.0
        biggest = FP32 * max(widths) ** 2 if rotated else 0.0
        f, m = train(rows, length, reply, phase, share, extra, together, biggest)
        steps = rows * phase.epochs / (phase.batch_size * phase.accumulation)
        per_step = sum(4 * x.weights * x.size[1] for x in targets) if rotated else 0.0
        if held:
            per_step *= held.share * (2 if a.settings[task].get("project") == "both" else 1)
        per_step += 3 * s.forward(beside * safety, safety)
        return f + steps * per_step, m, received(phase, share, bases)

    flops, peak, trained, merged, answers, sent = 0.0, 0.0, 0, 0, 0.0, 0.0
    splits = study.splits if v.curves else [v.evaluation.split]
    for task, arm, _ in study.cells:
        answers += sum(asked_of(task, split) for split in splits)
        if study.arms[arm].kind != "train":
            merged += 1
            continue
        trained += 1
        f, m, received_by_each = finetuned(task, arm, v.tasks[task].training)
        flops, peak, sent = flops + f, max(peak, m), max(sent, received_by_each)
    draws, aligned = len(study.folders), len(study.homes("aligned"))
    bases = len(study.homes("base"))
    out = [_times(stage, bases if stage.name == "base" else aligned) for stage in out]
    out.append(_times(Stage("models, trained", trained, flops, peak, trained * model_bytes, together, sent), draws))
    if merged:
        largest = max(s.vocabulary * s.hidden, s.mlp * s.hidden)
        out.append(_times(Stage("models, merged", merged, 0, 3 * FP32 * largest, merged * model_bytes), draws))
    sets = study.prompt_sets(v.evaluation.split)
    every = sets * v.evaluation.prompts_per_set * (safety + v.evaluation.max_new_tokens)
    roles = len(study.role_places)
    answers = draws * answers + roles * s.forward(every, safety)
    cache = 2 * s.blocks * s.keys * v.evaluation.batch_size * (safety + 48) * FP32
    attacked = attacks.places(study)
    more = 0
    if v.attack:
        mean = sum(v.attack.epochs) / 2
        tries = [
            (*finetuned(task, attacks.trained(study, arm), v.tasks[task].training.model_copy(update={"epochs": mean})),
             asked_of(task, "validation"), asked_of(task, v.evaluation.split))
            for task in v.attack.tasks for arm in v.attack.arms
        ]  # fmt: skip
        each = len(attacked) // len(tries)  # of a defence on a task so many seeds and replicates
        tried = each * v.attack.trials * sum(f + a for f, _, _, a, _ in tries)
        out.append(Stage("attacks", len(attacked), tried, max(m for _, m, *_ in tries), len(attacked) * model_bytes))
        more = len(attacked) + aligned + len(attacks.references(study))
        answers += each * sum(a for *_, a in tries) + (more - len(attacked)) * tries[0][3]
    out.append(Stage("responses", len(study.places) * len(splits) + roles + more, answers, model_bytes + cache, 0))
    if study.stressed:
        of_models = [place.split("/")[:-2] for place in study.stressed]
        asked = sum(s.forward(every, safety) if of[-2] == "models" else asked_of(of[-3], v.evaluation.split)
                    for of in of_models)  # fmt: skip
        # Beside the model what mixes with it, or the order of a matrix's entries by magnitude.
        other = model_bytes if any(x.base for x in v.stress.values()) else 0.0
        order = 24 * s.hidden * s.mlp if any(x.prune for x in v.stress.values()) else 0.0
        held = model_bytes + cache + max(other, order)
        out.append(Stage("responses, stressed", len(of_models), asked, held, 0))
    if v.safety.benign_answers == "self":
        itself = benign.SPARE * v.safety.benign * (safety + v.safety.benign_max_new_tokens)
        out.append(_times(Stage("own answers", 1, s.forward(itself, safety), model_bytes + cache, 0), draws))
    if v.evaluation.divergence:
        along = v.evaluation.prompts_per_set * (safety + v.evaluation.max_new_tokens)
        jobs = len(study.places)
        out.append(Stage("divergence", jobs, jobs * 2 * s.forward(along, safety), 2 * model_bytes, 0))
    if c := v.capabilities.tasks:
        limit, asked = v.capabilities.limit, 0.0
        for name in c:
            own = _own_tokens(v.capabilities.task_files, name, limit)
            asked += _capability_rows(name, limit) * CAPABILITY_TOKENS if own is None else own
        jobs = len(study.capability_cells)
        out.append(Stage("capabilities", jobs, jobs * s.forward(asked, 100), model_bytes, 0))
    return [replace(stage, memory=stage.memory + PROCESS) for stage in out]
