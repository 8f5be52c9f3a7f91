"""Default device; random states; differentiable sum and gather over the devices of a run.

Each device has a loss of its own, and DDP learns from their mean. So the gradient of what a device contributed to the
others' losses comes back to it as the sum over all devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def default_device() -> torch.device:
    """Return the accelerator that torch finds (CUDA, XPU, MPS), else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Random states of torch: of the CPU, and of the device if that is another."""
    found = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        found[device.type] = torch.get_device_module(device).get_rng_state(*_device_argument(device))
    return found


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type], *_device_argument(device))


def _device_argument(device: torch.device) -> tuple[torch.device, ...]:
    """Functions of MPS, which has one device, take none."""
    return () if device.type == "mps" else (device,)


def seed_process(seed: int, rank: int) -> None:
    """Give each process but the first its own random numbers: all draw the same weights, but not the same dropout."""
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]))


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
