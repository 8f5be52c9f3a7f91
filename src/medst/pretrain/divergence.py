"""What stops a run before it wastes days: a loss that is no number, or one that explodes."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from medst.batch import Batch
from medst.weights.safe_unpickle import write_safetensors

REMEMBERED = 50


def verdict(loss: float, recent: Sequence[float], explode_above: float) -> str | None:
    """What is wrong with a loss, as the middle of a sentence; None where nothing is.

    Args:
        loss: of the step at hand.
        recent: losses of the steps before, at most `REMEMBERED`; fewer than that many judge nobody.
        explode_above: how many times their median is too much; 0 allows everything that is a number.

    >>> verdict(float("nan"), [], 0.0)
    'is nan'
    >>> verdict(900.0, [8.0] * 50, 100.0)
    'is 900.0, over 100 times the 8 of the last 50 steps,'
    >>> verdict(900.0, [8.0] * 49, 100.0)
    """
    if not math.isfinite(loss):
        return f"is {loss}"
    if explode_above and len(recent) >= REMEMBERED:
        usual = statistics.median(recent)
        if loss > explode_above * abs(usual):
            return f"is {loss}, over {explode_above:g} times the {usual:.4g} of the last {REMEMBERED} steps,"
    return None


def keep_batches(folder: Path, batches: Sequence[Batch], rank: int) -> Path:
    """Write a step's batches for inspection: `safetensors.torch.load_file` gives their fields.

    Returns:
        The file; of several parts, the first.
    """
    folder.mkdir(exist_ok=True)
    paths = [folder / f"batch-{rank * len(batches) + part}.safetensors" for part in range(len(batches))]
    for path, batch in zip(paths, batches, strict=True):
        write_safetensors(path, {f.name: getattr(batch, f.name) for f in fields(batch)})
    return paths[0]
