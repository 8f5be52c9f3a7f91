"""The contact sheet: random rows of a cohort with their pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from medst.cohort.store import Cohort
from medst.pages.html import picture_uri


@dataclass(frozen=True)
class SampledRow:
    """One row of a cohort.

    Attributes:
        title: heading.
        facts: patient, split and the like.
        pictures: name and data URI of each image.
        report: its text; empty if it has none.
    """

    title: str
    facts: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...]
    report: str = ""


def sample_rows(cohort: Cohort, count: int, seed: int, timed: bool) -> list[SampledRow]:
    """Random rows in the order of the table; as many of each class where images are labelled.

    Args:
        cohort: of any data set.
        count: number of rows.
        seed: the same seed gives the same rows.
        timed: whether to show the times of studies.
    """
    if cohort.pairs is not None:
        return [_pair(cohort, row, timed) for row in _sample(cohort.pairs, count, seed)]
    if cohort.labelled is not None:
        classes = cohort.meta["classes"]
        each = -(-count // len(classes))
        return [
            _labelled(cohort, row, name)
            for label, name in enumerate(classes)
            for row in _sample(cohort.labelled.filter(label=label), each, seed)
        ]
    if cohort.comparisons is not None:
        keys = ["patient_id", "study_id", "current", "previous"]
        change = pl.format("{}: {}", pl.col("finding").str.replace_all("_", " "), "progression")
        studies = cohort.comparisons.group_by(keys, maintain_order=True).agg(changes=change)
        return [_comparison(cohort, row) for row in _sample(studies, count, seed)]
    return []


def _sample(table: pl.DataFrame, count: int, seed: int) -> list[dict[str, Any]]:
    rows = np.random.default_rng(seed).permutation(table.height)[:count]
    return table[np.sort(rows).tolist()].to_dicts()


def _pair(cohort: Cohort, row: dict[str, Any], timed: bool) -> SampledRow:
    pictures = tuple((view, _picture(cohort, row[view])) for view in ("frontal", "lateral") if row[view] is not None)
    when = (f"{row['time']:%Y-%m-%d %H:%M}",) if timed else ()
    return SampledRow(
        str(row["study_id"]), (f"patient {row['patient_id']}", *when, row["split"]), pictures, row["report"]
    )


def _labelled(cohort: Cohort, row: dict[str, Any], name: str) -> SampledRow:
    picture = (row["image_id"], _picture(cohort, row["image"]))
    return SampledRow(name, (f"patient {row['patient_id']}", row["split"]), (picture,))


def _comparison(cohort: Cohort, row: dict[str, Any]) -> SampledRow:
    pictures = (("before", _picture(cohort, row["previous"])), ("now", _picture(cohort, row["current"])))
    return SampledRow(str(row["study_id"]), (f"patient {row['patient_id']}", *row["changes"]), pictures)


def _picture(cohort: Cohort, row: int) -> str:
    return picture_uri(cohort.images[row])
