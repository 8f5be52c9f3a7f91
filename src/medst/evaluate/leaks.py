"""Patients who are in the split that is tested and in one that was learnt or chosen from."""

from collections.abc import Sequence

import polars as pl

from medst.cohort.store import Cohort
from medst.errors import MedstError


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
        MedstError: there are such patients and `refuse` says that they don't go.
    """
    found = leaking(cohort, splits)
    if not found:
        return []
    some = ", ".join(found[:3]) + (" and others" if len(found) > 3 else "")
    sentence = f"{cohort.path.name}: {len(found)} patients of the test split are also in {' or '.join(splits)} ({some})"
    if refuse:
        raise MedstError(
            f"{sentence}; protocol strict does not measure that. Prepare the cohort with --split by-patient, or take "
            "--protocol paper."
        )
    return [sentence + "."]
