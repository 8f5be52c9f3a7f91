"""The default device; rows and sums over all devices of a run, with gradients.

Unusual here: gradients follow one rule. Each device has a loss of its own, and what is learnt from is their mean, which
DDP sees to. So what a device's rows did to another device's loss comes back to it as the sum over the devices.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def default_device() -> torch.device:
    """The accelerator that torch finds (CUDA, XPU, MPS), else the CPU: where everything runs unless told otherwise."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@dataclass(frozen=True)
class Devices:
    """All devices of a run.

    Attributes:
        rank: of this one.
        world: how many.
    """

    rank: int
    world: int

    def gather(self, rows: Float[Tensor, "row dim"]) -> Float[Tensor, "all_rows dim"]:
        """The rows of all devices, in the order of their ranks; they may have different numbers of them."""
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def sum(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The sum over all devices."""
        total: Tensor = _Sum.apply(value)
        return total

    def share(self, count: Tensor) -> Tensor:
        """What to multiply a mean over this device's `count` by, so that the mean over devices is that over all rows."""
        total = self.sum(count.float())
        return self.world * count.float() / total.clamp(min=1)

    def counts(self, rows: Tensor) -> list[int]:
        """How many rows each device has."""
        own = torch.tensor([len(rows)], device=rows.device)
        every = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(every, own)
        return [int(count) for count in every]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, devices: Devices) -> Tensor:
        counts = devices.counts(rows)
        ctx.start, ctx.count = sum(counts[: devices.rank]), len(rows)
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        every = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(every, padded)
        return torch.cat([part[:count] for part, count in zip(every, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.count], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
