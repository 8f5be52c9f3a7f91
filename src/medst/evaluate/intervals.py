"""Metrics as functions of the rows' weights, scores, and intervals from a bootstrap over patients.

A draw of the bootstrap weights each row by the number of times its patient was drawn, so no table is copied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import t as student

from medst.evaluate.task import Question, Score

ROUNDS = 1000
Weights = Float[np.ndarray, " row"]
Statistic = Callable[[Weights], float]
"""A metric of fixed rows as a function of their weights; NaN where it is undefined."""


def scored(
    metric: str,
    finding: str,
    statistics: Sequence[Statistic],
    drawn: ArrayLike,
    chance: float,
    question: Question,
    *,
    values: ArrayLike | None = None,
    n: int | None = None,
    folds: int | None = None,
    seeds: Sequence[int] = (),
) -> Score:
    """Compute a score: the mean over the seeds, their standard deviation and, if asked for, the interval of the mean.

    Args:
        statistics: the metric, one per seed.
        drawn: what the bootstrap draws, one name per row: its patient, or its cluster of sentences.
        values: one value per seed, if they are not the statistics at equal weights.
        n: number of rows that count; all if not given.
    """
    even = np.ones(len(np.asarray(drawn)))
    found = np.array([statistic(even) for statistic in statistics]) if values is None else np.asarray(values)
    mean = mean_of(statistics)
    interval = bootstrap(mean, drawn) if question.intervals else None
    std, counted = deviation(found) if len(seeds) > 1 else None, n or len(even)
    return Score(metric, finding, float(found.mean()), std, counted, chance, folds, tuple(seeds), interval, mean, drawn)


def deviation(values: ArrayLike) -> float:
    """Standard deviation over seeds, with n - 1: the seeds are a sample of those that could have been drawn."""
    return float(np.std(np.asarray(values), ddof=1))


def bootstrap(
    statistic: Statistic, drawn: ArrayLike, rounds: int = ROUNDS, seed: int = 0
) -> tuple[float, float] | None:
    """Compute the 2.5th and 97.5th percentile of a statistic over draws of patients (or clusters) with replacement.

    Draws for which it is NaN are left out; None if these are more than half, or if there is only one patient.
    `benchmarks/coverage.py` measures how often such an interval holds the true value.
    """
    unique, place = np.unique(np.asarray(drawn), return_inverse=True)
    if len(unique) < 2:
        return None
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


@dataclass(frozen=True)
class OverRuns:
    """A number of several runs of one recipe with different seeds, measured on the same rows of patients or sentences.

    Attributes:
        mean: over the runs.
        std: standard deviation over the runs, with n - 1.
        runs: 95 % interval of the mean over other seeds, on these patients.
        patients: 95 % interval over other patients, for the predictions of these runs; None without intervals.
        both: 95 % interval over other seeds and other patients; None without intervals.
    """

    mean: float
    std: float
    runs: tuple[float, float]
    patients: tuple[float, float] | None
    both: tuple[float, float] | None


def over_runs(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> OverRuns:
    """Summarise a number of at least two runs.

    `runs` is Student's interval. `patients` has the mean distances of the runs' own intervals from their values. Seeds and
    patients vary independently, so the distances of `both` are the roots of the sums of their squares, as of standard
    errors. `benchmarks/coverage.py` measures how often each holds the true value.
    """
    mean, std, count = float(np.mean(values)), deviation(values), len(values)
    half = float(student.ppf(0.975, count - 1)) * std / count**0.5
    known = [interval for interval in intervals if interval is not None]
    if len(known) < count:
        return OverRuns(mean, std, (mean - half, mean + half), None, None)
    below = mean - float(np.mean([low for low, _ in known]))
    above = float(np.mean([high for _, high in known])) - mean
    both = mean - float(np.hypot(half, below)), mean + float(np.hypot(half, above))
    return OverRuns(mean, std, (mean - half, mean + half), (mean - below, mean + above), both)


def too_wide(low: float | None, high: float | None, span: float = 1.0) -> bool:
    """Whether an interval spans more than half of a metric's range, whose width is `span`: there are too few rows.

    >>> too_wide(0.2, 0.71), too_wide(0.2, 0.7), too_wide(None, None)
    (True, False, False)
    """
    return low is not None and high is not None and round(high - low, 6) > span / 2


def accuracy(hit: ArrayLike, weights: Weights) -> float:
    """Share of hits; NaN without any weight."""
    return float(np.average(np.asarray(hit, dtype=np.float64), weights=weights)) if weights.any() else float("nan")


def macro_accuracy(hit: ArrayLike, classes: ArrayLike, weights: Weights) -> float:
    """Mean over the classes of the share of hits; NaN where a class has no weight."""
    hit, classes = np.asarray(hit, dtype=np.float64), np.asarray(classes)
    recalls = []
    for one in np.unique(classes):
        among = classes == one
        total = weights[among].sum()
        recalls.append((hit[among] * weights[among]).sum() / total if total else np.nan)
    return float(np.mean(recalls))


class Ranked:
    """Rows sorted once by their score, to compute areas for many weightings.

    `auroc` and `average_precision` agree with scikit-learn's, which sort again for every weighting. Rows with equal scores
    are one step of the curve.
    """

    def __init__(self, positive: ArrayLike, score: ArrayLike) -> None:
        self.positive = np.asarray(positive, dtype=bool)
        levels, self.level = np.unique(np.asarray(score), return_inverse=True)
        self.levels = len(levels)

    def auroc(self, weights: Weights) -> float:
        """Area under the ROC curve; NaN where only one class has weight."""
        positives, negatives = self._counts(weights)
        if not positives.any() or not negatives.any():
            return float("nan")
        below = np.cumsum(negatives) - negatives / 2
        return float((positives * below).sum() / (positives.sum() * negatives.sum()))

    def average_precision(self, weights: Weights) -> float:
        """Average precision; NaN where only one class has weight."""
        positives, negatives = (counts[::-1] for counts in self._counts(weights))
        if not positives.any() or not negatives.any():
            return float("nan")
        found, drawn = np.cumsum(positives), np.cumsum(positives + negatives)
        precision = np.divide(found, drawn, out=np.zeros_like(found), where=drawn > 0)
        return float((positives * precision).sum() / found[-1])

    def _counts(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        positives = np.bincount(self.level, weights * self.positive, self.levels)
        return positives, np.bincount(self.level, weights * ~self.positive, self.levels)


def f1(positive: ArrayLike, decided: ArrayLike, weights: Weights) -> float:
    """F1 of the positive class; 0 where nothing is positive."""
    positive, decided = np.asarray(positive, dtype=bool), np.asarray(decided, dtype=bool)
    total = (weights * positive).sum() + (weights * decided).sum()
    return float(2 * (weights * (positive & decided)).sum() / total) if total else 0.0


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Average several statistics of the same rows."""
    return lambda weights: float(np.mean([statistic(weights) for statistic in statistics]))
