"""What a benchmark is given and returns, and the names that results.json uses."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Fixed, Suppress

if TYPE_CHECKING:  # the command line reads this file before anything heavy is imported
    from medst.cohort.store import Cohort
    from medst.evaluate.subjects import Subject

AVERAGE, ALL = "average", "all"
"""In place of a finding: the mean over all findings, and all subsets together."""
UNSEEN = ", unseen patients"
"""Ends a finding that was measured without the patients that the model was pre-trained on."""
WITHIN = "within a patient"
"""In place of a finding: retrieval among the reports of one patient."""


@dataclass(frozen=True)
class Question:
    """How a benchmark is measured. Most fields are flags of `medst evaluate`."""

    protocol: Literal["strict", "paper", "transfer"] = "strict"
    """strict: nothing about a test row was used to choose anything; paper: as released, to compare with publications;
    transfer: temporal-image's classifiers learn on --learn-from and are tested on all rows of the cohort."""
    learn_from: Path | None = None
    """Protocol transfer: cohort with comparisons, whose patients are not those of the tested cohort."""
    features: Literal["concat", "difference", "both", "current", "prior"] = "concat"
    """temporal-image: embeddings of the two studies side by side (as released), current minus previous, both, or one
    study alone."""
    tokens: Literal["global", "patches", "both"] = "global"
    """temporal-image: an image's global embedding (as released), the mean of its patches' embeddings, or both."""
    laterals: Path | None = None
    """temporal-image: cohort with pairs; a study's lateral view is then encoded with its frontal one."""
    prompts: Path | None = None
    """zero-shot: prompt file; the released prompts for pneumonia if not given."""
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    """probe: shares of the training rows to learn from."""
    finetune: bool = False
    """probe: train the image encoder too."""
    by: str = ""
    """Split the numbers by some of view,gap,portable,sex,age; of two studies by the change of view and the time between."""
    patients: Path | None = None
    """CSV or Parquet file with patient_id, and sex, age or birth_year, for --by."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoders."""
    cache: Annotated[Path | None, Fixed, Suppress] = None
    """Folder for image features, so that they are computed once per model and cohort."""
    bootstrap: Annotated[bool, Fixed, Suppress] = True
    """Whether protocol strict computes intervals; baselines need none."""

    @property
    def intervals(self) -> bool:
        """Whether to compute intervals."""
        return self.bootstrap and self.protocol != "paper"


STRICT = Question()
PAPER = Question(protocol="paper")


@dataclass(frozen=True)
class Score:
    """One number of one model.

    Attributes:
        metric: name of the metric.
        finding: a finding, a subset of sentences, a share of the labels, or all of them.
        value: the number itself.
        std: standard deviation over `seeds`; None where nothing was drawn.
        n: number of rows.
        chance: result of a guess.
        folds: folds of the cross-validation; None where there is none.
        seeds: seeds that shuffled or drew the rows.
        interval: 95 % interval of a bootstrap over patients, or clusters of sentences; None if not computed.
        statistic: the number as a function of the rows' weights, and `drawn`, what the bootstrap draws, one name per row: to
            compare with another subject on the same draws. Both are None for a number that is no function of rows.
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
    statistic: Callable[[Any], float] | None = field(default=None, repr=False, compare=False)
    drawn: Any = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, int | None]:
        """Identifies a score among those of one model."""
        return self.metric, self.finding, self.folds


@dataclass(frozen=True)
class Lead:
    """How far the model is ahead of its best baseline in one number; negative if it is behind.

    Attributes:
        metric, finding, folds, n: as in the model's `Score`.
        baseline: name of the baseline with the highest value.
        value: the model's value minus the baseline's.
        interval: 95 % interval of that difference over the same draws of rows for both; None if not computed.
    """

    metric: str
    finding: str
    folds: int | None
    n: int
    baseline: str
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class LeftOut:
    """What could not be measured, and why; `folds` is 0 where there are none."""

    finding: str
    folds: int
    reason: str


def results_name(protocol: str) -> str:
    """Name of the file that `medst evaluate` writes under a protocol if --out is not given.

    >>> [results_name(protocol) for protocol in ("strict", "paper")]
    ['results.json', 'results-paper.json']
    """
    return "results.json" if protocol == "strict" else f"results-{protocol}.json"


def is_summary(finding: str) -> bool:
    """Whether a finding stands for several: their average, all rows, or a share of the labels.

    >>> [is_summary(finding) for finding in ("average", "all, unseen patients", "10 %", "10 % Edema", "edema")]
    [True, True, True, False, False]
    """
    return finding.removesuffix(UNSEEN).endswith((AVERAGE, ALL, WITHIN, "%"))


@dataclass
class Outcome:
    """The result of a benchmark for one subject.

    Attributes:
        scores: all its numbers.
        left_out: what could not be measured.
        confusion: for each finding, counts of (true, predicted) classes.
        classes: the names of these classes.
        calibration: for each finding, rows of (mean of the predicted probability, share of positives, rows).
        perfect_calibration: for each finding, mean and 95th percentile of a perfect model's calibration error.
        predictions: one record per tested row.
        images: for each finding and number of folds, which images the rows of its scores show, as rows of the cohort's
            images, int64 (row, 1), or (row, 2) for the current and the prior study. In memory only, to split scores.
        warnings: sentences that a reader of the numbers must know.
        train_rows: for each share of the training rows, their number.
    """

    scores: list[Score] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    calibration: dict[str, list[tuple[float, float, int]]] = field(default_factory=dict)
    perfect_calibration: dict[str, tuple[float, float]] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    train_rows: dict[str, int] = field(default_factory=dict)
    images: dict[tuple[str, int | None], Any] = field(default_factory=dict)

    def add_unseen(self, unseen: "Outcome") -> None:
        """Add what was found without the patients of pre-training; its findings end in `UNSEEN`."""
        self.scores += [replace(score, finding=score.finding + UNSEEN) for score in unseen.scores]
        self.left_out += [replace(left, finding=left.finding + UNSEEN) for left in unseen.left_out]
        self.images |= {(finding + UNSEEN, folds): rows for (finding, folds), rows in unseen.images.items()}
        self.confusion |= {finding + UNSEEN: matrix for finding, matrix in unseen.confusion.items()}
        self.calibration |= {finding + UNSEEN: curve for finding, curve in unseen.calibration.items()}
        self.perfect_calibration |= {finding + UNSEEN: pair for finding, pair in unseen.perfect_calibration.items()}


Task = Callable[["Subject", "Cohort", Question], Outcome]
"""The function of a benchmark."""
