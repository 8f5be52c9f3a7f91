"""Intervals from a bootstrap over patients.

Unusual here: a draw is not a table of rows but a weight for each row, the number of times its patient was drawn; a statistic
that takes weights needs no copy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

ROUNDS = 1000
Weights = Float[np.ndarray, " row"]


def bootstrap(
    statistic: Callable[[Any], float], patients: ArrayLike, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float] | None:
    """The 2.5th and 97.5th percentile of a statistic over draws of patients with replacement.

    Args:
        statistic: takes a weight for each row, float64; nan where it can't be computed, which leaves the draw out.
        patients: the patient of each row.
        rounds: number of draws.
        seed: of the draws.

    Returns:
        None where fewer than half of the draws gave a number.
    """
    unique, place = np.unique(np.asarray(patients), return_inverse=True)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        counts = rng.multinomial(len(unique), np.full(len(unique), 1 / len(unique)))
        found.append(statistic(counts[place].astype(np.float64)))
    values = np.array(found)
    values = values[np.isfinite(values)]
    if 2 * len(values) < rounds:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def accuracy(hit: ArrayLike, weights: Weights) -> float:
    """Share of hits."""
    return float(np.average(np.asarray(hit, dtype=np.float64), weights=weights))


def macro_accuracy(hit: ArrayLike, classes: ArrayLike, weights: Weights) -> float:
    """Mean over the classes of the share of hits; nan where a class has no weight."""
    hit, classes = np.asarray(hit, dtype=np.float64), np.asarray(classes)
    recalls = []
    for one in np.unique(classes):
        among = classes == one
        total = weights[among].sum()
        recalls.append((hit[among] * weights[among]).sum() / total if total else np.nan)
    return float(np.mean(recalls))


def auroc(positive: ArrayLike, score: ArrayLike, weights: Weights | None = None) -> float:
    """Area under the ROC curve; nan where only one class has weight."""
    return _ranked(roc_auc_score, positive, score, weights)


def average_precision(positive: ArrayLike, score: ArrayLike, weights: Weights | None = None) -> float:
    """Average precision; nan where only one class has weight."""
    return _ranked(average_precision_score, positive, score, weights)


def mean_of(metrics: Sequence[Callable[[Any], float]]) -> Callable[[Any], float]:
    """The mean of several statistics of the same rows."""
    return lambda weights: float(np.mean([metric(weights) for metric in metrics]))


def _ranked(metric: Callable[..., float], positive: ArrayLike, score: ArrayLike, weights: Weights | None) -> float:
    positive, score = np.asarray(positive, dtype=bool), np.asarray(score)
    if weights is not None:
        drawn = weights > 0
        positive, score, weights = positive[drawn], score[drawn], weights[drawn]
    if positive.all() or not positive.any():
        return float("nan")
    return float(metric(positive, score, sample_weight=weights))
