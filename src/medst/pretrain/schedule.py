"""The optimiser, its learning rate and, as a switch, the averaged weights."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from medst.recipes.settings import OptimiserSettings


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Linear warm-up from `lr_min`, then cosine down to `lr_min` (method as released).

    Args:
        step: number of the step, from 0.
        steps: steps of the whole run.
        settings: lr, lr_min and the share of warm-up.
    """
    warm = max(1, round(settings.warmup * steps)) if settings.warmup else 0
    reach = settings.lr - settings.lr_min
    if step < warm:
        return settings.lr_min + reach * step / warm
    share = min(1.0, (step - warm) / max(1, steps - warm))
    return settings.lr_min + reach * (1 + math.cos(math.pi * share)) / 2


def make_optimiser(step: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over all parameters that learn; on everything the same weight decay, unless only matrices decay."""
    learn = [(name, p) for name, p in step.named_parameters() if p.requires_grad]
    spared = [p for name, p in learn if p.ndim < 2 or "pos_embed" in name or "cls_token" in name]
    if not settings.decay_matrices_only:
        spared = []
    ids = {id(p) for p in spared}
    groups = [{"params": [p for _, p in learn if id(p) not in ids], "weight_decay": settings.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)


class Average:
    """An exponential moving average of all parameters that learn.

    Early on it forgets faster, by (1 + step) / (10 + step) a step where that is below its decay, so that the random
    weights of the beginning leave it soon.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` steps in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the averaged weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            kept = parameter.clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)
