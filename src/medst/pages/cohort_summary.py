"""Summarise a cohort as numbers, in dictionaries and lists that can be written as JSON.

What a cohort doesn't have is absent from its summary.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst.cohort.pairs import SPLITS
from medst.cohort.sequences import cut_sequences
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import read_regular

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ANSWERS = {"present": 1.0, "absent": 0.0, "uncertain": -1.0}
SEQUENCE_LENGTH = 4
"""Pairs in a sequence, as in the paper."""
KEPT = "kept"
"""The first word of reasons that belong to rows which were kept."""
DATA_KEYS = (
    "dataset", "dataset_version", "options", "source", "classes", "time", "counts", "medst_version", "fingerprint"
)  # fmt: skip
DAYS = {
    "under 1 day": 1, "1 to 7 days": 7, "1 to 4 weeks": 28, "1 to 6 months": 183, "6 to 24 months": 730,
    "over 2 years": np.inf,
}  # fmt: skip
"""Bins of days between studies, with their upper ends."""


def summarise(cohort: Cohort) -> dict[str, Any]:
    """All numbers of a cohort of any data set.

    Returns:
        The keys data, images, left_out and kept; for pairs also splits, studies_a_patient, sequences, report_words, labels
        and days_between_studies; for comparisons also comparisons and sentences; for labelled images also classes,
        images_a_patient and patients_in_several_splits.
    """
    data = {key: cohort.meta[key] for key in DATA_KEYS if key in cohort.meta}
    found: dict[str, Any] = {"data": data, "images": _images(cohort.image_table)}
    if cohort.pairs is not None and cohort.pairs.height:
        found |= _summarise_pairs(cohort.pairs, timed=has_times(cohort))
    if cohort.comparisons is not None and cohort.comparisons.height:
        found["comparisons"] = _crossed(cohort.comparisons, "finding", "progression")
    if cohort.sentences is not None and cohort.sentences.height:
        found["sentences"] = _crossed(cohort.sentences, "subset", "category")
    if cohort.labelled is not None and cohort.labelled.height:
        found |= _summarise_labelled(cohort.labelled, cohort.meta["classes"])
    rejected = _rejected(cohort.path / "rejected.csv")
    stayed = pl.col("reason").str.starts_with(KEPT)
    seen = cohort.meta.get("seen", {})
    for name, part in (("left_out", rejected.filter(~stayed)), ("kept", rejected.filter(stayed))):
        if part.height:
            found[name] = _reasons(part, seen)
    return found


def _rejected(file: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(read_regular(file), infer_schema=False).select("kind", "id", pl.col("reason").fill_null(""))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MedstError(f"{file} is damaged ({reason}); remove the cohort's folder and prepare it again.") from error


def has_times(cohort: Cohort) -> bool:
    """Whether the cohort has times, and not only the order of a patient's studies."""
    return bool(cohort.meta.get("time", "timestamps") == "timestamps")


def _images(table: pl.DataFrame) -> dict[str, Any]:
    read = table.filter(status="ok")
    views = (
        read.group_by("view", "view_position")
        .len("images")
        .sort("images", "view", "view_position", descending=[True, False, False])
    )
    return {
        "read": read.height,
        "views": views.with_columns(pl.col("view_position").fill_null("not said")).to_dicts(),
        "height": quantiles(read["height"]),
        "width": quantiles(read["width"]),
    }


def _summarise_pairs(pairs: pl.DataFrame, timed: bool) -> dict[str, Any]:
    splits = (
        pairs.group_by("split")
        .agg(
            patients=pl.col("patient_id").n_unique(),
            studies=pl.col("study_id").n_unique(),
            pairs=pl.len(),
            laterals=pl.col("lateral").is_not_null().sum(),
        )
        .to_dicts()
    )
    studies = pairs.unique("study_id", keep="first", maintain_order=True)
    patients = studies.group_by("split", "patient_id").agg(studies=pl.len())
    words = studies["report"].str.split(" ").list.len()
    found: dict[str, Any] = {
        "splits": sorted(splits, key=lambda row: _place(row["split"])),
        "studies_a_patient": _crossed(patients, "split", "studies"),
        "sequences": {"length": SEQUENCE_LENGTH, **_sequences(pairs)},
        "report_words": {"quantiles": quantiles(words), "histogram": histogram(words.cast(pl.Float64), 24)},
    }
    labels = _labels(studies)
    if labels:
        found["labels"] = labels
    if timed:
        days = (
            studies.sort("patient_id", "split", "time")
            .select(pl.col("time").diff().over("patient_id", "split").dt.total_seconds() / 86400)["time"]
            .drop_nulls()
        )
        if days.len():
            rows, _ = np.histogram(days.to_numpy(), [-np.inf, *DAYS.values()])
            bins = dict(zip(DAYS, rows.tolist(), strict=True))
            found["days_between_studies"] = {"quantiles": quantiles(days), "bins": bins}
    return found


