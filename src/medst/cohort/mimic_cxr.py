"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 to a cohort of pairs, by the released rules unless options say otherwise."""

import re
from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_reports import find_reports, read_reports, study_path
from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, Sources, write_pairs
from medst.cohort.pairs import read_labels as as_labels
from medst.cohort.raw_tables import clock_number, digest, find_table, order_clocks, read_csv, study_time
from medst.cohort.writer import Writer
from medst.errors import MedstError

PREFIX = "mimic-cxr-2.0.0"
METADATA, SPLIT, CHEXPERT = (f"{PREFIX}-{name}.csv.gz" for name in ("metadata", "split", "chexpert"))
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
FRONTAL, LATERAL = ("PA", "AP"), ("LL", "LATERAL")
RENAMED = {"train": "train", "validate": "valid", "test": "test"}
OPTIONS = ("reports", "frontal", "text", "decode")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this folder is made from: the start of cohort.json.

    Raises:
        MedstError: the folder or a table is missing.
    """
    return {
        "dataset": "mimic-cxr",
        "dataset_version": _version(raw),
        "options": options.record(OPTIONS),
        "source": digest([raw / METADATA, raw / SPLIT, raw / CHEXPERT]),
    }


def _version(raw: Path) -> str:
    # 2.1.0 kept the names of 2.0.0's tables and added one of its own.
    if any(raw.glob("mimic-cxr-2.1.0-*")):
        return "2.1.0"
    found = re.search(r"(?<![\d.])2\.[01]\.0$", raw.resolve().name)
    return found.group() if found else "unknown"


def read_metadata(raw: Path) -> pl.DataFrame:
    """All images in the metadata's order, the first row of each.

    Returns:
        image_id, patient_id, study_id, view (frontal, lateral or null), view_position, time (null where it is none), path
        (below `raw`; null where an id is missing), again (True on a further row of an image).

    Raises:
        MedstError: the table is missing or lacks a column.
    """
    table = (
        read_csv(raw / METADATA, METADATA_COLUMNS)
        .select(
            image_id="dicom_id",
            patient_id="p" + pl.col("subject_id"),
            study_id="s" + pl.col("study_id"),
            view=pl.when(pl.col("ViewPosition").is_in(FRONTAL))
            .then(pl.lit("frontal"))
            .when(pl.col("ViewPosition").is_in(LATERAL))
            .then(pl.lit("lateral")),
            view_position="ViewPosition",
            time=study_time(pl.col("StudyDate"), pl.col("StudyTime")),
            clock=clock_number(pl.col("StudyTime")),
        )
        .with_columns(
            path=pl.concat_str(study_path(), pl.lit("/"), pl.col("image_id"), pl.lit(".jpg")),
            again=pl.col("image_id").is_not_null() & ~pl.col("image_id").is_first_distinct(),
        )
    )
    return table.with_columns(time=order_clocks(table)).drop("clock")


def read_images(writer: Writer, raw: Path) -> pl.DataFrame:
    """The frontal and lateral images that can take part, in the metadata's order; the others are noted in `writer`.

    Returns:
        As `read_metadata`, with split and rows.
    """
    split = read_csv(raw / SPLIT, ("dicom_id", "split")).select(image_id="dicom_id", split="split")
    metadata = writer.number_rows(read_metadata(raw))
    unknown = split.join(metadata, on="image_id", how="anti", maintain_order="left")
    writer.reject("row", unknown["image_id"], None, "in the split table, but not in the metadata")
    twice = split.filter(~pl.col("image_id").is_first_distinct())
    writer.reject("row", twice["image_id"], None, "more than once in the split table; its first row counts")

    writer.seen["row"] = metadata.height
    other = pl.format("neither a frontal nor a lateral view ({})", pl.col("view_position").fill_null("empty"))
    images = writer.reject_where(metadata, pl.col("view").is_null(), "unused", other).join(
        split.unique("image_id", keep="first"), on="image_id", how="left", maintain_order="left"
    )
    for where, reason in (
        (pl.col("path").is_null(), "an id is missing in the metadata"),
        (pl.col("again"), "more than once in the metadata; its first row counts"),
        (pl.col("split").is_null(), "not in the split table"),
        (~pl.col("split").is_in(list(RENAMED)), "its split is none of train, validate and test"),
        (pl.col("time").is_null(), "StudyDate and StudyTime are no time"),
    ):
        images = writer.reject_where(images, where, "row", reason)
    return images.with_columns(pl.col("split").replace_strict(RENAMED, return_dtype=pl.String))


def read_labels(writer: Writer, raw: Path) -> pl.DataFrame:
    """study_id and labels, a struct of the 14 CheXpert labels (1 present, 0 absent, -1 uncertain, null not mentioned).

    Raises:
        MedstError: the table is missing, lacks a column, or holds something else than these.
    """
    table = read_csv(raw / CHEXPERT, ("subject_id", "study_id", *LABELS))
    return as_labels(writer, table.select(*LABELS, study_id="s" + pl.col("study_id")), str(find_table(raw / CHEXPERT)))


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    images, labels = read_images(writer, raw), read_labels(writer, raw)
    frontal = images.filter(view="frontal")
    studies = frontal.select("patient_id", "study_id").unique("study_id", keep="first", maintain_order=True)
    if studies.is_empty():
        raise MedstError(f"{raw}: the tables name no frontal image (ViewPosition PA or AP) that can take part.")
    texts = read_reports(
        find_reports(raw, options.reports, studies), studies, writer.workers, whole=options.text == "whole"
    )
    nothing = f"{raw}: no study has both a frontal image and a usable report; see --reports."
    return write_pairs(writer, raw, Sources(images, texts, labels), options.frontal, nothing)
