"""MIMIC-CXR-JPG 2.0.0 and 2.1.0: a cohort of pairs, by the released rules unless options say otherwise."""

import re
from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_clock import clock_number, order_clocks, study_time
from medst.cohort.mimic_reports import find_reports, read_reports, study_path
from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, read_labels, write_pairs
from medst.cohort.raw_tables import digest, find_table, read_csv
from medst.cohort.writer import Writer
from medst.errors import MedstError

PREFIX = "mimic-cxr-2.0.0"
METADATA, SPLIT, CHEXPERT = (f"{PREFIX}-{name}.csv.gz" for name in ("metadata", "split", "chexpert"))
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
PROCEDURES = ("PerformedProcedureStepDescription", "ProcedureCodeSequence_CodeMeaning")
"""Descriptions of the examination; they need not be there."""
FRONTAL, LATERAL = ("PA", "AP"), ("LL", "LATERAL")
SPLIT_NAMES = {"train": "train", "validate": "valid", "test": "test"}


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    found = re.search(r"(?<![\d.])2\.[01]\.0$", raw.resolve().name)
    version = found.group() if found else "unknown"
    if any(raw.glob("mimic-cxr-2.1.0-*")):  # which kept the names of 2.0.0's tables and added one of its own
        version = "2.1.0"
    return {"dataset_version": version, "source": digest([raw / METADATA, raw / SPLIT, raw / CHEXPERT])}


def read_metadata(raw: Path) -> pl.DataFrame:
    """Read the metadata table; all its rows, in its order.

    Returns:
        image_id, patient_id, study_id, view (frontal, lateral or null), view_position, time (null if invalid), portable
        (whether a description of the examination says so; null without one), path (below `raw`; null if an id is missing),
        again (whether the image has an earlier row).

    Raises:
        MedstError: the table is missing or lacks a column.
    """
    position = pl.col("ViewPosition")
    frontal, lateral = pl.when(position.is_in(FRONTAL)), position.is_in(LATERAL)
    raw_table = read_csv(raw / METADATA, METADATA_COLUMNS)
    described = [pl.col(name).str.contains("(?i)portable") for name in PROCEDURES if name in raw_table.columns]
    table = raw_table.select(
        image_id="dicom_id",
        patient_id="p" + pl.col("subject_id"),
        study_id="s" + pl.col("study_id"),
        view=frontal.then(pl.lit("frontal")).when(lateral).then(pl.lit("lateral")),
        view_position="ViewPosition",
        time=study_time(pl.col("StudyDate"), pl.col("StudyTime")),
        portable=pl.max_horizontal(described) if described else pl.lit(None, dtype=pl.Boolean),
        clock=clock_number(pl.col("StudyTime")),
    ).with_columns(
        path=pl.concat_str(study_path(), pl.lit("/"), pl.col("image_id"), pl.lit(".jpg")),
        again=pl.col("image_id").is_not_null() & ~pl.col("image_id").is_first_distinct(),
    )
    return table.with_columns(time=order_clocks(table)).drop("clock")


def read_images(writer: Writer, raw: Path) -> pl.DataFrame:
    """Read the frontal and lateral images that can be used, in the metadata's order; reject the others.

    Returns:
        The columns of `read_metadata`, split and rows.
    """
    split = read_csv(raw / SPLIT, ("dicom_id", "split")).select(image_id="dicom_id", split="split")
    metadata = writer.number_rows(read_metadata(raw))
    unknown = split.join(metadata, on="image_id", how="anti", maintain_order="left")
    writer.reject("row", unknown["image_id"], None, "in the split table, but not in the metadata")
    twice = split.filter(~pl.col("image_id").is_first_distinct())
    writer.reject("row", twice["image_id"], None, "more than once in the split table; its first row counts")

    other = pl.format("neither a frontal nor a lateral view ({})", pl.col("view_position").fill_null("empty"))
    images = writer.reject_where(metadata, "unused", (pl.col("view").is_null(), other)).join(
        split.unique("image_id", keep="first"), on="image_id", how="left", maintain_order="left"
    )
    images = writer.reject_where(
        images,
        "row",
        (pl.col("path").is_null(), "an id is missing in the metadata"),
        (pl.col("again"), "more than once in the metadata; its first row counts"),
        (pl.col("split").is_null(), "not in the split table"),
        (~pl.col("split").is_in(list(SPLIT_NAMES)), "its split is not train, validate or test"),
        (pl.col("time").is_null(), "StudyDate and StudyTime are not a valid time"),
    )
    return images.with_columns(pl.col("split").replace_strict(SPLIT_NAMES, return_dtype=pl.String))


def read_chexpert(writer: Writer, raw: Path) -> pl.DataFrame:
    """Read the CheXpert table; see `medst.cohort.pairs.read_labels`."""
    table = read_csv(raw / CHEXPERT, ("subject_id", "study_id", *LABELS))
    table = table.select(*LABELS, study_id="s" + pl.col("study_id"))
    return read_labels(writer, table, str(find_table(raw / CHEXPERT)))


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    images, labels = read_images(writer, raw), read_chexpert(writer, raw)
    frontal = images.filter(view="frontal")
    studies = frontal.select("patient_id", "study_id").unique("study_id", keep="first", maintain_order=True)
    if studies.is_empty():
        raise MedstError(f"{raw}: the tables name no frontal image (ViewPosition PA or AP) that can be used.")
    place = find_reports(raw, options.reports, studies)
    texts = read_reports(place, studies, writer.workers, whole=options.text == "whole")
    return write_pairs(writer, raw, images, texts, labels, options.frontal)
