"""Stop a run whose loss is not finite or explodes, before it wastes days."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import fields

from medst.batch import Batch
from medst.errors import MedstError
from medst.pretrain.training import Training
from medst.weights.state_dict import write_safetensors

REMEMBERED = 50
"""Losses of earlier steps that a loss is compared with."""


def stop_if_diverged(training: Training, loss: float, parts: Sequence[Batch]) -> None:
    """Raise an error if the loss of the next step diverges; its batches are then kept as safetensors, one file each.

    Raises:
        MedstError: the loss is not finite, or explodes.
    """
    state, folder = training.state, training.folder
    wrong = find_divergence(loss, state.recent, training.recipe.optimiser.explode_above)
    if wrong is None:
        return
    place = folder.path / f"failed-step-{state.step:09d}"
    place.mkdir(exist_ok=True)
    files = [place / f"batch-{training.engine.rank * len(parts) + part}.safetensors" for part in range(len(parts))]
    for file, batch in zip(files, parts, strict=True):
        write_safetensors(file, {f.name: getattr(batch, f.name) for f in fields(batch)})
    raise MedstError(
        f"The loss {wrong} at step {state.step} (pairs {parts[0].pair[:8].tolist()} and on, the batch is in {files[0]}); "
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
