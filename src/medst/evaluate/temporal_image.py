"""Temporal image classification on MS-CXR-T (paper, section 4.2): has a finding improved, stayed or worsened?

Frozen embeddings of the current and the previous image, one behind the other; per finding a linear SVM, cross-validated over
rows that were shuffled with three seeds. Protocol `paper`: C = 1, 5 and 10 folds, stratified and not shuffled, which split a
patient's rows over training and test, as the released code does. Protocol `strict`: no patient in training and test, scaling
and C chosen within the training folds, intervals by a bootstrap over patients.

Unusual here: what is learnt is also asked about every test pair with its two studies swapped. Improving must then be
worsening, and stable stay stable (TILA, 2026); `swap consistency` is the share of rows of which that is true.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from medst.cohort.store import Cohort, open_cohort
from medst.encode import image_features
from medst.errors import MedstError
from medst.evaluate.intervals import accuracy, bootstrap, macro_accuracy, mean_of
from medst.evaluate.task import AVERAGE, PAPER, LeftOut, Outcome, Question, Score
from medst.use import Model

PROGRESSIONS = ("improving", "stable", "worsening")
"""The classes; their order is that of the confusion matrices."""
MIRROR = np.array([2, 1, 0])
"""What each class becomes when the two studies are swapped."""
SEEDS = (42, 100, 666)
FOLDS = {"paper": (5, 10), "strict": (5,)}
CHOICES_OF_C = (0.001, 0.01, 0.1, 1.0)
INNER_FOLDS = 3


@dataclass(frozen=True)
class CrossValidated:
    """A finding's SVM under one number of folds, a row a seed.

    Attributes:
        accuracy: mean accuracy of the folds' test rows, float64 (seed,).
        macro: mean recall of the classes over all out-of-fold predictions, float64 (seed,).
        predicted: out-of-fold class of every row in its original place, int64 (seed, row).
        swapped: the same with the two studies exchanged, int64 (seed, row); `predicted` where that was not asked.
    """

    accuracy: np.ndarray
    macro: np.ndarray
    predicted: np.ndarray
    swapped: np.ndarray


def checked_comparisons(cohort: Cohort, protocol: str) -> pl.DataFrame:
    """The comparisons of a cohort.

    Raises:
        MedstError: there are none, or no finding has enough of them for the fewest folds of the protocol.
    """
    table = cohort.comparisons
    if table is None:
        raise MedstError(
            f"{cohort.path} has no comparisons: it is a {cohort.meta['dataset']} cohort; "
            "temporal-image needs one made by `medst prepare ms-cxr-t`."
        )
    folds, said = min(FOLDS[protocol]), []
    for (finding,), rows in table.sort("finding").partition_by("finding", as_dict=True, maintain_order=True).items():
        classes = np.array([PROGRESSIONS.index(progression) for progression in rows["progression"]], dtype=np.int64)
        counts = _counts(classes, rows["patient_id"].to_numpy() if protocol == "strict" else None)
        if counts.min() >= folds:
            return table
        said.append(f"{finding}: {_too_few(counts, folds, protocol)}")
    raise MedstError(
        f"{cohort.path}: no finding has enough rows of each progression for temporal-image ({'; '.join(said)})."
    )


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has comparisons."""
    return cohort.comparisons is not None


def temporal_image(loaded: Model, cohort: Cohort, question: Question = PAPER) -> Outcome:
    """Score a model.

    `chance` of the accuracy is the share of the most frequent class, of the macro accuracy and a class's recall 1/3. The
    confusion matrices and predictions are those of 5 folds and the first seed. A finding of which a class has fewer rows
    (strict: patients) than there are folds is left out of that number of folds by name.

    Raises:
        MedstError: the cohort has no comparisons, or every finding would be left out.
    """
    table = checked_comparisons(cohort, question.protocol)
    features, swapped = features_of(loaded, cohort, table, question)
    progressions = table["progression"].to_numpy()
    classes = np.array([PROGRESSIONS.index(progression) for progression in progressions], dtype=np.int64)
    patients = table["patient_id"].to_numpy()

    outcome = Outcome(classes=list(PROGRESSIONS))
    every = FOLDS[question.protocol]
    for folds in every:
        of_finding: dict[str, _Measured] = {}
        for finding in table["finding"].unique().sort().to_list():
            rows = np.flatnonzero(table["finding"].to_numpy() == finding)
            counts = _counts(classes[rows], patients[rows] if question.protocol == "strict" else None)
            if counts.min() < folds:
                outcome.left_out.append(LeftOut(finding, folds, _too_few(counts, folds, question.protocol)))
                continue
            if question.protocol == "strict":
                found = cross_validate_strictly(features[rows], swapped[rows], classes[rows], patients[rows], folds)
            else:
                found = cross_validate(features[rows], classes[rows], folds, swapped=swapped[rows])
            of_finding[finding] = _Measured(found, classes[rows], patients[rows])
            if folds == every[0]:
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
        outcome.scores += _scores(of_finding, folds, question)
    return outcome


