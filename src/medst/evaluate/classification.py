"""Classification rows of a cohort for a probe: one class of several, or several labels that may each be there or not."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from medst.cohort.store import Cohort
from medst.errors import MedstError

FEWEST = 10
"""Positive and negative training rows below which a label is left out."""


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    Attributes:
        image: rows of the cohort's images, int64 (row,).
        target: class numbers, int64 (row,); or 1, 0 and nan (uncertain, not counted) a label, float32 (row, label).
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
    """A cohort's three splits and the names of its classes or labels."""

    names: list[str]
    several: bool
    splits: dict[str, Split]
    left_out: dict[str, str]


def read_classification(cohort: Cohort) -> Classification:
    """Labels of a benchmark cohort (classes) or of one with pairs (CheXpert labels of the frontal images).

    A label that is not mentioned counts as absent, an uncertain one is not counted.

    Raises:
        MedstError: there are none, or a split or a class is missing.
    """
    found = _classes(cohort) if cohort.labelled is not None else _several(cohort)
    for name in ("train", "valid", "test"):
        if not len(found.splits[name]):
            raise MedstError(f"{cohort.path}: split '{name}' is empty; a probe needs train, valid and test.")
        if not found.several:
            missing = sorted(set(range(len(found.names))) - set(found.splits[name].target.tolist()))
            if missing and name != "valid":
                said = ", ".join(found.names[i] for i in missing)
                raise MedstError(f"{cohort.path}: split '{name}' has no {said}; a probe can't be measured.")
    return found


def _classes(cohort: Cohort) -> Classification:
    assert cohort.labelled is not None
    splits = {}
    for name in ("train", "valid", "test"):
        table = cohort.labelled.filter(split=name)
        target = table["label"].cast(pl.Int64).to_numpy(writable=True)  # a tensor will share its memory
        splits[name] = Split(table["image"].to_numpy(), target, table["patient_id"].to_numpy())
    return Classification([str(name) for name in cohort.meta["classes"]], False, splits, {})


def _several(cohort: Cohort) -> Classification:
    if cohort.pairs is None or cohort.pairs["labels"].null_count() == cohort.pairs.height:
        raise MedstError(
            f"{cohort.path} has no labels: it is a {cohort.meta['dataset']} cohort; a probe needs rsna, covidx, or a cohort "
            "with pairs and CheXpert labels."
        )
    table = cohort.pairs.filter(pl.col("labels").is_not_null())
    values = table.select("split", "frontal", "patient_id", "labels").unnest("labels")
    every = [name for name in values.columns if name not in ("split", "frontal", "patient_id")]
    target = values.select(pl.col(every).fill_null(0.0)).to_numpy().astype(np.float32)
    target = np.where(target < 0, np.nan, target)
    split = values["split"].to_numpy()
    kept, left_out = [], {}
    for place, name in enumerate(every):
        column = target[:, place]
        counts = [int((column[split == part] == value).sum()) for part in ("train", "test") for value in (1.0, 0.0)]
        if min(counts[:2]) < FEWEST or min(counts[2:]) < 1:
            left_out[name] = (
                f"{counts[0]} positive and {counts[1]} negative rows to learn from, {counts[2]} and {counts[3]} to test; "
                f"{FEWEST} of each would do to learn from, 1 of each to test"
            )
        else:
            kept.append(place)
    if not kept:
        raise MedstError(f"{cohort.path}: no CheXpert label has {FEWEST} positive and negative rows to learn from.")
    splits = {
        name: Split(
            values.filter(split=name)["frontal"].cast(pl.Int64).to_numpy(),
            target[split == name][:, kept],
            values.filter(split=name)["patient_id"].to_numpy(),
        )
        for name in ("train", "valid", "test")
    }
    return Classification([every[place] for place in kept], True, splits, left_out)
