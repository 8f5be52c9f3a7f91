"""Patients who are tested and were learnt or chosen from: in another split of the benchmark, or in pre-training."""

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


def leaking(cohort: Cohort, splits: Sequence[str]) -> list[str]:
    """Patients of the test split who are also in one of `splits`, sorted."""
    table = cohort.labelled if cohort.labelled is not None else cohort.pairs
    if table is None:
        return []
    tested = table.filter(split="test")["patient_id"]
    learnt = table.filter(pl.col("split").is_in(list(splits)))["patient_id"]
    return sorted(set(tested.to_list()) & set(learnt.to_list()))


def say_leaks(cohort: Cohort, splits: Sequence[str], refuse: bool) -> list[str]:
    """A sentence that names patients in both, or none.

    Raises:
        MedstError: there are such patients, and `refuse` is set.
    """
    found = leaking(cohort, splits)
    if not found:
        return []
    where = " or ".join(splits)
    sentence = f"{cohort.path.name}: {len(found)} patients of the test split are also in {where} ({_some(found)})"
    if refuse:
        raise MedstError(
            f"{sentence}; protocol strict does not measure that. Prepare the cohort with --split by-patient, or take "
            "--protocol paper."
        )
    return [sentence + "."]


@dataclass(frozen=True)
class Overlap:
    """Patients of a benchmark who were in a model's pre-training.

    Attributes:
        cohort: the benchmark's.
        patients: how many it tests.
        training: those of them in the training split, sorted.
        validation: those of them in the validation split alone, which chose `best`, sorted.
        known: False where nobody noted the patients of the model.
        complete: False where nobody noted those of the checkpoint that training began with.
    """

    cohort: Cohort
    patients: int
    training: list[str]
    validation: list[str]
    known: bool
    complete: bool

    def written(self) -> dict[str, Any] | str:
        """As it stands in results.json."""
        if not self.known:
            return "unknown"
        return {
            "patients": self.patients,
            "in_training": len(self.training),
            "in_validation": len(self.validation),
            "complete": self.complete,
        }

    def sentences(self, strict: bool) -> list[str]:
        """What a reader of the numbers must know; under protocol `paper`, only what was found."""
        name, said = self.cohort.path.name, []
        if self.training:
            said.append(
                f"{name}: the model was pre-trained on {len(self.training)} of the {self.patients} patients "
                f"({_some(self.training)})."
            )
        if self.validation:
            said.append(
                f"{name}: {len(self.validation)} of the {self.patients} patients were in the validation split of "
                f"pre-training, which chose the best epoch ({_some(self.validation)})."
            )
        if strict and not self.known:
            said.append(
                f"{name}: whether the model was pre-trained on these patients is unknown; it has no {TRAINED_ON}."
            )
        elif strict and not self.complete:
            said.append(f"{name}: which patients the checkpoint that training began with was trained on is unknown.")
        return said

    def unseen(self) -> Cohort | None:
        """The benchmark without the tested rows of patients in the training split; None if there are none to leave out."""
        if not self.training:
            return None
        new, cohort = ~pl.col("patient_id").is_in(self.training), self.cohort
        kept = {
            name: table.filter(new | (pl.col("split") != "test"))
            for name in ("labelled", "pairs")
            if (table := getattr(cohort, name)) is not None
        }
        if cohort.comparisons is not None:
            kept["comparisons"] = cohort.comparisons.filter(new)
        return replace(cohort, **kept)


def overlap(trained_on: TrainedOn | None, cohort: Cohort) -> Overlap | None:
    """The tested patients of a cohort whom a model has seen; None if the cohort names no patient."""
    tables = [] if cohort.comparisons is None else [cohort.comparisons]
    tables += [table.filter(split="test") for table in (cohort.labelled, cohort.pairs) if table is not None]
    patients = {patient for table in tables for patient in table["patient_id"].drop_nulls().to_list()}
    if not patients:
        return None
    if trained_on is None:
        return Overlap(cohort, len(patients), [], [], known=False, complete=False)
    dataset = str(cohort.meta["dataset"])
    training = trained_on.seen(dataset, patients, "train")
    validation = trained_on.seen(dataset, patients, "valid") - training
    return Overlap(cohort, len(patients), sorted(training), sorted(validation), True, trained_on.complete)


def overlaps(model: Path, cohorts: dict[str, Cohort], refuse: bool) -> dict[str, Overlap]:
    """The overlap of each cohort that names patients, by data set.

    Raises:
        MedstError: with `refuse`, a patient was in pre-training, or nobody can tell.
    """
    place = find_folder(model, is_model)
    trained_on = read_trained_on(place) if place.is_dir() else None
    every = {dataset: overlap(trained_on, cohort) for dataset, cohort in cohorts.items()}
    found = {dataset: one for dataset, one in every.items() if one is not None}
    said = [sentence for one in found.values() for sentence in one.sentences(strict=True)]
    if refuse and said:
        raise MedstError(f"{' '.join(said)} --leaks warn measures nevertheless.")
    return found


def _some(patients: Sequence[str]) -> str:
    return ", ".join(patients[:3]) + (" and others" if len(patients) > 3 else "")
