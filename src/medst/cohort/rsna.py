"""RSNA Pneumonia Detection Challenge, stage 2: a benchmark cohort with the released split."""

from pathlib import Path
from typing import Any

import polars as pl
from sklearn.model_selection import train_test_split

from medst.cohort.classification import write_classification
from medst.cohort.options import Options
from medst.cohort.raw_tables import digest, find_table, read_csv
from medst.cohort.writer import Writer
from medst.errors import MedstError

LABEL_FILE, FOLDER = "stage_2_train_labels.csv", "stage_2_train_images"
CLASSES = ("no pneumonia", "pneumonia")
BOX = ("x", "y", "width", "height")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    return {"dataset_version": "stage 2", "source": digest([raw / LABEL_FILE])}


def read_patients(writer: Writer, raw: Path) -> pl.DataFrame:
    """Read the label table; one row per patient, in the order of the ids.

    Returns:
        patient_id, label (1 if the patient has a box, else 0), boxes (list of [x, y, width, height] in pixels), rows (of the
        table, separated by spaces).

    Raises:
        MedstError: the table is missing, lacks a column, or has a Target other than 0 and 1.
    """
    file = find_table(raw / LABEL_FILE)
    table = writer.number_rows(read_csv(file, ("patientId", *BOX, "Target")))
    table = table.with_columns(pl.col("Target").str.strip_chars(), image_id="patientId")
    table = writer.reject_where(table, "row", (pl.col("patientId").is_null(), "no patientId"))
    odd = table.filter(~pl.col("Target").is_in(["0", "1"]).fill_null(False))
    if odd.height:
        raise MedstError(
            f"{file}: patient {odd['patientId'][0]} has the Target '{odd['Target'][0]}'; it must be 0 or 1."
        )
    table = table.with_columns(pl.col(name).cast(pl.Float64, strict=False) for name in BOX)
    boxed, positive = pl.all_horizontal(pl.col(BOX).is_not_null()), pl.col("Target") == "1"
    torn = ~positive & (boxed | positive.any().over("patientId"))
    writer.reject_where(table, "row", (positive & ~boxed, "kept; Target 1 without a complete box"))
    writer.reject_where(table, "row", (torn, "kept; Target 0 with a box, or beside a row with Target 1"))
    return (
        table.with_columns(box=pl.when(boxed).then(pl.concat_list(BOX)))
        .group_by(patient_id="patientId")
        .agg(
            label=pl.col("Target").cast(pl.Int64).max(),
            boxes=pl.col("box").drop_nulls(),
            rows=pl.col("rows").str.join(" "),
        )
        .sort("patient_id")
    )


def split_patients(patients: pl.DataFrame) -> pl.DataFrame:
    """Split as released: 70 % train, the rest halved into test and valid, by scikit-learn with random state 0.

    Args:
        patients: one row per patient, in the order of the ids.

    Returns:
        `patients` with split; train, then valid, then test, each in the released order.

    >>> split_patients(pl.DataFrame({"patient_id": list("abcdef")}))["split"].to_list()
    ['train', 'train', 'train', 'train', 'valid', 'test']
    """
    train, rest = train_test_split(range(patients.height), test_size=0.30, random_state=0)
    test, valid = train_test_split(rest, test_size=0.5, random_state=0)
    parts = (("train", train), ("valid", valid), ("test", test))
    return pl.concat([patients[list(rows)].with_columns(split=pl.lit(name)) for name, rows in parts])


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    patients = read_patients(writer, raw)
    if patients.height < 4:
        raise MedstError(f"{find_table(raw / LABEL_FILE)} names {patients.height} patients, too few to split.")
    folder = options.images or raw / FOLDER
    if not folder.is_dir():
        raise MedstError(f"{folder}: no such folder; give the one with the DICOM files with --images.")
    table = split_patients(patients).with_columns(image_id="patient_id", path=pl.col("patient_id") + ".dcm")
    return write_classification(writer, folder, table, CLASSES)