def _sequences(pairs: pl.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split in pairs["split"].unique().sort():
        lengths = [len(sequence) for sequence in cut_sequences(pairs.filter(split=split), SEQUENCE_LENGTH)]
        found[split] = {str(n): lengths.count(n) for n in range(1, SEQUENCE_LENGTH + 1)}
    return found


def _labels(studies: pl.DataFrame) -> list[dict[str, Any]]:
    """Counts of each answer by label and split."""
    spread = studies.select("split", "labels").unnest("labels")
    long = spread.unpivot(index="split", variable_name="label")
    if long["value"].is_null().all():
        return []
    answers = [(pl.col("value") == value).sum().alias(name) for name, value in ANSWERS.items()]
    counted = long.group_by("label", "split").agg(*answers, pl.col("value").is_null().sum().alias("not mentioned"))
    return counted.sort("label", "split").to_dicts()


def _summarise_labelled(labelled: pl.DataFrame, classes: list[str]) -> dict[str, Any]:
    per_patient = labelled.group_by("patient_id").agg(images=pl.len(), splits=pl.col("split").n_unique())
    return {
        "classes": {
            split: {name: labelled.filter(split=split, label=label).height for label, name in enumerate(classes)}
            for split in sorted(labelled["split"].unique(), key=_place)
        },
        "images_a_patient": {
            str(n): count for n, count in per_patient["images"].value_counts().sort("images").iter_rows()
        },
        "patients_in_several_splits": int((per_patient["splits"] > 1).sum()),
    }


def _place(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


def _crossed(table: pl.DataFrame, down: str, across: str) -> dict[str, dict[str, int]]:
    """Counts of each value of `across` for each of `down`, both in order."""
    counted = table.group_by(down, across).len("rows").sort(down, across)
    found: dict[str, dict[str, int]] = {}
    for name, value, rows in counted.iter_rows():
        found.setdefault(str(name), {})[str(value)] = rows
    return found


def _reasons(rejected: pl.DataFrame, seen: dict[str, int]) -> list[dict[str, Any]]:
    """Count rejected rows by kind and reason, with ids and numbers in the reason replaced by #."""
    general = (
        pl.col("reason").str.replace(r" \(.*\)$", "").str.replace_all(r"[sp]?\d+(, [sp]\d+)*", "#").alias("reason")
    )
    counted = (
        rejected.with_columns(general)
        .group_by("kind", "reason")
        .agg(rows=pl.len(), example=pl.col("id").first().fill_null(""))
        .sort("rows", "kind", "reason", descending=[True, False, False])
    )
    return [
        row | ({"share": row["rows"] / seen[row["kind"]]} if seen.get(row["kind"]) else {})
        for row in counted.to_dicts()
    ]


def quantiles(values: pl.Series) -> dict[str, float]:
    """Some quantiles by their name in per cent; empty if there are no numbers.

    >>> quantiles(pl.Series([1, 2, 3, 4, 5]))["50 %"]
    3.0
    """
    known = values.drop_nulls()
    if not known.len():
        return {}
    return {f"{100 * q:.0f} %": round(float(known.quantile(q, "linear") or 0), 3) for q in QUANTILES}


def histogram(values: pl.Series, bins: int) -> dict[str, list[float]]:
    """Counts in bins of equal width from the smallest to the largest number."""
    low, high = float(values.min() or 0), float(values.max() or 0)  # type: ignore[arg-type]
    width = max((high - low) / bins, 1.0)
    rows, starts = np.histogram(values.to_numpy(), bins, (low, max(high, low + bins * width)))
    return {"from": [round(float(start), 3) for start in starts[:-1]], "rows": rows.tolist()}
