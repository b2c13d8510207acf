"""The constrained optimizer under FSDP2: two gloo ranks on the CPU take the single-process trajectory."""

from __future__ import annotations

import os
import socket

import torch
import torch.multiprocessing as mp
from torch import nn

from holdfast.warp.basis import random_orthogonal
from holdfast.warp.optimizer import RotatedAdamW, Rotation

STEPS, ROWS, WIDTH, OUT = 12, 8, 9, 7  # 7 rows over two ranks: shards of unequal size


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rotated, self.plain = nn.Linear(WIDTH, OUT), nn.Linear(OUT, 3)

    def forward(self, x):
        return self.plain(self.rotated(x).tanh())


def _optimizer(net: Net) -> RotatedAdamW:
    g = torch.Generator().manual_seed(1)
    frozen = torch.rand(OUT, WIDTH, generator=g) < 0.4
    rotation = Rotation(random_orthogonal(WIDTH, 0), frozen)
    return RotatedAdamW(net.parameters(), {net.rotated.weight: rotation}, lr=0.05, weight_decay=0.1, max_grad_norm=0.1)


def _batches() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return [torch.randn(ROWS, WIDTH, generator=g) for _ in range(STEPS)]


def _rank(rank: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    from accelerate import Accelerator
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.tensor.debug import CommDebugMode

    accelerator = Accelerator(cpu=True)
    # accelerate offers FSDP on GPUs only; everything behind this choice is its own code.
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator.state.distributed_type = DistributedType.FSDP
    net = Net()
    net, optimizer = accelerator.prepare(net, _optimizer(net))
    calls = []
    for batch in _batches():
        net(batch[rank::2]).square().mean().backward()
        with CommDebugMode() as communication:
            optimizer.step()
        optimizer.zero_grad()
        calls.append({str(k): v for k, v in communication.get_comm_counts().items()})
    weights = {k: v.full_tensor() for k, v in net.state_dict().items()}
    if rank == 0:
        torch.save({"weights": weights, "calls": calls}, f"{folder}/sharded.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_take_the_trajectory_of_one_process(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_rank, args=(port, str(tmp_path)), nprocs=2)
    sharded = torch.load(tmp_path / "sharded.pt")

    net = Net()
    start = net.rotated.weight.detach().clone()
    optimizer = _optimizer(net)
    for batch in _batches():
        net(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in net.state_dict().items():
        assert (value - sharded["weights"][name]).abs().max() < 1e-6, name
    assert (net.rotated.weight - start).abs().max() > 0.05
    # Messages of a step: the basis, gathered once for gradient and update, and the norm, as in any FSDP training.
    first, *others = sharded["calls"]
    assert [first] * (STEPS - 1) == others and first["c10d.allreduce_"] == 1 and sum(first.values()) == 2, first
