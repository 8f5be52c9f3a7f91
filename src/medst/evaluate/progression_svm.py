"""Classifiers of progression: linear SVMs on features of two studies, and what their answers say.

Protocol `paper`, as released: C = 1; folds through rows, so that a patient's rows are in training and test. Protocol
`strict`: no patient in both; scaling and C are chosen within the training folds.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from medst.cohort.ms_cxr_t import PROGRESSIONS
from medst.evaluate.intervals import Statistic, Weights, accuracy, macro_accuracy

MIRROR = np.array([2, 1, 0])
"""What each class becomes when the two studies are swapped."""
RECALL = "recall of "
"""Begins the name of a class's recall."""
SEEDS = (42, 100, 666)
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
            return [partial(of_rows, among, partial(accuracy, hit[among])) for hit in hits]
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
            search = chosen_svm(features[train], classes[train], patients[train], seed)
            predicted[0, number, test] = search.predict(features[test])
            predicted[1, number, test] = search.predict(swapped[test])
    return CrossValidated((predicted[0] == classes).mean(1), classes, predicted[0], predicted[1])


def chosen_svm(features: np.ndarray, classes: np.ndarray, patients: np.ndarray, seed: int) -> Any:
    """A fitted classifier whose scaling and C come from folds of these rows' patients alone."""
    counts = counts_of(classes, patients)
    few = counts[counts > 0].min()
    inner = StratifiedGroupKFold(max(2, min(INNER_FOLDS, int(few))), shuffle=True, random_state=seed)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC(kernel="linear")),
        {"svc__C": CHOICES_OF_C},
        scoring="balanced_accuracy",
        cv=inner.split(features, classes, patients),
    )
    with warnings.catch_warnings():
        # A fold may lack a class; the macro accuracy is then that of the others.
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        return _classifier(features, search).fit(features, classes)


def _classifier(features: np.ndarray, otherwise: Any) -> Any:
    """A classifier for these training rows; where all are alike, the one that gives the most frequent answer."""
    return otherwise if np.ptp(features, axis=0).any() else DummyClassifier(strategy="most_frequent")


def of_rows(rows: slice | np.ndarray, statistic: Statistic, weights: Weights) -> float:
    return statistic(weights[rows])


def counts_of(classes: np.ndarray, patients: np.ndarray | None) -> np.ndarray:
    """Number of rows of each class, or of patients with such a row."""
    every = range(len(PROGRESSIONS))
    if patients is None:
        return np.bincount(classes, minlength=len(every))
    return np.array([len(np.unique(patients[classes == one])) for one in every])
