"""The one training loop: pretraining, safety fine-tuning and every arm go through `train`.

It is transformers' Trainer with our optimizer passed in, one collator, one log file and one
checkpoint folder. A killed run continues from its last checkpoint to the same bytes: the checkpoint
holds weights, optimizer, schedule, random state and position in the data.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from holdfast.errors import TrainingError
from holdfast.model import chat, folders, machine
from holdfast.stage import several
from holdfast.train import spread, steps
from holdfast.train.beside import Beside, predicted
from holdfast.train.progress import Log, last_checkpoint

# Parameters that do not decay by their name, as transformers' Trainer has it; those of a LayerNorm do not either.
EXEMPT = re.compile(r"bias|layernorm|rmsnorm|(^|\.|_)norm($|\.)", re.IGNORECASE)

BESIDE = "beside.safetensors"  # in a checkpoint: what a method has to remember

ExtraLoss = Callable[[torch.nn.Module, dict[str, Any]], torch.Tensor]  # (model, batch) -> what is added to the loss


@dataclass(frozen=True)
class TrainSettings:
    """What one training run needs to know. `learning_rate` is the peak of a `schedule` (cosine or linear,
    down to 0) after a linear warm-up over `warmup_fraction` of the optimizer steps. `weight_decay_on` says what
    decays: `matrices`, which leaves norms and biases out, or `all`. `by_length` sorts the rows of a step into its
    micro-batches; `alike` makes steps of rows of about one length, as transformers' `group_by_length` does."""

    learning_rate: float
    epochs: float
    batch_size: int
    accumulation: int = 1
    weight_decay: float = 0.0
    weight_decay_on: str = "matrices"
    warmup_fraction: float = 0.1
    schedule: str = "cosine"
    max_grad_norm: float = 1.0
    precision: str = "fp32"
    activation_checkpointing: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    by_length: bool = False
    alike: bool = False
    log_every_steps: int = 5
    checkpoint_seconds: float = 15.0  # at least; longer where writing one takes a while (`progress.Log`)


def weights_type(settings: TrainSettings) -> str:
    """The dtype a model is loaded in for this training: masters are float32 unless all of it is bfloat16."""
    return "bfloat16" if settings.precision == "pure_bf16" else "float32"


def settings_of(cfg: dict[str, Any]) -> TrainSettings:
    """TrainSettings of a phase's `training` dict; other keys are not for the loop."""
    return TrainSettings(**{k: v for k, v in cfg.items() if k in TrainSettings.__dataclass_fields__})


def groups(model: torch.nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The trainable parameters for an optimizer, grouped by whether they decay: transformers' Trainer exempts norms
    and biases. One group in the model's order where nothing decays, or everything does."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not settings.weight_decay or settings.weight_decay_on == "all":
        return [{"params": [p for _, p in named], "weight_decay": settings.weight_decay}]
    exempt = {p for m in model.modules() if isinstance(m, torch.nn.LayerNorm) for p in m.parameters(recurse=False)}
    exempt |= {p for name, p in named if EXEMPT.search(name)}
    split = (
        ([p for _, p in named if p not in exempt], settings.weight_decay),
        ([p for _, p in named if p in exempt], 0.0),
    )
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in split if parameters]


class _Rows(torch.utils.data.Dataset[chat.Example]):
    """Encoded examples; `__getitem__` returns ids and labels, never text."""

    def __init__(self, encoded: Sequence[chat.Example]) -> None:
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> chat.Example:
        return self.encoded[index]


