"""What does a job ask of a scheduler? Memory and minutes by the cost model, with room, and more at every attempt."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.model.shapes import Shape
from holdfast.study.costs import FP32, PROCESS, stages
from holdfast.study.resolve import Resolved

ROOM, UTILIZATION = 1.25, 0.4
LEAST_MB, START = 1000, 10.0  # minutes: to start, to load, and for what the model does not count
SLACK = 2.0  # times the hours of the cost model
DEVICE_MB = 4000  # host memory of a process that computes on a GPU, beside the model that it loads


@dataclass(frozen=True)
class Request:
    """Of one job."""

    mem_mb: int
    minutes: int | None  # None where the speed of a device is not known


def of_stages(
    study: Resolved, shape: Shape, *, gpu: bool, rate: float | None, utilization: float = UTILIZATION
) -> dict[str, Request]:  # fmt: skip
    """Stage of the cost model -> what each of its jobs asks for.

    Args:
        gpu: models are on a device, so that a process holds in memory of its own what it loads. Of several only the
            first does, when all is trained: what they load is one file, mapped into each.
        rate: FLOP/s of one device, of which jobs reach a share, `utilization`.
    """
    out = {}
    for stage in stages(study, shape):
        many = stage.processes
        whole = FP32 * shape.parameters / 1e6
        needed = many * stage.memory / 1e6
        if gpu:
            needed = min(needed, whole + many * PROCESS / 1e6) + many * DEVICE_MB
        elif many > 1:  # the first gathers the trained model
            needed += whole
        one = stage.flops / max(stage.jobs, 1) / many
        minutes = None if rate is None else math.ceil(START + SLACK * one / (rate * utilization) / 60)
        out[stage.name] = Request(max(LEAST_MB, math.ceil(ROOM * needed)), minutes)
    return out
