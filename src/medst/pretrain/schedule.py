"""The optimiser, its learning rate, the warm-up of losses, and optionally averaged weights."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from medst.recipes.objective import LOSSES, ObjectiveSettings
from medst.recipes.settings import OptimiserSettings

NO_DECAY = ("pos_embed", "cls_token", "position_embeddings", "token_type_embeddings")
"""Parts of the names of tables that are added to tokens, and so are treated like biases."""


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Learning rate at a step: linear warm-up from `lr_min`, then cosine decay towards `lr_min` (as released).

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


def loss_shares(step: int, steps: int, settings: ObjectiveSettings) -> dict[str, float]:
    """Share of its weight that each loss has at a step: rises linearly from 0 over NAME_warmup of all steps.

    Args:
        step: number of the step, from 0.
        steps: steps of the whole run.
        settings: those of the objective.
    """
    shares = {}
    for loss in LOSSES:
        warm = getattr(settings, f"{loss.name}_warmup", 0.0) * steps
        shares[loss.name] = min(1.0, step / warm) if warm else 1.0
    return shares


def make_optimiser(step: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over all parameters that learn, with weight decay on all of them, or on matrices only."""
    decayed, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in step.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and not any(part in name for part in NO_DECAY)
            (decayed if is_matrix or not settings.decay_matrices_only else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(float(settings.beta1), float(settings.beta2)), fused=True)


class Average:
    """Exponential moving average of all parameters that learn and of the heads' running statistics.

    The averaged statistics are those of the model over the same steps. At the start the decay is (1 + step) / (10 + step),
    if that is lower, so that the average soon forgets the initial weights.

    Attributes:
        live: the model's own tensors by name.
        values: their averages.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        learn = {name: p for name, p in module.named_parameters() if p.requires_grad}
        statistics = {name: b for name, b in module.named_buffers() if b.is_floating_point()}
        self.live: dict[str, Tensor] = learn | statistics
        self.values: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        # Separate, because parameters may be sharded and statistics never are.
        self._groups = [[*learn], [*statistics]]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the model after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for names in filter(None, self._groups):
            values, live = [self.values[name] for name in names], [self.live[name] for name in names]
            torch._foreach_lerp_(values, live, 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averaged values while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self.live.items():
            kept = tensor.clone()
            tensor.copy_(self.values[name])
            self.values[name].copy_(kept)