def features_of(
    loaded: Model, cohort: Cohort, table: pl.DataFrame, question: Question
) -> tuple[Float32[np.ndarray, "row feature"], Float32[np.ndarray, "row feature"]]:
    """Features of comparisons, and of the same with the two studies swapped."""
    chosen: dict[str, Any] = {"precision": question.precision, "cache": question.cache}
    if question.laterals is None:
        sides = [image_features(loaded, cohort, table[name], **chosen) for name in ("current", "previous")]
    else:
        pairs, views = open_cohort(question.laterals), _views(cohort, table, question)
        sides = [image_features(loaded, pairs, frontal, laterals=lateral, **chosen) for frontal, lateral in views]
    current, previous = (side.select(question.tokens) for side in sides)
    return _joined(current, previous, question.features), _joined(previous, current, question.features)


def _joined(current: np.ndarray, previous: np.ndarray, features: str) -> np.ndarray:
    parts = {
        "concat": [current, previous],
        "difference": [current - previous],
        "both": [current, previous, current - previous],
    }
    return np.concatenate(parts[features], axis=1)


def _views(cohort: Cohort, table: pl.DataFrame, question: Question) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For the current and the previous images: their rows in the cohort with pairs, and their laterals' rows or -1."""
    assert question.laterals is not None
    source = open_cohort(question.laterals)
    if source.pairs is None:
        raise MedstError(f"{question.laterals} has no pairs, so it knows no laterals; give a cohort to train on.")
    known = source.image_table.with_row_index("there").select("image_id", "there")
    beside = source.pairs.select(there=pl.col("frontal"), lateral="lateral").unique("there", keep="first")
    for name in ("current", "previous"):
        ids = cohort.image_table["image_id"].gather(table[name])
        found = ids.to_frame("image_id").join(known, on="image_id", how="left", maintain_order="left")
        missing = found.filter(pl.col("there").is_null())["image_id"]
        if len(missing):
            raise MedstError(
                f"{question.laterals} does not have {len(missing)} of the images of {cohort.path}, such as {missing[0]}; "
                "give the cohort that the comparisons were prepared from."
            )
        places = found.with_columns(pl.col("there").cast(pl.Int64))
        joined = places.join(
            beside.with_columns(pl.col("there").cast(pl.Int64)), on="there", how="left", maintain_order="left"
        )
        yield joined["there"].to_numpy(), joined["lateral"].cast(pl.Int64).fill_null(-1).to_numpy()


def cross_validate(
    features: Float32[np.ndarray, "row feature"],
    classes: Int64[np.ndarray, " row"],
    folds: int,
    seeds: Sequence[int] = SEEDS,
    swapped: Float32[np.ndarray, "row feature"] | None = None,
) -> CrossValidated:
    """A linear SVM's predictions of rows that it was not fitted on, once a seed, as released."""
    accuracies, predicted = [], np.empty((2, len(seeds), len(classes)), dtype=np.int64)
    for number, seed in enumerate(seeds):
        order = np.random.RandomState(seed).permutation(len(classes))
        x, y = features[order], classes[order]
        correct = []
        for train, test in StratifiedKFold(folds).split(x, y):
            svm = SVC(kernel="linear", C=1).fit(x[train], y[train])
            predicted[0, number, order[test]] = svm.predict(x[test])
            if swapped is not None:
                predicted[1, number, order[test]] = svm.predict(swapped[order[test]])
            correct.append(float((predicted[0, number, order[test]] == y[test]).mean()))
        accuracies.append(np.mean(correct))
    return _gathered(np.array(accuracies), predicted[0], predicted[0] if swapped is None else predicted[1], classes)


