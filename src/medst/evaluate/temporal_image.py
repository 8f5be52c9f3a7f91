"""Temporal image classification on MS-CXR-T (paper, section 4.2): has a finding improved, stayed or worsened?

Features are the frozen embeddings of the current and the previous image, side by side. Each finding has a linear SVM,
cross-validated over rows shuffled with three seeds. Protocol `paper`, as released: C = 1; 5 and 10 folds, stratified but not
grouped, so that a patient's rows are in training and test. Protocol `strict`: no patient in both; scaling and C are chosen
within the training folds.

Each test pair is predicted again with its two studies swapped. Improving must then be worsening, and stable must stay stable
(TILA, 2026); `swap consistency` is the share of rows where this holds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64
from sklearn.dummy import DummyClassifier
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from medst.cohort.ms_cxr_t import APART, PROGRESSIONS
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.intervals import Statistic, Weights, accuracy, macro_accuracy, mean_of, scored
from medst.evaluate.subjects import Subject
from medst.evaluate.task import AVERAGE, STRICT, LeftOut, Outcome, Question, Score

MIRROR = np.array([2, 1, 0])
"""What each class becomes when the two studies are swapped."""
RECALL = "recall of "
"""Begins the name of a class's recall."""
SEEDS = (42, 100, 666)
FOLDS = {"paper": (5, 10), "strict": (5,)}
CHOICES_OF_C = (0.001, 0.01, 0.1, 1.0)
INNER_FOLDS = 3


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold predictions of one finding's SVM, one row per seed.

    Attributes:
        accuracy: mean accuracy of the folds, float64 (seed,).
        classes: true class of every row, int64 (row,).
        predicted: predicted class of every row, int64 (seed, row).
        swapped: the same with the two studies exchanged, int64 (seed, row); `predicted` if this was not asked for.
    """

    accuracy: np.ndarray
    classes: np.ndarray
    predicted: np.ndarray
    swapped: np.ndarray

    def statistics(self, metric: str) -> list[Statistic]:
        """A metric of all rows, one per seed."""
        if metric == "swap consistency":
            return [partial(accuracy, hit) for hit in self.swapped == MIRROR[self.predicted]]
        hits = self.predicted == self.classes
        if metric == "accuracy":
            return [partial(accuracy, hit) for hit in hits]
        if metric.startswith(RECALL):
            among = np.flatnonzero(self.classes == PROGRESSIONS.index(metric.removeprefix(RECALL)))
            return [partial(_of_rows, among, partial(accuracy, hit[among])) for hit in hits]
        return [partial(macro_accuracy, hit, self.classes) for hit in hits]

    def values(self, metric: str) -> np.ndarray:
        """The metric, float64 (seed,)."""
        if metric == "accuracy":  # as released: the mean over the folds
            return self.accuracy
        return np.array([statistic(np.ones(len(self.classes))) for statistic in self.statistics(metric)])

    def chance(self, metric: str) -> float:
        """What a guess reaches: the share of the most frequent class for the accuracy, one over the number of classes
        for macro accuracy and recall.

        Of the swap consistency, what these answers reach if each swapped pair is answered without regard to the answer to
        the pair itself: with shares p_c of the answers c and q_c of the answers to swapped pairs,

            p_improving q_worsening + p_stable q_stable + p_worsening q_improving

        as the expected agreement in Cohen's kappa; the mean over the seeds.
        """
        if metric == "accuracy":
            return float(np.bincount(self.classes).max() / len(self.classes))
        if metric != "swap consistency":
            return 1 / len(np.unique(self.classes))
        every = np.arange(len(PROGRESSIONS))[:, None]
        given = [(answers[:, None] == every).mean(-1) for answers in (self.predicted, self.swapped)]  # (seed, class)
        return float((given[0] * given[1][:, MIRROR]).sum(1).mean())


def checked_comparisons(cohort: Cohort, protocol: str) -> pl.DataFrame:
    """Return the comparisons of a cohort.

    Raises:
        MedstError: there are none, or no finding has enough of them for the smallest number of folds of the protocol.
    """
    table = cohort.require("comparisons", "temporal-image needs one made by `medst prepare ms-cxr-t`")
    folds, reasons = min(FOLDS[protocol]), []
    matched = table.filter(~pl.col("finding").str.ends_with(APART)).sort("finding")
    for (finding,), rows in matched.partition_by("finding", as_dict=True, maintain_order=True).items():
        counts = _counts(_classes(rows), rows["patient_id"].to_numpy() if protocol == "strict" else None)
        if counts.min() >= folds:
            return table
        reasons.append(f"{finding}: {_too_few(counts, folds, protocol)}")
    raise MedstError(
        f"{cohort.path}: no finding has enough rows of each progression for temporal-image ({'; '.join(reasons)})."
    )


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has comparisons."""
    return cohort.comparisons is not None


