"""The contact sheet: some rows of a cohort drawn by chance, with their pictures."""

import base64
from dataclasses import dataclass, field

import cv2
import numpy as np
import polars as pl

from medst.cohort.store import Cohort

QUALITY = 82
Picture = tuple[str, str]
"""What it is, and the picture as a data address."""


@dataclass(frozen=True)
class Card:
    """One row: a heading, facts, pictures and, in pairs, the report."""

    title: str
    facts: tuple[str, ...]
    pictures: tuple[Picture, ...]
    report: str = field(default="")


def cards(cohort: Cohort, count: int, seed: int, timed: bool) -> list[Card]:
    """Rows drawn by chance, the same for the same seed, in the order of the table."""
    if cohort.pairs is not None:
        return [_pair(cohort, row, timed) for row in _drawn(cohort.pairs, count, seed).iter_rows(named=True)]
    if cohort.labelled is not None:
        classes = cohort.meta["classes"]
        parts = [
            _drawn(cohort.labelled.filter(label=label), -(-count // len(classes)), seed)
            for label in range(len(classes))
        ]
        return [_labelled(cohort, row, classes) for part in parts for row in part.iter_rows(named=True)]
    if cohort.comparisons is not None:
        keys = ["patient_id", "study_id", "current", "previous"]
        said = pl.format("{}: {}", pl.col("finding").str.replace_all("_", " "), "progression")
        images = cohort.comparisons.group_by(keys, maintain_order=True).agg(said=said)
        return [_comparison(cohort, row) for row in _drawn(images, count, seed).iter_rows(named=True)]
    return []


def _drawn(table: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    rows = np.random.default_rng(seed).permutation(table.height)[:count]
    return table[np.sort(rows).tolist()]


def _pair(cohort: Cohort, row: dict, timed: bool) -> Card:
    pictures = [("frontal", _address(cohort, row["frontal"]))]
    if row["lateral"] is not None:
        pictures.append(("lateral", _address(cohort, row["lateral"])))
    when = (f"{row['time']:%Y-%m-%d %H:%M}",) if timed else ()
    return Card(
        str(row["study_id"]), (f"patient {row['patient_id']}", *when, row["split"]), tuple(pictures), row["report"]
    )


def _labelled(cohort: Cohort, row: dict, classes: list[str]) -> Card:
    facts = (f"patient {row['patient_id']}", row["split"])
    return Card(classes[row["label"]], facts, ((row["image_id"], _address(cohort, row["image"])),))


def _comparison(cohort: Cohort, row: dict) -> Card:
    pictures = (("before", _address(cohort, row["previous"])), ("now", _address(cohort, row["current"])))
    return Card(str(row["study_id"]), (f"patient {row['patient_id']}", *row["said"]), pictures)


def _address(cohort: Cohort, row: int) -> str:
    _, jpeg = cv2.imencode(".jpg", np.asarray(cohort.images[row]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
