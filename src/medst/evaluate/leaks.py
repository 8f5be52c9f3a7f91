"""Patients who are tested although the model learnt from them: in another split of the benchmark, or in pre-training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import find_folder
from medst.weights.model_folder import is_model
from medst.weights.trained_on import TRAINED_ON, TrainedOn, read_trained_on


def shared_patients(cohort: Cohort, splits: Sequence[str], refuse: bool) -> list[str]:
    """Name the patients of the test split who are also in one of `splits`: one sentence, or none.

    Raises:
        MedstError: there are such patients, and `refuse` is set.
    """
    table = cohort.labelled if cohort.labelled is not None else cohort.require("pairs")
    others = table.filter(pl.col("split").is_in(splits))["patient_id"]
    found = sorted(set(table.filter(split="test")["patient_id"].to_list()).intersection(others.to_list()))
    if not found:
        return []
    where = " or ".join(splits)
    sentence = f"{cohort.path.name}: {len(found)} patients of the test split are also in {where} ({_some(found)})"
    if refuse:
        raise MedstError(
            f"{sentence}; protocol strict does not measure that. Prepare the cohort with --split by-patient, or give "
            "--protocol paper."
        )
    return [f"{sentence}."]


@dataclass(frozen=True)
class Overlap:
    """Patients of a benchmark who were in a model's pre-training.

    Attributes:
        cohort: the benchmark's cohort.
        patients: number of tested patients.
        training: tested patients in the training split, sorted.
        validation: tested patients in the validation split only, which chose `best`, sorted.
        complete: False if there is no record for the checkpoint that training began with; None if there is none at all.
    """

    cohort: Cohort
    patients: int
    training: list[str]
    validation: list[str]
    complete: bool | None

    def to_json(self) -> dict[str, Any] | str:
        """The entry of `leaks` in results.json."""
        if self.complete is None:
            return "unknown"
        return {
            "patients": self.patients,
            "in_training": len(self.training),
            "in_validation": len(self.validation),
            "complete": self.complete,
        }

    def warnings(self, strict: bool) -> list[str]:
        """Sentences for the reader of the numbers; under protocol `paper` only about patients that were found."""
        sentences = []
        if self.training:
            sentences.append(
                f"the model was pre-trained on {len(self.training)} of the {self.patients} patients "
                f"({_some(self.training)})"
            )
        if self.validation:
            sentences.append(
                f"{len(self.validation)} of the {self.patients} patients were in the validation split of pre-training, "
                f"which chose the best epoch ({_some(self.validation)})"
            )
        if strict and self.complete is None:
            sentences.append(f"whether the model was pre-trained on these patients is unknown; it has no {TRAINED_ON}")
        elif strict and not self.complete:
            sentences.append("which patients the checkpoint that training began with was trained on is unknown")
        return [f"{self.cohort.path.name}: {sentence}." for sentence in sentences]

    def unseen(self) -> Cohort | None:
        """The benchmark without tested rows of patients in the training split; None if it has no such rows."""
        if not self.training:
            return None
        new = ~pl.col("patient_id").is_in(self.training)
        kept = {
            name: table.filter(new if name == "comparisons" else new | (pl.col("split") != "test"))
            for name in ("labelled", "pairs", "comparisons")
            if (table := getattr(self.cohort, name)) is not None
        }
        return replace(self.cohort, **kept)


def overlap(trained_on: TrainedOn | None, cohort: Cohort) -> Overlap | None:
    """Find the tested patients of a cohort whom a model has seen; None if the cohort names no patient."""
    tables = [table.filter(split="test") for table in (cohort.labelled, cohort.pairs) if table is not None]
    tables += [] if cohort.comparisons is None else [cohort.comparisons]
    patients = {patient for table in tables for patient in table["patient_id"].drop_nulls().to_list()}
    if not patients:
        return None
    if trained_on is None:
        return Overlap(cohort, len(patients), [], [], None)
    training = trained_on.seen(cohort.dataset, patients, "train")
    validation = trained_on.seen(cohort.dataset, patients, "valid") - training
    return Overlap(cohort, len(patients), sorted(training), sorted(validation), trained_on.complete)


def overlaps(model: Path | None, cohorts: dict[str, Cohort], refuse: bool) -> dict[str, Overlap]:
    """Find the overlap of each cohort that names patients, by data set; None is a model of which nothing is known.

    Raises:
        MedstError: with `refuse`, a patient was in pre-training, or nobody can tell.
    """
    trained_on = None if model is None else read_trained_on(find_folder(model, is_model))
    every = {dataset: overlap(trained_on, cohort) for dataset, cohort in cohorts.items()}
    found = {dataset: one for dataset, one in every.items() if one is not None}
    sentences = [sentence for one in found.values() for sentence in one.warnings(strict=True)]
    if refuse and sentences:
        raise MedstError(f"{' '.join(sentences)} --leaks warn measures nevertheless.")
    return found


def _some(patients: Sequence[str]) -> str:
    return ", ".join(patients[:3]) + (" and others" if len(patients) > 3 else "")
