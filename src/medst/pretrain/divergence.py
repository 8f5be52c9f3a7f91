"""Stop a run whose loss is not finite or explodes, before it wastes days."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import fields

from medst.batch import Batch
from medst.errors import MedstError
from medst.pretrain.checkpoint import RunFolder, TrainState
from medst.weights.state_dict import write_safetensors

REMEMBERED = 50
"""Losses of earlier steps that a loss is compared with."""


def stop_if_diverged(
    loss: float, state: TrainState, explode_above: float, folder: RunFolder, batches: Sequence[Batch], rank: int
) -> None:
    """Raise an error if the loss diverges; the step's batches are then kept as safetensors, one file each.

    Args:
        loss: of the step after those that `state` counts.
        state: progress of the run, with the losses of the last steps.
        explode_above: see `find_divergence`.
        folder: of the run.
        batches: those of the step on this device.
        rank: of this device.

    Raises:
        MedstError: the loss is not finite, or explodes.
    """
    wrong = find_divergence(loss, state.recent, explode_above)
    if wrong is None:
        return
    place = folder.path / f"failed-step-{state.step:09d}"
    place.mkdir(exist_ok=True)
    files = [place / f"batch-{rank * len(batches) + part}.safetensors" for part in range(len(batches))]
    for file, batch in zip(files, batches, strict=True):
        write_safetensors(file, {f.name: getattr(batch, f.name) for f in fields(batch)})
    raise MedstError(
        f"The loss {wrong} at step {state.step} (pairs {batches[0].pair[:8].tolist()} and on, the batch is in {files[0]}); "
        f"the last checkpoint in {folder.state} is untouched. A lower --optimiser.lr may help."
    )


def find_divergence(loss: float, recent: Sequence[float], explode_above: float) -> str | None:
    """Describe what is wrong with a loss, for the middle of a sentence; None if nothing is.

    Args:
        loss: of this step.
        recent: losses of the steps before, at most `REMEMBERED`; with fewer, a loss only has to be finite.
        explode_above: factor on their median above which a loss explodes; 0 accepts every finite loss.

    >>> find_divergence(float("nan"), [], 0.0)
    'is nan'
    >>> find_divergence(900.0, [8.0] * 50, 100.0)
    'is 900.0, over 100 times the 8 of the last 50 steps,'
    >>> find_divergence(900.0, [8.0] * 49, 100.0)
    """
    if not math.isfinite(loss):
        return f"is {loss}"
    if explode_above and len(recent) >= REMEMBERED:
        usual = statistics.median(recent)
        if loss > explode_above * abs(usual):
            return f"is {loss}, over {explode_above:g} times the {usual:.4g} of the last {REMEMBERED} steps,"
    return None
