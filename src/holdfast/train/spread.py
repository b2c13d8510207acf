"""How is one training spread over several processes? Rows of a step are shared out; weights, gradients and moments lie
in shards (FSDP2, through accelerate), and checkpoints too; whole tensors are gathered one by one when all is done.

The trajectory is that of one process: the same rows in every optimizer step, the loss over all its supervised tokens,
the norm over all its gradients. Only the order of sums differs, and with it the last bits.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Trainer

from holdfast.errors import TrainingError
from holdfast.model import chat
from holdfast.stage import several
from holdfast.train import steps

if TYPE_CHECKING:
    from accelerate.data_loader import DataLoaderShard
    from torch.distributed.tensor import DTensor
    from transformers import PreTrainedModel


def accelerator_config() -> dict[str, Any] | None:
    """What accelerate is told of several processes: gradients are summed after every micro-batch, because whole until
    the last one they would be a second model."""
    return {"gradient_accumulation_kwargs": {"sync_each_batch": True}} if several.world() > 1 else None


def agreed(value: Any) -> Any:
    """What rank 0 says, for what must be the same in all processes."""
    if several.world() == 1:
        return value
    said = [value]
    torch.distributed.broadcast_object_list(said, src=0)
    return said[0]


def largest(value: float) -> float:
    """The largest value of all processes."""
    if several.world() == 1:
        return value
    said: list[float] = [0.0] * several.world()
    torch.distributed.all_gather_object(said, value)
    return max(said)


def described() -> dict[str, Any]:
    """How several processes trained together, for the record; nothing of a single one."""
    if several.world() == 1:
        return {}
    return {"processes": {
        "number": several.world(), "sharding": "FSDP2", "device": "cuda" if torch.cuda.is_available() else "cpu",
        "backend": torch.distributed.get_backend(),
    }}  # fmt: skip


class Sharded(Trainer):
    """What of the Trainer is another with several processes."""

    accumulation: int  # micro-batches of a step, of one process
    by_length: bool  # whether a step's rows are dealt by length
    nothing: chat.Example  # a row of which nothing is learned

    def share(self, encoded: Sequence[chat.Example]) -> None:
        """Say what there is to share out.

        Raises:
            TrainingError: the loss of this model is a mean of each micro-batch, which is no part of the whole mean.
        """
        if not self.model_accepts_loss_kwargs:
            raise TrainingError(
                "The loss of this model cannot be shared out over several processes.",
                found=f"{type(self.model).__name__} means it over each micro-batch",
                expected="a model whose loss takes num_items_in_batch", do="set resources.gpus of the study to 1",
            )  # fmt: skip
        ids = encoded[0]["input_ids"]
        self.nothing = {"input_ids": ids, "labels": [chat.IGNORE] * len(ids), "cut": False}

    def create_accelerator_and_postprocess(self) -> None:
        """Have FSDP2 on CPUs too, and products in bfloat16 as one process has them."""
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if state.distributed_type == DistributedType.MULTI_CPU:
            # accelerate offers FSDP on GPUs only; everything behind this choice is its own code.
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True
        # FSDP's own would keep activations, norms and sums of gradients in bfloat16 too.
        state.fsdp_plugin.mixed_precision_policy = None

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """Autocast as accelerate puts around the model of one process; no copies kept of weights that come and go."""
        stack = contextlib.ExitStack()
        if self.args.bf16:
            stack.enter_context(torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16, cache_enabled=False))
        return stack

    def get_train_dataloader(self) -> DataLoaderShard:
        """This process's share of the rows, in the order that a single process has them."""
        return steps.dealt(self, self.accumulation, self.by_length, self.nothing)

    def _trained(self) -> tuple[dict[str, DTensor], torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The parameters that are trained, by name, and what trains them."""
        assert self.model is not None and self.optimizer is not None and self.lr_scheduler is not None  # by now
        named = {n: cast("DTensor", p) for n, p in self.model.named_parameters() if p.requires_grad}
        return named, self.optimizer, self.lr_scheduler

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing: weights are saved with the optimizer's state, whatever accelerate is told of checkpoints."""

    @torch.no_grad()
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Every process its own shards, as they are: nothing is gathered."""
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        named, trainer, schedule = self._trained()
        optimizer = trainer.state_dict()
        shards = {f"weight {name}": p.to_local().contiguous() for name, p in named.items()}
        numbers: dict[int, dict[str, Any]] = {}
        for i, of in optimizer["state"].items():
            for key, value in of.items():
                if hasattr(value, "to_local"):
                    shards[f"shard {i} {key}"] = value.to_local().contiguous()
                elif isinstance(value, torch.Tensor):
                    shards[f"tensor {i} {key}"] = value.contiguous()
                else:
                    numbers.setdefault(i, {})[key] = value
        rest = {"numbers": numbers, "groups": optimizer["param_groups"], "schedule": schedule.state_dict()}
        save_file(shards, self._file(output_dir), {"rest": json.dumps(rest)})

    def _save_rng_state(self, output_dir: str) -> None:
        """The last thing that every process writes: after it rank 0 calls the checkpoint complete."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Nothing yet: weights come with the optimizer's state."""

    @torch.no_grad()
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """What `_save_optimizer_and_scheduler` wrote, where the same process has it again."""
        if checkpoint is None:
            return
        named, trainer, schedule = self._trained()
        parameters = [p for group in trainer.param_groups for p in group["params"]]
        with safe_open(self._file(checkpoint), framework="pt") as file:
            rest = json.loads(file.metadata()["rest"])
            state = {int(i): numbers for i, numbers in rest["numbers"].items()}
            for name in file.keys():  # noqa: SIM118 - which is no dict
                kind, _, of = name.partition(" ")
                if kind == "weight":
                    named[of].to_local().copy_(file.get_tensor(name))
                    continue
                index, _, key = of.partition(" ")
                tensor = file.get_tensor(name)
                whole = _as(parameters[int(index)], tensor) if kind == "shard" else tensor
                state.setdefault(int(index), {})[key] = whole
        trainer.load_state_dict({"state": state, "param_groups": rest["groups"]})
        schedule.load_state_dict(rest["schedule"])

    def _file(self, folder: str) -> Path:
        return Path(folder) / f"shards-{self.args.process_index}.safetensors"


def _as(p: DTensor, local: torch.Tensor) -> DTensor:
    """The rows of this process as a shard like that of `p`."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        local.to(p.device), p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )


def outline(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its weights, to receive them when training is over; itself where one process trains."""
    if several.world() == 1:
        return model
    empty = {
        id(p): torch.nn.Parameter(torch.empty(0, dtype=p.dtype), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, dict(empty))


@torch.no_grad()
def gathered(model: PreTrainedModel, outline: PreTrainedModel) -> PreTrainedModel:
    """The trained model on the host of rank 0, whose every tensor is gathered by itself; `model` where one process
    trained it. Other ranks get the outline as it is, and have nothing to do any more."""
    if several.world() == 1:
        return model
    own = dict(outline.named_parameters())
    for name, p in model.named_parameters():
        whole = cast("DTensor", p).full_tensor()
        if several.rank() == 0:
            own[name].data = whole.cpu()
    return outline


def disband() -> None:
    """Nothing is computed together any more; every process goes its own way."""
    if several.world() > 1:
        torch.distributed.destroy_process_group()
