"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 to a cohort of pairs, by the released rules.

A pair is a frontal image, so that two frontal images of a study are two pairs; the study's first lateral image in the
metadata's order goes with each. What is left out is in rejected.csv, together with what was kept and should be known: kind
`study` names studies of the same minute, whose order rests on seconds and study ids.
"""

import re
from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.mimic_reports import find_reports, read_reports, study_path
from medst.cohort.store import Progress
from medst.cohort.tables import digest, find_table, read_table, study_time
from medst.cohort.writer import Writer
from medst.errors import MedstError

PREFIX = "mimic-cxr-2.0.0"
METADATA, SPLIT, CHEXPERT = (f"{PREFIX}-{name}.csv.gz" for name in ("metadata", "split", "chexpert"))
METADATA_COLUMNS = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime")
FRONTAL, LATERAL = ("PA", "AP"), ("LL", "LATERAL")
SPLITS = {"train": "train", "validate": "valid", "test": "test"}
LABELS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion"),
    *(
        "Lung Opacity",
        "No Finding",
        "Pleural Effusion",
        "Pleural Other",
        "Pneumonia",
        "Pneumothorax",
        "Support Devices",
    ),
)
PAIR_COLUMNS = ("patient_id", "study_id", "time", "split", "report", "frontal", "lateral", "labels")


def describe(raw: Path, reports: Path | None) -> dict[str, Any]:
    """What a cohort of this folder is made from: the start of cohort.json.

    Raises:
        MedstError: the folder or a table is missing.
    """
    return {
        "dataset": "mimic-cxr",
        "dataset_version": _version(raw),
        "options": {"reports": reports.name if reports else None},
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
    return (
        read_table(raw / METADATA, METADATA_COLUMNS)
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
        )
        .with_columns(
            path=pl.concat_str(study_path(), pl.lit("/"), pl.col("image_id"), pl.lit(".jpg")),
            again=pl.col("image_id").is_not_null() & ~pl.col("image_id").is_first_distinct(),
        )
    )


def read_images(writer: Writer, raw: Path) -> pl.DataFrame:
    """The frontal and lateral images that can take part, in the metadata's order; the others are noted in `writer`.

    Returns:
        As `read_metadata`, with split.
    """
    split = read_table(raw / SPLIT, ("dicom_id", "split")).select(image_id="dicom_id", split="split")
    metadata = read_metadata(raw)
    unknown = split.join(metadata, on="image_id", how="anti", maintain_order="left")
    writer.reject("row", unknown["image_id"], None, "in the split table, but not in the metadata")
    twice = split.filter(~pl.col("image_id").is_first_distinct())
    writer.reject("row", twice["image_id"], None, "more than once in the split table; its first row counts")

    images = metadata.filter(pl.col("view").is_not_null()).join(
        split.unique("image_id", keep="first"), on="image_id", how="left", maintain_order="left"
    )
    for where, reason in (
        (pl.col("path").is_null(), "an id is missing in the metadata"),
        (pl.col("again"), "more than once in the metadata; its first row counts"),
        (pl.col("split").is_null(), "not in the split table"),
        (~pl.col("split").is_in(list(SPLITS)), "its split is none of train, validate and test"),
        (pl.col("time").is_null(), "StudyDate and StudyTime are no time"),
    ):
        images = writer.reject_where(images, where, "row", reason)
    return images.with_columns(pl.col("split").replace_strict(SPLITS, return_dtype=pl.String))


def read_labels(raw: Path) -> pl.DataFrame:
    """study_id and labels, a struct of the 14 CheXpert labels (1 present, 0 absent, -1 uncertain, null not mentioned).

    Raises:
        MedstError: the table is missing, lacks a column, or holds something else than these.
    """
    table = read_table(raw / CHEXPERT, ("subject_id", "study_id", *LABELS)).unique(
        "study_id", keep="first", maintain_order=True
    )
    values = table.select(pl.col(name).cast(pl.Float32, strict=False) for name in LABELS)
    for name in LABELS:
        odd = table.filter(table[name].is_not_null() & ~values[name].is_in([0.0, 1.0, -1.0]).fill_null(False))
        if odd.height:
            raise MedstError(
                f"{find_table(raw / CHEXPERT)}: '{odd[name][0]}' is no value for {name}; a label is 1.0, 0.0, -1.0 or empty."
            )
    return table.select(study_id="s" + pl.col("study_id"), labels=values.to_struct())


def prepare(
    writer: Writer, raw: Path, *, reports: Path | None, workers: int, progress: Progress | None
) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    images, labels = read_images(writer, raw), read_labels(raw)
    frontal = images.filter(view="frontal")
    studies = frontal.select("patient_id", "study_id").unique("study_id", keep="first", maintain_order=True)
    if studies.is_empty():
        raise MedstError(f"{raw}: the tables name no frontal image (ViewPosition PA or AP) that can take part.")
    texts = read_reports(find_reports(raw, reports, studies), studies, workers)
    noted = texts.filter(pl.col("reason") != "")
    writer.reject("report", noted["study_id"], noted["path"], noted["reason"])
    usable = texts.filter(pl.col("report").is_not_null()).select("study_id", "report")

    first_lateral = images.filter(view="lateral").unique("study_id", keep="first", maintain_order=True)
    with_text = frontal.join(usable, on="study_id", maintain_order="left")
    wanted = pl.concat([frontal, first_lateral.join(frontal, on="study_id", how="semi", maintain_order="left")])
    wanted = wanted.join(usable, on="study_id", how="semi", maintain_order="left")
    if wanted.is_empty():
        raise MedstError(f"{raw}: no study has both a frontal image and a usable report; see --reports.")
    stored = writer.write_images(
        raw, wanted.sort("patient_id", "time", "study_id", "view", maintain_order=True), workers, progress
    )

    rows = stored.filter(status="ok").select("image_id", "row")
    lateral_rows = first_lateral.join(rows, on="image_id").select("study_id", lateral="row")
    pairs = (
        with_text.join(rows.rename({"row": "frontal"}), on="image_id")
        .join(lateral_rows, on="study_id", how="left")
        .join(labels, on="study_id", how="left")
        .select(PAIR_COLUMNS)
        .sort("patient_id", "time", "study_id", "frontal")
    )
    same_minute = _note_same_minute(writer, pairs)
    counts = {
        "patients": pairs["patient_id"].n_unique(),
        "studies": pairs["study_id"].n_unique(),
        "pairs": pairs.height,
        "laterals": pairs["lateral"].count(),
        "images": rows.height,
        **{f"{split}_pairs": pairs.filter(split=split).height for split in SPLITS.values()},
        "same_minute_studies": same_minute,
    }
    return writer.finish(stored, {"pairs": pairs}, counts)


def _note_same_minute(writer: Writer, pairs: pl.DataFrame) -> int:
    """Studies of a patient in the same minute stay, in the order of seconds, then of ids, and are named; how many."""
    minute = pl.col("time").dt.truncate("1m")
    same = (
        pairs.unique("study_id", keep="first", maintain_order=True)
        .with_columns(minute=minute, together=pl.col("study_id").str.join(", ").over("patient_id", minute))
        .filter(pl.struct("patient_id", "minute").is_duplicated())
        .with_columns(
            reason=pl.format("kept; {} have the same minute: ordered by second, then by study id", "together")
        )
    )
    writer.reject("study", same["study_id"], None, same["reason"])
    return same.height
