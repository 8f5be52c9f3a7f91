"""Temporal image classification on MS-CXR-T by the released protocol (paper, section 4.2).

Frozen frontal embeddings of the current and the previous image, one behind the other; per finding a linear SVM
(C = 1) with 5 and 10 folds, stratified and not shuffled, over rows that were shuffled with three seeds.

Unusual here: folds split a patient's rows over training and test, as the released code does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.features import embed_images
from medst.evaluate.task import AVERAGE, LeftOut, Outcome, Score
from medst.weights import Loaded

TASK = "temporal-image"
PROGRESSIONS = ("improving", "stable", "worsening")
"""The classes; their order is that of the confusion matrices."""
SEEDS = (42, 100, 666)
FOLDS = (5, 10)


@dataclass(frozen=True)
class CrossValidated:
    """A finding's SVM under one number of folds, a row a seed.

    Attributes:
        accuracy: mean accuracy of the folds' test rows, float64 (seed,).
        macro: mean recall of the classes over all out-of-fold predictions, float64 (seed,).
        predicted: out-of-fold class of every row in its original place, int64 (seed, row).
    """

    accuracy: np.ndarray
    macro: np.ndarray
    predicted: np.ndarray


def temporal_image(loaded: Loaded, cohort: Cohort) -> Outcome:
    """Score a model.

    `chance` of the accuracy is the share of the most frequent class, of the macro accuracy 1/3. The confusion matrices
    and predictions are those of 5 folds and the first seed. A finding of which a class has fewer rows than there are
    folds is left out of that number of folds by name.

    Raises:
        MedstError: the cohort has no comparisons, or every finding would be left out.
    """
    if cohort.comparisons is None:
        raise MedstError(
            f"{cohort.path} has no comparisons: it is a {cohort.meta['dataset']} cohort; "
            "temporal-image needs one made by `medst prepare ms-cxr-t`."
        )
    table = cohort.comparisons
    features = np.concatenate([embed_images(loaded, cohort, table[name]) for name in ("current", "previous")], axis=1)
    findings = table["finding"].unique().sort().to_list()
    progressions = table["progression"].to_numpy()
    classes = np.array([PROGRESSIONS.index(progression) for progression in progressions], dtype=np.int64)

    outcome = Outcome()
    for folds in FOLDS:
        of_finding: dict[str, tuple[CrossValidated, float, int]] = {}
        for finding in findings:
            rows = np.flatnonzero(table["finding"].to_numpy() == finding)
            counts = np.bincount(classes[rows], minlength=len(PROGRESSIONS))
            if counts.min() < folds:
                outcome.left_out.append(LeftOut(TASK, finding, folds, _too_few(counts, folds)))
                continue
            found = cross_validate(features[rows], classes[rows], folds)
            of_finding[finding] = found, float(counts.max() / counts.sum()), len(rows)
            if folds == FOLDS[0]:
                matrix = confusion_matrix(classes[rows], found.predicted[0], labels=range(len(PROGRESSIONS)))
                outcome.confusion[finding] = matrix.tolist()
                outcome.predictions += [
                    {
                        "finding": finding,
                        **table.row(int(row), named=True),
                        "predicted": PROGRESSIONS[found.predicted[0, place]],
                    }
                    for place, row in enumerate(rows)
                ]
        outcome.scores += _scores(of_finding, folds)
    if not outcome.scores:
        said = "; ".join(f"{left.finding}: {left.reason}" for left in outcome.left_out if left.folds == FOLDS[0])
        raise MedstError(f"{cohort.path}: no finding has enough rows of each progression for temporal-image ({said}).")
    return outcome


def cross_validate(
    features: Float32[np.ndarray, "row feature"],
    classes: Int64[np.ndarray, " row"],
    folds: int,
    seeds: Sequence[int] = SEEDS,
) -> CrossValidated:
    """A linear SVM's accuracy on rows that it was not fitted on, once a seed."""
    accuracy, macro, predicted = [], [], np.empty((len(seeds), len(classes)), dtype=np.int64)
    for number, seed in enumerate(seeds):
        order = np.random.RandomState(seed).permutation(len(classes))
        x, y = features[order], classes[order]
        correct = []
        for train, test in StratifiedKFold(folds).split(x, y):
            predicted[number, order[test]] = SVC(kernel="linear", C=1).fit(x[train], y[train]).predict(x[test])
            correct.append(float((predicted[number, order[test]] == y[test]).mean()))
        accuracy.append(np.mean(correct))
        hit = predicted[number] == classes
        macro.append(np.mean([hit[classes == one].mean() for one in np.unique(classes)]))
    return CrossValidated(np.array(accuracy), np.array(macro), predicted)


def _scores(of_finding: dict[str, tuple[CrossValidated, float, int]], folds: int) -> list[Score]:
    """The numbers of each finding, and their average with its own spread over the seeds."""
    scores = []
    for metric in ("accuracy", "macro accuracy"):
        rows = []
        for finding, (found, majority, n) in of_finding.items():
            values = found.accuracy if metric == "accuracy" else found.macro
            rows.append((finding, values, n, majority if metric == "accuracy" else 1 / len(PROGRESSIONS)))
        if rows:
            values = np.mean([row[1] for row in rows], axis=0)
            chance = float(np.mean([row[3] for row in rows]))
            rows.append((AVERAGE, values, sum(row[2] for row in rows), chance))
        scores += [
            Score(metric, finding, float(values.mean()), float(values.std()), n, chance, folds, SEEDS)
            for finding, values, n, chance in rows
        ]
    return scores


def _too_few(counts: np.ndarray, folds: int) -> str:
    held = ", ".join(f"{count} {name}" for name, count in zip(PROGRESSIONS, counts, strict=True))
    return f"{folds} folds need {folds} rows of each progression, it has {held}"
