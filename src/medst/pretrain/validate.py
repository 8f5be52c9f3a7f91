"""Validation: mean losses over a split, and whether they are better than before."""

import math

import torch
from torch import Tensor

from medst.batch import Batches
from medst.pretrain.step import Engine


def validate(engine: Engine, batches: Batches, workers: int) -> dict[str, float]:
    """Compute the mean losses over all pairs of a split, the same on every device.

    Args:
        engine: of the model to validate.
        batches: of the split.
        workers: processes that load batches; 0 loads here.
    """
    total: dict[str, Tensor] = {}
    pairs = torch.zeros((), device=engine.device)
    # Every device takes as many batches, because shards are gathered from all; what is beyond the end has no weight.
    own = range(engine.rank, math.ceil(len(batches) / engine.world) * engine.world, engine.world)
    loaded = batches.load([min(number, len(batches) - 1) for number in own], workers, engine.device)
    with engine.evaluating():
        for number, batch in zip(own, loaded, strict=True):
            weight = len(batch.pair) if number < len(batches) else 0
            pairs += weight
            for name, value in engine.module(batch).items():
                total[name] = total.get(name, torch.zeros_like(pairs)) + value * weight
    reduce = engine.accelerator.reduce
    pairs = reduce(pairs)
    return {name: (reduce(value) / pairs).item() for name, value in total.items()}


def is_better(loss: float, best: float | None) -> bool:
    """Whether a validation loss replaces the best so far: the first one does, and a finite one always beats NaN.

    >>> is_better(1.0, 2.0), is_better(1.0, float("nan")), is_better(float("nan"), 2.0), is_better(2.0, 2.0)
    (True, True, False, False)
    """
    if best is None:
        return True
    return loss < best or (math.isfinite(loss) and not math.isfinite(best))
