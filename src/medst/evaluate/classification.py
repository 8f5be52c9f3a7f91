"""Classification data for a probe: one class of several, or several labels that may each be present or absent."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from medst.cohort.store import Cohort
from medst.errors import MedstError

FEWEST = 10
"""Positive and negative training rows that a label needs."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    Attributes:
        image: rows of the cohort's images, int64 (row,).
        target: class numbers, int64 (row,); or labels as 1, 0 and NaN (uncertain, not counted), float32 (row, label).
        patient: patient of each row.
    """

    image: np.ndarray
    target: np.ndarray
    patient: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Split":
        return Split(self.image[rows], self.target[rows], self.patient[rows])

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Classification:
    """A cohort's three splits and the names of its classes or labels.

    Attributes:
        names: the classes or labels.
        several: whether an image can have several of them.
        splits: rows by split.
        left_out: labels with too few rows, and why.
    """

    names: list[str]
    several: bool
    splits: dict[str, Split]
    left_out: dict[str, str]


def read_classification(cohort: Cohort) -> Classification:
    """Read the classes of a benchmark cohort, or the CheXpert labels of the frontal images of a cohort with pairs.

    A label that is not mentioned counts as absent; an uncertain one does not count.

    Raises:
        MedstError: there are none, or a split or a class is missing.
    """
    found = _classes(cohort) if cohort.labelled is not None else _labels(cohort)
    for name, split in found.splits.items():
        if not len(split):
            raise MedstError(f"{cohort.path}: split '{name}' is empty; a probe needs train, valid and test.")
        if not found.several and name != "valid":
            missing = sorted(set(range(len(found.names))) - set(split.target.tolist()))
            if missing:
                names = ", ".join(found.names[i] for i in missing)
                raise MedstError(f"{cohort.path}: split '{name}' has no {names}; a probe can't be measured.")
    return found


def _classes(cohort: Cohort) -> Classification:
    splits = {}
    for name in SPLITS:
        table = cohort.require("labelled").filter(split=name)
        target = table["label"].cast(pl.Int64).to_numpy(writable=True)  # a tensor will share its memory
        splits[name] = Split(table["image"].to_numpy(), target, table["patient_id"].to_numpy())
    return Classification(cohort.classes, False, splits, {})


def _labels(cohort: Cohort) -> Classification:
    if cohort.pairs is None or cohort.pairs["labels"].null_count() == cohort.pairs.height:
        raise MedstError(
            f"{cohort.path} has no labels: it is a {cohort.dataset} cohort; a probe needs rsna, covidx, or a cohort "
            "with pairs and CheXpert labels."
        )
    table = cohort.pairs.filter(pl.col("labels").is_not_null())
    labels = table["labels"].struct.unnest()
    target = labels.fill_null(0.0).to_numpy().astype(np.float32)
    target[target < 0] = np.nan
    split, kept, left_out = table["split"].to_numpy(), [], {}
    for place, name in enumerate(labels.columns):
        train, test = (
            [int((target[split == part, place] == value).sum()) for value in (1, 0)] for part in ("train", "test")
        )
        if min(train) >= FEWEST and min(test) >= 1:
            kept.append(place)
        else:
            left_out[name] = (
                f"{train[0]} positive and {train[1]} negative rows to learn from, {test[0]} and {test[1]} to test; "
                f"a probe needs {FEWEST} of each to learn from and 1 of each to test"
            )
    if not kept:
        raise MedstError(f"{cohort.path}: no CheXpert label has {FEWEST} positive and negative rows to learn from.")
    image, patient = table["frontal"].cast(pl.Int64).to_numpy(), table["patient_id"].to_numpy()
    splits = {
        name: Split(image[rows], target[rows][:, kept], patient[rows]) for name in SPLITS for rows in [split == name]
    }
    return Classification([labels.columns[place] for place in kept], True, splits, left_out)