class _HookedTrainer(Trainer):
    """Trainer plus what a method adds to the loss and does beside; logits only where a token is supervised."""

    extra_loss: ExtraLoss | None = None
    beside = Beside()
    accumulation, by_length = 1, False

    def get_train_dataloader(self) -> Any:
        """As transformers' Trainer has it, or by length within every optimizer step."""
        return steps.dealt(self, self.accumulation, True) if self.by_length else super().get_train_dataloader()

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """The micro-batches of a step, and how many tokens are supervised in them."""
        taken = self.beside.batches(list(itertools.islice(epoch_iterator, num_batches)), self.state.global_step)
        return super().get_batch_samples(iter(taken), len(taken), device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        assert self.model is not None
        outputs: Any = None
        if type(self.beside).token_losses is not Beside.token_losses:
            losses = self.beside.token_losses(*predicted(model, inputs))
            loss = losses.sum() / (losses.numel() if num_items_in_batch is None else num_items_in_batch)
        else:
            loss, outputs = super().compute_loss(
                model, folders.supervised(self.model, inputs), return_outputs=True,
                num_items_in_batch=num_items_in_batch,
            )  # fmt: skip
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(model, inputs)
        return (loss, outputs) if return_outputs else loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if state := self.beside.state():
            save_file({k: v.contiguous() for k, v in state.items()}, Path(output_dir) / BESIDE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (file := Path(checkpoint) / BESIDE).is_file():
            assert self.model is not None
            self.beside.restore(load_file(file), self.model)


class _Around(TrainerCallback):
    """What a method does before an optimizer step, and after it."""

    def __init__(self, beside: Beside | None, after_step: Callable[[torch.nn.Module], object] | None) -> None:
        self.beside, self.after_step = beside, after_step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.beside is not None:
            model.train()  # as it is in every later step
            self.beside.before_step(model, state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.after_step is not None:
            self.after_step(model)


class _ShardedTrainer(spread.Sharded, _HookedTrainer):
    """The same in one of several processes."""


def train(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[chat.Example],
    settings: TrainSettings,
    *,
    seed: int,
    log_file: Path,
    checkpoints: Path,
    identity: str,
    optimizer: torch.optim.Optimizer | None = None,
    clips_itself: bool = False,
    extra_loss: ExtraLoss | None = None,
    after_step: Callable[[torch.nn.Module], object] | None = None,
    beside: Beside | None = None,
    say: Callable[[str], None] = lambda _: None,
    terminal: TextIO | None = None,
    name: str = "training",
) -> dict[str, Any]:
    """Train `model` in place and return {steps, tokens, supervised_tokens, cut_rows, seconds, earlier_seconds,
    final_loss}. `earlier_seconds`, which are within `seconds`, are those of a killed run up to the checkpoint from
    which it goes on.

    `optimizer` None means AdamW over the `groups` of the model. `clips_itself` says that the optimizer
    clips the global norm in its own coordinates, so the loop must not clip before it.
    `identity` is the digest of everything that shapes the run: a checkpoint of another run is never
    resumed. The loss is the mean over all supervised tokens of the effective batch.

    In one of several processes `model` is left in shards; `spread.gathered` has it whole.

    Raises:
        TrainingError: the loss or a weight is no number any more, or the loss cannot be shared out over processes.
    """
    torch.manual_seed(seed)
    machine.return_blocks(model)
    together = several.world()
    cpu_only = not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=steps.passes(
            settings.batch_size * settings.accumulation, settings.batch_size, together
        ),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_fraction,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        max_grad_norm=0.0 if clips_itself else settings.max_grad_norm,
        optim="adamw_torch",
        logging_steps=settings.log_every_steps,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        use_cpu=cpu_only,
        bf16=settings.precision == "bf16",
        activation_checkpointing=settings.activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.activation_checkpointing else None,
        dataloader_num_workers=0,
        dataloader_pin_memory=not cpu_only,
        remove_unused_columns=False,
        accelerator_config=spread.accelerator_config(),
        train_sampling_strategy="group_by_length" if settings.alike else "random",
    )
    if optimizer is None:
        optimizer = torch.optim.AdamW(
            groups(model, settings), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
    cut = chat.cut_rows(encoded)
    if cut:
        say(f"{name}: {cut} of {len(encoded)} rows are longer than max_length, or than the model has positions: cut")
    leads = several.rank() == 0
    log = Log(log_file if leads else None, settings.checkpoint_seconds, say, name, terminal, agreed=spread.agreed)
    trainer = (_HookedTrainer if together == 1 else _ShardedTrainer)(
        model=model,
        args=arguments,
        train_dataset=_Rows(encoded),
        data_collator=lambda rows: chat.collate(rows, tokenizer.pad_token_id),
        callbacks=[log, _Around(beside, after_step)],
    )
    trainer.optimizer = optimizer  # which the Trainer takes no other way where it is sharded
    trainer.extra_loss, trainer.beside = extra_loss, beside or Beside()
    trainer.accumulation, trainer.by_length = settings.accumulation, settings.by_length
    if isinstance(trainer, _ShardedTrainer):
        trainer.share(encoded)
    trainer.remove_callback(PrinterCallback)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    resume = spread.agreed(last_checkpoint(checkpoints, identity) if leads else None)
    if resume:
        say(f"{name}: resuming from {Path(resume).name}")
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=resume)
    machine.return_freed()  # more than a gigabyte, which what follows, the task after a prelude, would not use again
    _refuse_not_finite(model, name, settings)
    trainer.beside.finish(model)
    seconds = log.earlier + time.monotonic() - started
    log.finish()
    if leads:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return {
        "steps": result.global_step,
        "tokens": sum(len(e["input_ids"]) for e in encoded),
        "supervised_tokens": sum(sum(t != chat.IGNORE for t in e["labels"]) for e in encoded),
        "cut_rows": cut,
        "seconds": seconds,
        "earlier_seconds": log.earlier,
        "final_loss": log.records[-1]["loss"] if log.records else None,
    }


def _refuse_not_finite(model: torch.nn.Module, name: str, settings: TrainSettings) -> None:
    """Refuse what the last step made, of which no loss tells any more; in shards every process looks at its own."""
    for of, p in model.named_parameters():
        local = p.to_local() if hasattr(p, "to_local") else p
        if local.is_floating_point() and not local.isfinite().all():
            raise TrainingError(
                f"{name}: the weights are no numbers any more; nothing was saved.", found=f"NaN or infinity in {of}",
                expected="finite weights", do=f"lower the learning rate (peak {settings.learning_rate:g})",
            )  # fmt: skip


class _Target(Protocol):
    """A target layer, as far as the loop has to know it."""

    @property
    def module(self) -> torch.nn.Linear: ...


def restrict(model: torch.nn.Module, layers: Iterable[_Target], trainable: str) -> None:
    """Make `all` parameters trainable, or only the weights of the target `layers` (`targets`)."""
    chosen = {layer.module.weight for layer in layers}
    for parameter in model.parameters():
        parameter.requires_grad_(trainable == "all" or parameter in chosen)
