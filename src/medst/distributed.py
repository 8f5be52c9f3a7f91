"""Default device; differentiable sum and gather over the devices of a run.

Each device has a loss of its own, and DDP learns from their mean. So the gradient of what a device contributed to the
others' losses comes back to it as the sum over all devices.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def default_device() -> torch.device:
    """Return the accelerator that torch finds (CUDA, XPU, MPS), else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


@dataclass(frozen=True)
class Devices:
    """All devices of a run.

    Attributes:
        rank: of this device.
        world: number of devices.
    """

    rank: int
    world: int

    def gather(self, rows: Float[Tensor, "row dim"]) -> Float[Tensor, "all_rows dim"]:
        """Gather the rows of all devices in the order of their ranks. Devices may have different numbers of rows."""
        counts = self.counts(rows)
        before, after = sum(counts[: self.rank]), sum(counts[self.rank + 1 :])
        return self.sum(F.pad(rows, (0, 0, before, after)))

    def sum(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Sum a tensor over all devices."""
        total: Tensor = _Sum.apply(value)
        return total

    def share(self, count: Tensor) -> Tensor:
        """Factor on a mean over this device's `count` rows, so that the mean over devices is that over all rows."""
        total = self.sum(count.float())
        return self.world * count.float() / total.clamp(min=1)

    def counts(self, rows: Tensor) -> list[int]:
        """Count the rows that each device has."""
        own = torch.tensor([len(rows)], device=rows.device)
        every = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(every, own)
        return [int(count) for count in every]


class _Sum(torch.autograd.Function):
    """Differentiable all-reduce. torch's own is deprecated, and what replaces it is private."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])