def temporal_image(subject: Subject, cohort: Cohort, question: Question = STRICT) -> Outcome:
    """Measure a subject.

    See `CrossValidated.chance` for what a guess reaches. Confusion matrices and predictions are those of 5 folds and the
    first seed. A finding is skipped for a number of folds, and listed in `left_out`, if a class has fewer rows (strict:
    patients) than folds. Findings that are new or resolved have two classes and are not part of the average.

    Raises:
        MedstError: the cohort has no comparisons, or every finding would be left out.
    """
    table, strict = checked_comparisons(cohort, question.protocol), question.protocol == "strict"
    features, swapped = features_of(subject, cohort, table, question)
    classes, patients = _classes(table), table["patient_id"].to_numpy()
    outcome, images = Outcome(classes=list(PROGRESSIONS)), table.select("current", "previous").to_numpy()
    for folds in FOLDS[question.protocol]:
        found: dict[str, tuple[CrossValidated, np.ndarray]] = {}
        for finding in table["finding"].unique().sort().to_list():
            rows = np.flatnonzero(table["finding"].to_numpy() == finding)
            x, y, x_swapped, groups = features[rows], classes[rows], swapped[rows], patients[rows]
            counts = _counts(y, groups if strict else None)
            if counts[[0, 2] if finding.endswith(APART) else [0, 1, 2]].min() < folds:
                outcome.left_out.append(LeftOut(finding, folds, _too_few(counts, folds, question.protocol)))
                continue
            if strict:
                one = cross_validate_strictly(x, x_swapped, y, groups, folds)
            else:
                one = cross_validate(x, y, folds, swapped=x_swapped)
            found[finding] = (one, groups)
            if folds == FOLDS[question.protocol][0]:
                first = one.predicted[0]
                outcome.confusion[finding] = confusion_matrix(y, first, labels=range(len(PROGRESSIONS))).tolist()
                outcome.predictions += [
                    {"finding": finding, **table.row(int(row), named=True), "predicted": PROGRESSIONS[predicted]}
                    for row, predicted in zip(rows, first, strict=True)
                ]
            outcome.images[finding, folds] = images[rows]
        if found:
            outcome.images[AVERAGE, folds] = np.concatenate([outcome.images[finding, folds] for finding in found])
        outcome.scores += _scores(found, folds, question)
    return outcome


def features_of(
    subject: Subject, cohort: Cohort, table: pl.DataFrame, question: Question
) -> tuple[Float32[np.ndarray, "row feature"], Float32[np.ndarray, "row feature"]]:
    """Compute the features of comparisons, and of the same with the two studies swapped."""
    if question.laterals is None:
        sides = [subject.images(cohort, table[name]) for name in ("current", "previous")]
    else:
        pairs = open_cohort(question.laterals)
        sides = [subject.images(pairs, frontal, laterals=lateral) for frontal, lateral in _views(cohort, table, pairs)]
    current, previous = (side.select(question.tokens) for side in sides)
    return _joined(current, previous, question.features), _joined(previous, current, question.features)


def _joined(current: np.ndarray, previous: np.ndarray, features: str) -> np.ndarray:
    parts = {
        "concat": [current, previous],
        "difference": [current - previous],
        "both": [current, previous, current - previous],
        "current": [current],
        "prior": [previous],
    }
    return np.concatenate(parts[features], axis=1)


def _views(cohort: Cohort, table: pl.DataFrame, source: Cohort) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Find the current, then the previous images in the cohort with pairs: their rows, and their laterals' rows or -1."""
    pairs = source.require("pairs", "the lateral views are those of a cohort with pairs")
    row_of = {image: row for row, image in enumerate(source.image_table["image_id"])}
    laterals = pairs.select("frontal", pl.col("lateral").cast(pl.Int64).fill_null(-1))
    lateral_of = dict(laterals.unique("frontal", keep="first").iter_rows())
    for name in ("current", "previous"):
        images = cohort.image_table["image_id"].gather(table[name]).to_list()
        missing = [image for image in images if image not in row_of]
        if missing:
            raise MedstError(
                f"{source.path} does not have {len(missing)} of the images of {cohort.path}, such as {missing[0]}; "
                "give the cohort that the comparisons were prepared from."
            )
        frontal = [row_of[image] for image in images]
        yield np.array(frontal), np.array([lateral_of.get(row, -1) for row in frontal])


def cross_validate(
    features: Float32[np.ndarray, "row feature"],
    classes: Int64[np.ndarray, " row"],
    folds: int,
    seeds: Sequence[int] = SEEDS,
    swapped: Float32[np.ndarray, "row feature"] | None = None,
) -> CrossValidated:
    """Predict every row with a linear SVM that was not fitted on it, once per seed, as released."""
    accuracies, predicted = [], np.empty((2, len(seeds), len(classes)), dtype=np.int64)
    for number, seed in enumerate(seeds):
        order = np.random.RandomState(seed).permutation(len(classes))
        x, y = features[order], classes[order]
        correct = []
        for train, test in StratifiedKFold(folds).split(x, y):
            svm = _classifier(x[train], SVC(kernel="linear", C=1)).fit(x[train], y[train])
            predicted[0, number, order[test]] = svm.predict(x[test])
            if swapped is not None:
                predicted[1, number, order[test]] = svm.predict(swapped[order[test]])
            correct.append(float((predicted[0, number, order[test]] == y[test]).mean()))
        accuracies.append(np.mean(correct))
    return CrossValidated(np.array(accuracies), classes, predicted[0], predicted[int(swapped is not None)])


