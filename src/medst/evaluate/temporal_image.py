"""Temporal image classification on MS-CXR-T (paper, section 4.2): has a finding improved, stayed or worsened?

Features are the frozen embeddings of the current and the previous image, side by side. Each finding has a linear SVM,
cross-validated with three seeds: in 5 and 10 folds through rows under `paper`, in 5 through patients under `strict`.
Under `transfer` it learns from another cohort and is tested on all rows of this one.

Each test pair is predicted again with its two studies swapped. Improving must then be worsening, and stable must stay stable
(TILA, 2026); `swap consistency` is the share of rows where this holds.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32
from sklearn.metrics import confusion_matrix

from medst.cohort.ms_cxr_t import APART, PROGRESSIONS
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.embeddings import Embeddings
from medst.evaluate.intervals import mean_of, scored
from medst.evaluate.progression_svm import (
    RECALL,
    SEEDS,
    CrossValidated,
    chosen_svm,
    counts_of,
    cross_validate,
    cross_validate_strictly,
    of_rows,
)
from medst.evaluate.subjects import Subject
from medst.evaluate.task import AVERAGE, STRICT, LeftOut, Outcome, Question, Score

MAIN_METRICS, SWAP = ("accuracy", "macro accuracy"), "swap consistency"
FOLDS = {"paper": (5, 10), "strict": (5,), "transfer": (5,)}
"""Of the cross-validation; protocol transfer has none, and needs as many patients of each progression to learn from."""


def checked_comparisons(cohort: Cohort, protocol: str) -> pl.DataFrame:
    """Return the comparisons of a cohort.

    Raises:
        MedstError: there are none, or no finding has enough of them for the smallest number of folds of the protocol.
    """
    table = cohort.require("comparisons", "temporal-image needs one made by `medst prepare ms-cxr-t`")
    folds, reasons = min(FOLDS[protocol]), []
    matched = table.filter(~pl.col("finding").str.ends_with(APART)).sort("finding")
    for (finding,), rows in matched.partition_by("finding", as_dict=True, maintain_order=True).items():
        counts = counts_of(_classes(rows), rows["patient_id"].to_numpy() if protocol != "paper" else None)
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
    metrics = MAIN_METRICS if isinstance(swapped, str) else (*MAIN_METRICS, SWAP)
    if isinstance(swapped, str):
        outcome.left_out.append(LeftOut(SWAP, 0, swapped))
        swapped = features  # what is predicted of these is not reported
    learnt = _Learnt(subject, cohort, question) if question.protocol == "transfer" else None
    for folds in (None,) if learnt else FOLDS[question.protocol]:
        found: dict[str, tuple[CrossValidated, np.ndarray]] = {}
        for finding in table["finding"].unique().sort().to_list():
            rows = np.flatnonzero(table["finding"].to_numpy() == finding)
            x, y, x_swapped, groups = features[rows], classes[rows], swapped[rows], patients[rows]
            lacking = learnt.lacking(finding) if learnt else _lacking(finding, y, groups, folds or 0, strict)
            if lacking:
                outcome.left_out.append(LeftOut(finding, folds or 0, lacking))
                continue
            if learnt:
                one = learnt.predict(finding, x, x_swapped, y)
            elif strict:
                one = cross_validate_strictly(x, x_swapped, y, groups, folds or 0)
            else:
                one = cross_validate(x, y, folds or 0, swapped=x_swapped)
            found[finding] = (one, groups)
            if folds in (None, FOLDS[question.protocol][0]):
                first = one.predicted[0]
                outcome.confusion[finding] = confusion_matrix(y, first, labels=range(len(PROGRESSIONS))).tolist()
                outcome.predictions += [
                    {"finding": finding, **table.row(int(row), named=True), "predicted": PROGRESSIONS[predicted]}
                    for row, predicted in zip(rows, first, strict=True)
                ]
            outcome.images[finding, folds] = images[rows]
        if found:
            averaged = [finding for finding in found if not finding.endswith(APART)]
            outcome.images[AVERAGE, folds] = np.concatenate([outcome.images[finding, folds] for finding in averaged])
        outcome.scores += progression_scores(found, folds, question, metrics=metrics)
    if learnt:
        outcome.warnings += learnt.warnings
        if not outcome.scores:
            raise MedstError(
                f"{cohort.path}: no finding can be learnt from --learn-from ({outcome.left_out[0].reason})."
            )
    return outcome


def _lacking(finding: str, classes: np.ndarray, patients: np.ndarray, needed: int, strict: bool) -> str:
    """Why a finding has too few rows, or patients, of a progression; empty if it has enough."""
    counts = counts_of(classes, patients if strict else None)
    enough = counts[[0, 2] if finding.endswith(APART) else [0, 1, 2]].min() >= needed
    return "" if enough else _too_few(counts, needed, "strict" if strict else "paper")


class _Learnt:
    """Classifiers of protocol transfer, learnt from the comparisons of another cohort without the tested patients."""

    def __init__(self, subject: Subject, tested: Cohort, question: Question) -> None:
        assert question.learn_from is not None
        source = open_cohort(question.learn_from)
        table = checked_comparisons(source, "strict")
        tested_patients = tested.require("comparisons")["patient_id"].unique().to_list()
        shared = pl.col("patient_id").is_in(tested_patients)
        patients = table.filter(shared)["patient_id"].n_unique()
        note = f"--learn-from: {patients} patients are in the tested cohort too; nothing is learnt from them."
        self.warnings = [note] if patients else []
        self.table = table.filter(~shared)
        if self.table.is_empty():
            raise MedstError(
                f"{source.path}: all its patients are in the tested cohort, so nothing can be learnt from it."
            )
        self.features = features_of(subject, source, self.table, question)[0]

    def _rows(self, finding: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.table["finding"].to_numpy() == finding)
        own = self.table[rows.tolist()]
        return rows, _classes(own), own["patient_id"].to_numpy()

    def lacking(self, finding: str) -> str:
        """Why it can't be learnt; empty if it can."""
        _, classes, patients = self._rows(finding)
        reason = _lacking(finding, classes, patients, FOLDS["transfer"][0], strict=True)
        return f"--learn-from: {reason}" if reason else ""

    def predict(self, finding: str, features: np.ndarray, swapped: np.ndarray, classes: np.ndarray) -> CrossValidated:
        """Predict all rows of the tested cohort, once per seed, which shuffles the folds that choose C."""
        rows, known, patients = self._rows(finding)
        predicted = np.empty((2, len(SEEDS), len(classes)), dtype=np.int64)
        for number, seed in enumerate(SEEDS):
            search = chosen_svm(self.features[rows], known, patients, seed)
            predicted[0, number], predicted[1, number] = search.predict(features), search.predict(swapped)
        return CrossValidated((predicted[0] == classes).mean(1), classes, predicted[0], predicted[1])


