"""What every benchmark hands back, and the words that results.json is written in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from medst.cohort.store import Cohort
from medst.weights import Loaded

AVERAGE, ALL = "average", "all"
"""In place of a finding: the mean over all findings, and all subsets together."""


@dataclass(frozen=True)
class Score:
    """One number of one model.

    Attributes:
        metric: its name.
        finding: what it was measured on: a finding, a subset of sentences, or all of them.
        value: the number itself.
        std: standard deviation over `seeds`; None where nothing was drawn.
        n: rows that it was measured on.
        chance: what a guess reaches.
        folds: folds of the cross-validation; None where there is none.
        seeds: what the rows were shuffled with.
    """

    metric: str
    finding: str
    value: float
    std: float | None
    n: int
    chance: float
    folds: int | None = None
    seeds: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What tells the scores of one model apart."""
        return self.metric, self.finding, self.folds


@dataclass(frozen=True)
class LeftOut:
    """What could not be measured, and why."""

    task: str
    finding: str
    folds: int
    reason: str


@dataclass
class Outcome:
    """What a task found out about one model.

    Attributes:
        scores: all its numbers.
        left_out: what could not be measured.
        confusion: for each finding, counts of (true, predicted) classes.
        predictions: a record for each labelled row.
    """

    scores: list[Score] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)


Task = Callable[[Loaded, Cohort], Outcome]
"""A benchmark: a model and a cohort in, an outcome out."""