def cross_validate_strictly(
    features: Float32[np.ndarray, "row feature"],
    swapped: Float32[np.ndarray, "row feature"],
    classes: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    folds: int,
    seeds: Sequence[int] = SEEDS,
) -> CrossValidated:
    """As `cross_validate`, but with all rows of a patient in one fold; scaling and C are chosen within the training folds.

    C is the value with the best macro accuracy over `INNER_FOLDS` folds of the training patients.
    """
    predicted = np.empty((2, len(seeds), len(classes)), dtype=np.int64)
    for number, seed in enumerate(seeds):
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, classes, patients)
        for train, test in splits:
            few = _counts(classes[train], patients[train]).min()
            inner = StratifiedGroupKFold(max(2, min(INNER_FOLDS, int(few))), shuffle=True, random_state=seed)
            search = GridSearchCV(
                make_pipeline(StandardScaler(), SVC(kernel="linear")),
                {"svc__C": CHOICES_OF_C},
                scoring="balanced_accuracy",
                cv=inner.split(features[train], classes[train], patients[train]),
            )
            search = _classifier(features[train], search).fit(features[train], classes[train])
            predicted[0, number, test] = search.predict(features[test])
            predicted[1, number, test] = search.predict(swapped[test])
    return CrossValidated((predicted[0] == classes).mean(1), classes, predicted[0], predicted[1])


def _classifier(features: np.ndarray, otherwise: Any) -> Any:
    """A classifier for these training rows; where all are alike, the one that gives the most frequent answer."""
    return otherwise if np.ptp(features, axis=0).any() else DummyClassifier(strategy="most_frequent")


def _scores(found: dict[str, tuple[CrossValidated, np.ndarray]], folds: int, question: Question) -> list[Score]:
    """The scores of each finding with its patients, and of their average."""
    averaged = {finding: one for finding, one in found.items() if not finding.endswith(APART)}
    if not averaged:
        return []
    scores = []
    patients = np.concatenate([own for _, own in averaged.values()])
    ends = np.cumsum([0, *(len(own) for _, own in averaged.values())])
    rows = [slice(start, end) for start, end in pairwise(ends)]
    common: dict[str, Any] = {"question": question, "folds": folds, "seeds": SEEDS}
    for metric in ("accuracy", "macro accuracy", "swap consistency"):
        chances = [one.chance(metric) for one, _ in found.values()]
        for (finding, (one, own)), chance in zip(found.items(), chances, strict=True):
            scores.append(
                scored(metric, finding, one.statistics(metric), own, chance, values=one.values(metric), **common)
            )
        # The average over the findings has its own spread over the seeds, and its own interval.
        values = np.mean([one.values(metric) for one, _ in averaged.values()], axis=0)
        by_seed = zip(*(one.statistics(metric) for one, _ in averaged.values()), strict=True)
        statistics = [mean_of([partial(_of_rows, *pair) for pair in zip(rows, seed, strict=True)]) for seed in by_seed]
        chance = float(np.mean([one.chance(metric) for one, _ in averaged.values()]))
        scores.append(scored(metric, AVERAGE, statistics, patients, chance, values=values, **common))
    if question.protocol == "strict":
        for finding, (one, own) in found.items():
            for place, metric in enumerate(RECALL + name for name in PROGRESSIONS):
                n = int((one.classes == place).sum())
                if not n:
                    continue
                scores.append(scored(metric, finding, one.statistics(metric), own, one.chance(metric), n=n, **common))
    return scores


def _of_rows(rows: slice | np.ndarray, statistic: Statistic, weights: Weights) -> float:
    return statistic(weights[rows])


def _classes(table: pl.DataFrame) -> np.ndarray:
    return np.array([PROGRESSIONS.index(progression) for progression in table["progression"]], dtype=np.int64)


def _counts(classes: np.ndarray, patients: np.ndarray | None) -> np.ndarray:
    """Number of rows of each class, or of patients with such a row."""
    every = range(len(PROGRESSIONS))
    if patients is None:
        return np.bincount(classes, minlength=len(every))
    return np.array([len(np.unique(patients[classes == one])) for one in every])


def _too_few(counts: np.ndarray, folds: int, protocol: str) -> str:
    held = ", ".join(f"{count} {name}" for name, count in zip(PROGRESSIONS, counts, strict=True))
    counted = "rows" if protocol == "paper" else "patients"
    return f"{folds} folds need {folds} {counted} of each progression, it has {held}"
