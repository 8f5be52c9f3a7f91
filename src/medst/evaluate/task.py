"""What every benchmark is asked and hands back, and the words that results.json is written in."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from medst.cohort.store import Cohort
from medst.use import Model

AVERAGE, ALL = "average", "all"
"""In place of a finding: the mean over all findings, and all subsets together."""
UNSEEN = ", unseen patients"
"""Ends a finding that was measured without the patients that the model was pre-trained on."""
WITHIN = "within a patient"
"""In place of a finding: retrieval among the reports of one patient."""

Protocol = Literal["paper", "strict"]


@dataclass(frozen=True)
class Question:
    """How a benchmark is to be measured."""

    protocol: Protocol = "paper"
    """As released, to compare with papers; or so that nothing about a test row was used to choose anything."""
    features: Literal["concat", "difference", "both"] = "concat"
    """Of two studies: their embeddings side by side (as released), the current one minus the previous one, or all of it."""
    tokens: Literal["global", "patches", "both"] = "global"
    """Of an image: its global embedding (as released), the mean of its patches' embeddings, or both."""
    laterals: Path | None = None
    """A cohort with pairs, to encode a study's lateral view with its frontal one where it exists; None: frontal alone."""
    prompts: Path | None = None
    """A prompt file for zero-shot; None takes the released prompts, where the cohort is one of pneumonia."""
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Shares of the training rows that a probe learns from."""
    finetune: bool = False
    """Whether a probe trains the whole image encoder and not its own layer alone."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoders."""
    cache: Path | None = None
    """A folder for features, so that they are computed once a model and cohort."""
    bootstrap: bool = True
    """Whether protocol strict makes intervals, which nobody asks of a baseline."""

    @property
    def intervals(self) -> bool:
        """Whether intervals are wanted."""
        return self.bootstrap and self.protocol == "strict"


PAPER = Question()


@dataclass(frozen=True)
class Score:
    """One number of one model.

    Attributes:
        metric: its name.
        finding: what it was measured on: a finding, a subset of sentences, a share of the labels, or all of them.
        value: the number itself.
        std: standard deviation over `seeds`; None where nothing was drawn.
        n: rows that it was measured on.
        chance: what a guess reaches.
        folds: folds of the cross-validation; None where there is none.
        seeds: what the rows were shuffled or drawn with.
        interval: 95 % of a bootstrap over patients lie between these two; None where none was made.
    """

    metric: str
    finding: str
    value: float
    std: float | None
    n: int
    chance: float
    folds: int | None = None
    seeds: tuple[int, ...] = ()
    interval: tuple[float, float] | None = None

    @property
    def key(self) -> tuple[str, str, int | None]:
        """What tells the scores of one model apart."""
        return self.metric, self.finding, self.folds


@dataclass(frozen=True)
class LeftOut:
    """What could not be measured, and why."""

    finding: str
    folds: int
    reason: str


def is_summary(finding: str) -> bool:
    """Whether a finding stands for several: their average, all rows, or a share of the labels.

    >>> [is_summary(finding) for finding in ("average", "all, unseen patients", "10 %", "10 % Edema", "edema")]
    [True, True, True, False, False]
    """
    return finding.removesuffix(UNSEEN).endswith((AVERAGE, ALL, WITHIN, "%"))


@dataclass
class Outcome:
    """What a task found out about one model.

    Attributes:
        scores: all its numbers.
        left_out: what could not be measured.
        confusion: for each finding, counts of (true, predicted) classes.
        classes: the names of these classes.
        calibration: for each finding, rows of (mean of the predicted probability, share of positives, rows).
        predictions: a record for each labelled row.
        warnings: what a reader of the numbers must know, a sentence each.
        train_rows: for each share of the training rows, how many a probe learnt from.
    """

    scores: list[Score] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    calibration: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    train_rows: dict[str, int] = field(default_factory=dict)

    def add_unseen(self, unseen: "Outcome") -> None:
        """Add the numbers that were found without the patients of pre-training, by findings that end in `UNSEEN`."""
        self.scores += [replace(score, finding=score.finding + UNSEEN) for score in unseen.scores]
        self.left_out += [replace(left, finding=left.finding + UNSEEN) for left in unseen.left_out]
        self.confusion |= {finding + UNSEEN: matrix for finding, matrix in unseen.confusion.items()}
        self.calibration |= {finding + UNSEEN: curve for finding, curve in unseen.calibration.items()}


Task = Callable[[Model, Cohort, Question], Outcome]
"""A benchmark: a model, a cohort and how to measure in, an outcome out."""