def features_of(
    subject: Subject, cohort: Cohort, table: pl.DataFrame, question: Question
) -> tuple[Float32[np.ndarray, "row feature"], Float32[np.ndarray, "row feature"] | str]:
    """Compute the features of comparisons, and of the same with the two studies swapped, or why there are none."""
    if isinstance(subject, Embeddings) and subject.pairs.place and question.features == "concat":
        return subject.comparisons(cohort, table["current"], table["previous"])
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


def progression_scores(
    found: dict[str, tuple[CrossValidated, np.ndarray]],
    folds: int | None,
    question: Question,
    seeds: Sequence[int] = SEEDS,
    metrics: Sequence[str] = (*MAIN_METRICS, SWAP),
) -> list[Score]:
    """The scores of each finding with its patients, and of their average.

    Args:
        found: the predictions, one row per seed, and the patient of each row.
        folds: of the cross-validation; None if there is none.
        question: how they were measured; protocol `paper` has no recalls.
        seeds: those of the predictions.
        metrics: which; with the accuracy come the recalls.
    """
    averaged = {finding: one for finding, one in found.items() if not finding.endswith(APART)}
    if not averaged:
        return []
    scores = []
    patients = np.concatenate([own for _, own in averaged.values()])
    ends = np.cumsum([0, *(len(own) for _, own in averaged.values())])
    rows = [slice(start, end) for start, end in pairwise(ends)]
    common: dict[str, Any] = {"question": question, "folds": folds, "seeds": seeds}
    for metric in metrics:
        chances = [one.chance(metric) for one, _ in found.values()]
        for (finding, (one, own)), chance in zip(found.items(), chances, strict=True):
            scores.append(
                scored(metric, finding, one.statistics(metric), own, chance, values=one.values(metric), **common)
            )
        # The average over the findings has its own spread over the seeds, and its own interval.
        values = np.mean([one.values(metric) for one, _ in averaged.values()], axis=0)
        by_seed = zip(*(one.statistics(metric) for one, _ in averaged.values()), strict=True)
        statistics = [mean_of([partial(of_rows, *pair) for pair in zip(rows, seed, strict=True)]) for seed in by_seed]
        chance = float(np.mean([one.chance(metric) for one, _ in averaged.values()]))
        scores.append(scored(metric, AVERAGE, statistics, patients, chance, values=values, **common))
    if question.protocol != "paper" and "accuracy" in metrics:
        for finding, (one, own) in found.items():
            for place, metric in enumerate(RECALL + name for name in PROGRESSIONS):
                n = int((one.classes == place).sum())
                if not n:
                    continue
                scores.append(scored(metric, finding, one.statistics(metric), own, one.chance(metric), n=n, **common))
    return scores


def _classes(table: pl.DataFrame) -> np.ndarray:
    return np.array([PROGRESSIONS.index(progression) for progression in table["progression"]], dtype=np.int64)


def _too_few(counts: np.ndarray, folds: int, protocol: str) -> str:
    held = ", ".join(f"{count} {name}" for name, count in zip(PROGRESSIONS, counts, strict=True))
    counted = "rows" if protocol == "paper" else "patients"
    return f"{folds} folds need {folds} {counted} of each progression, it has {held}"