def cross_validate_strictly(
    features: Float32[np.ndarray, "row feature"],
    swapped: Float32[np.ndarray, "row feature"],
    classes: Int64[np.ndarray, " row"],
    patients: np.ndarray,
    folds: int,
    seeds: Sequence[int] = SEEDS,
) -> CrossValidated:
    """The same with a patient's rows in one fold, features scaled and C chosen within the training folds.

    C is the one with the best macro accuracy over `INNER_FOLDS` folds of the training patients.
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
            ).fit(features[train], classes[train])
            predicted[0, number, test] = search.predict(features[test])
            predicted[1, number, test] = search.predict(swapped[test])
    return _gathered((predicted[0] == classes).mean(1), predicted[0], predicted[1], classes)


def _gathered(
    accuracies: np.ndarray, predicted: np.ndarray, swapped: np.ndarray, classes: np.ndarray
) -> CrossValidated:
    even = np.ones(len(classes))
    macro = np.array([macro_accuracy(row == classes, classes, even) for row in predicted])
    return CrossValidated(accuracies, macro, predicted, swapped)


@dataclass(frozen=True)
class _Measured:
    found: CrossValidated
    classes: np.ndarray
    patients: np.ndarray

    @property
    def majority(self) -> float:
        counts = np.bincount(self.classes)
        return float(counts.max() / counts.sum())

    def values(self, metric: str) -> np.ndarray:
        """A number a seed."""
        if metric == "accuracy":
            return self.found.accuracy
        if metric == "macro accuracy":
            return self.found.macro
        return np.mean(self.hits(metric), axis=1)

    def hits(self, metric: str) -> np.ndarray:
        """(seed, row): where the metric counts one."""
        if metric == "swap consistency":
            return self.found.swapped == MIRROR[self.found.predicted]
        return self.found.predicted == self.classes

    def weighted(self, metric: str, weights: np.ndarray) -> float:
        """The mean over the seeds with weighted rows."""
        if metric == "macro accuracy":
            return float(np.mean([macro_accuracy(hit, self.classes, weights) for hit in self.hits(metric)]))
        return float(np.mean([accuracy(hit, weights) for hit in self.hits(metric)])) if weights.any() else np.nan


def _scores(of_finding: dict[str, _Measured], folds: int, question: Question) -> list[Score]:
    """The numbers of each finding, and their average with its own spread over the seeds."""
    if not of_finding:
        return []
    scores = []
    patients = np.concatenate([measured.patients for measured in of_finding.values()])
    ends = np.cumsum([0, *(len(measured.classes) for measured in of_finding.values())])
    third = 1 / len(PROGRESSIONS)
    for metric in ("accuracy", "macro accuracy", "swap consistency"):
        rows, statistics = [], []
        for place, (finding, measured) in enumerate(of_finding.items()):
            chance = measured.majority if metric == "accuracy" else third
            own = slice(ends[place], ends[place + 1])
            statistics.append(partial(_part, measured, metric, own))
            spread = bootstrap(partial(measured.weighted, metric), measured.patients) if question.intervals else None
            rows.append((finding, measured.values(metric), len(measured.classes), chance, spread))
        values, chance = np.mean([row[1] for row in rows], axis=0), float(np.mean([row[3] for row in rows]))
        spread = bootstrap(mean_of(statistics), patients) if question.intervals else None
        rows.append((AVERAGE, values, sum(row[2] for row in rows), chance, spread))
        scores += [
            Score(metric, finding, float(values.mean()), float(values.std()), n, chance, folds, SEEDS, spread)
            for finding, values, n, chance, spread in rows
        ]
    if question.protocol == "strict":
        scores += [
            Score(
                f"recall of {name}",
                finding,
                float(hit.mean()),
                float(hit.mean(1).std()),
                hit.shape[1],
                third,
                folds,
                SEEDS,
            )
            for finding, measured in of_finding.items()
            for one, name in enumerate(PROGRESSIONS)
            for hit in [measured.hits("accuracy")[:, measured.classes == one]]
        ]
    return scores


def _part(measured: _Measured, metric: str, own: slice, weights: np.ndarray) -> float:
    return measured.weighted(metric, weights[own])


def _counts(classes: np.ndarray, patients: np.ndarray | None) -> np.ndarray:
    """Rows of each class, or patients with such a row."""
    every = range(len(PROGRESSIONS))
    if patients is None:
        return np.bincount(classes, minlength=len(every))
    return np.array([len(np.unique(patients[classes == one])) for one in every])


def _too_few(counts: np.ndarray, folds: int, protocol: str) -> str:
    held = ", ".join(f"{count} {name}" for name, count in zip(PROGRESSIONS, counts, strict=True))
    what = "rows" if protocol == "paper" else "patients"
    return f"{folds} folds need {folds} {what} of each progression, it has {held}"
