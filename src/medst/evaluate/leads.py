"""What stands beside a model's numbers: those of its baselines, and the lead over the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np

from medst.evaluate.intervals import bootstrap, deviation, mean_of
from medst.evaluate.summary import headline
from medst.evaluate.task import Lead, Outcome, Score

GUESSES = ("chance", "random order")
"""Baselines that are computed: each score's `chance`."""
NOT_GUESSED = ("calibration error",)
"""Metrics for which `chance` is not the result of a guess."""


def guesses(outcome: Outcome) -> list[Score]:
    """The result of a guess for each score."""
    return [
        replace(score, value=score.chance, std=None, seeds=(), interval=None, statistic=None)
        for score in outcome.scores
        if score.metric not in NOT_GUESSED
    ]


def mean_scores(outcomes: Sequence[Outcome], seeds: Sequence[int]) -> list[Score]:
    """The mean over models, one per seed, of each score that all of them have."""
    by_key = [{score.key: score for score in outcome.scores} for outcome in outcomes]
    scores = []
    for key, first in by_key[0].items():
        if not all(key in one for one in by_key):
            continue
        every = [one[key] for one in by_key]
        values = [score.value for score in every]
        statistics = [score.statistic for score in every if score.statistic is not None]
        mean, std = float(np.mean(values)), deviation(values) if len(values) > 1 else None
        statistic = mean_of(statistics) if statistics else None
        chance = float(np.mean([score.chance for score in every]))
        first = replace(first, value=mean, std=std, chance=chance, seeds=tuple(seeds))
        scores.append(replace(first, interval=None, statistic=statistic))
    return scores


def leads(task: str, outcome: Outcome, baselines: Mapping[str, Sequence[Score]], intervals: bool) -> list[Lead]:
    """The lead over the best baseline, in each of the model's headline numbers.

    The interval comes from a bootstrap over patients: both subjects are measured on the same draws, so that what makes rows
    easy or hard for both cancels. The best baseline is chosen once, by its value on all rows.
    """
    by_key = {name: {score.key: score for score in scores} for name, scores in baselines.items()}
    found = []
    for score in headline(task, outcome.scores, attrgetter("metric", "finding", "folds")):
        rivals = {name: scores[score.key] for name, scores in by_key.items() if score.key in scores}
        if not rivals:
            continue
        name, best = max(rivals.items(), key=lambda rival: rival[1].value)
        interval = _paired(score, best) if intervals else None
        found.append(Lead(*score.key, score.n, name, score.value - best.value, interval))
    return found


def _paired(score: Score, best: Score) -> tuple[float, float] | None:
    own, other = score.statistic, best.statistic
    if own is None:
        return None
    if other is None:  # a guess is as good on every draw
        return bootstrap(lambda weights: own(weights) - best.value, score.drawn)
    if not np.array_equal(score.drawn, best.drawn):
        raise ValueError(f"{score.metric} of {score.finding}: the baseline was measured on other rows")
    return bootstrap(lambda weights: own(weights) - other(weights), score.drawn)
