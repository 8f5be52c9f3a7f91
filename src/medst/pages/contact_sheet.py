"""The contact sheet: random rows of a cohort with their pictures."""

from typing import Any

import numpy as np
import polars as pl

from medst.cohort.store import Cohort
from medst.pages.html import picture_uri


def sample_rows(cohort: Cohort, count: int, seed: int, timed: bool) -> list[dict[str, Any]]:
    """Random rows in the order of the table, the same for the same seed; as many of each class where images are labelled.

    Returns:
        For each row, its title, facts (patient, split, time of the study if `timed`, and the like), pictures (name and data
        URI) and report, which may be empty.
    """

    def sampled(row: dict[str, Any], title: str, facts: list[str], pictures: dict[str, int | None]) -> dict[str, Any]:
        return {
            "title": title,
            "facts": [f"patient {row['patient_id']}", *facts],
            "pictures": [(name, picture_uri(cohort.images[n])) for name, n in pictures.items() if n is not None],
            "report": row.get("report", ""),
        }

    if cohort.pairs is not None:
        found = []
        for row in _sample(cohort.pairs, count, seed):
            time = [f"{row['time']:%Y-%m-%d %H:%M}"] if timed else []
            pictures = {view: row[view] for view in ("frontal", "lateral")}
            found.append(sampled(row, row["study_id"], [*time, row["split"]], pictures))
        return found
    if cohort.labelled is not None:
        classes = cohort.meta["classes"]
        each = -(-count // len(classes))
        return [
            sampled(row, name, [row["split"]], {row["image_id"]: row["image"]})
            for label, name in enumerate(classes)
            for row in _sample(cohort.labelled.filter(label=label), each, seed)
        ]
    if cohort.comparisons is not None:
        keys = ["patient_id", "study_id", "current", "previous"]
        change = pl.format("{}: {}", pl.col("finding").str.replace_all("_", " "), "progression")
        studies = cohort.comparisons.group_by(keys, maintain_order=True).agg(changes=change)
        return [
            sampled(row, row["study_id"], row["changes"], {"before": row["previous"], "now": row["current"]})
            for row in _sample(studies, count, seed)
        ]
    return []


def _sample(table: pl.DataFrame, count: int, seed: int) -> list[dict[str, Any]]:
    rows = np.random.default_rng(seed).permutation(table.height)[:count]
    return table[np.sort(rows).tolist()].to_dicts()
