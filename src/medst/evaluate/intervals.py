"""Intervals from a bootstrap over patients.

Unusual here: a draw is not a table of rows but a weight for each row, the number of times its patient was drawn; a statistic
that takes weights needs no copy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

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


class Ranked:
    """Scores of positives and negatives in order, once for as many weightings as wanted.

    `auroc` and `average_precision` are those of scikit-learn, which sorts anew for every weighting.

    Args:
        positive: what each row is.
        score: what it was given; equal scores are one step of the curve.
    """

    def __init__(self, positive: ArrayLike, score: ArrayLike) -> None:
        self.positive = np.asarray(positive, dtype=bool)
        levels, self.level = np.unique(np.asarray(score), return_inverse=True)
        self.levels = len(levels)

    def auroc(self, weights: Weights) -> float:
        """Area under the ROC curve; nan where only one class has weight."""
        positives, negatives = self._counts(weights)
        if not positives.any() or not negatives.any():
            return float("nan")
        below = np.cumsum(negatives) - negatives / 2
        return float((positives * below).sum() / (positives.sum() * negatives.sum()))

    def average_precision(self, weights: Weights) -> float:
        """Average precision; nan where only one class has weight."""
        positives, negatives = (counts[::-1] for counts in self._counts(weights))
        if not positives.any() or not negatives.any():
            return float("nan")
        found, drawn = np.cumsum(positives), np.cumsum(positives + negatives)
        precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
        return float((positives * precision).sum() / found[-1])

    def _counts(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        positives = np.bincount(self.level, weights * self.positive, self.levels)
        return positives, np.bincount(self.level, weights * ~self.positive, self.levels)


def auroc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve; nan where there is only one class."""
    ranked = Ranked(positive, score)
    return ranked.auroc(np.ones(len(ranked.positive)))


def f1(positive: ArrayLike, decided: ArrayLike, weights: Weights) -> float:
    """F1 of the positive class; 0 where nothing is positive."""
    positive, decided = np.asarray(positive, dtype=bool), np.asarray(decided, dtype=bool)
    total = (weights * positive).sum() + (weights * decided).sum()
    return float(2 * (weights * (positive & decided)).sum() / total) if total else 0.0


def mean_of(metrics: Sequence[Callable[[Any], float]]) -> Callable[[Any], float]:
    """The mean of several statistics of the same rows."""
    return lambda weights: float(np.mean([metric(weights) for metric in metrics]))
