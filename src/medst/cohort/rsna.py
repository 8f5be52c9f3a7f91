"""RSNA Pneumonia Detection Challenge, stage 2, to a benchmark cohort with the released split."""

from pathlib import Path
from typing import Any

import polars as pl
from sklearn.model_selection import train_test_split

from medst.cohort.classification import write_classification
from medst.cohort.options import Options
from medst.cohort.raw_tables import digest, find_table, read_csv
from medst.cohort.writer import Writer
from medst.errors import MedstError

OPTIONS = ("images", "intensity")
LABEL_FILE, FOLDER = "stage_2_train_labels.csv", "stage_2_train_images"
CLASSES = ("no pneumonia", "pneumonia")
BOX = ("x", "y", "width", "height")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this folder is made from: the start of cohort.json.

    Raises:
        MedstError: the folder or the label table is missing.
    """
    return {
        "dataset": "rsna",
        "dataset_version": "stage 2",
        "options": options.record(OPTIONS),
        "source": digest([raw / LABEL_FILE]),
    }


def read_patients(writer: Writer, raw: Path) -> pl.DataFrame:
    """One row a patient, in the order of the ids.

    Returns:
        patient_id, label (1 if the patient has a box, else 0), boxes (list of [x, y, width, height] in pixels), rows (of the
        table, blanks between).

    Raises:
        MedstError: the table is missing, lacks a column, or holds something else than these.
    """
    file = find_table(raw / LABEL_FILE)
    table = read_csv(raw / LABEL_FILE, ("patientId", *BOX, "Target")).with_columns(pl.col("Target").str.strip_chars())
    table = writer.number_rows(table)
    writer.seen["row"] = table.height
    nameless = table.filter(pl.col("patientId").is_null())
    writer.reject("row", nameless["patientId"], None, "no patientId", nameless["rows"])
    table = table.filter(pl.col("patientId").is_not_null())
    odd = table.filter(~pl.col("Target").is_in(["0", "1"]).fill_null(False))
    if odd.height:
        raise MedstError(f"{file}: '{odd['Target'][0]}' is no Target (of {odd['patientId'][0]}); it is 0 or 1.")
    numbers = table.with_columns(pl.col(name).cast(pl.Float64, strict=False) for name in BOX)
    boxed = pl.all_horizontal(pl.col(name).is_not_null() for name in BOX)
    wrong = numbers.filter((pl.col("Target") == "1") & ~boxed)
    writer.reject("row", wrong["patientId"], None, "kept; Target 1 without a whole box", wrong["rows"])
    torn = numbers.filter((pl.col("Target") == "0") & (boxed | (pl.col("Target") == "1").any().over("patientId")))
    writer.reject(
        "row", torn["patientId"], None, "kept; Target 0 with a box, or beside a row with Target 1", torn["rows"]
    )
    return (
        numbers.with_columns(box=pl.when(boxed).then(pl.concat_list(BOX)))
        .group_by("patientId")
        .agg(
            label=pl.col("Target").cast(pl.Int64).max(),
            boxes=pl.col("box").drop_nulls(),
            rows=pl.col("rows").str.join(" "),
        )
        .rename({"patientId": "patient_id"})
        .sort("patient_id")
    )


def split_patients(patients: pl.DataFrame) -> pl.DataFrame:
    """The released split: 70 % train, the rest halved into test and valid, by scikit-learn with random state 0.

    Args:
        patients: a row a patient, in the order of the ids.

    Returns:
        `patients` with split; train, then valid, then test, each in the released order.

    >>> split_patients(pl.DataFrame({"patient_id": list("abcdef")}))["split"].to_list()
    ['train', 'train', 'train', 'train', 'valid', 'test']
    """
    train, rest = train_test_split(range(patients.height), test_size=0.30, random_state=0)
    test, valid = train_test_split(rest, test_size=0.5, random_state=0)
    parts = (("train", train), ("valid", valid), ("test", test))
    return pl.concat([patients[list(rows)].with_columns(split=pl.lit(name)) for name, rows in parts])


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    patients = read_patients(writer, raw)
    if patients.height < 4:
        raise MedstError(f"{find_table(raw / LABEL_FILE)} names {patients.height} patients, too few to split.")
    folder = options.images or raw / FOLDER
    if not folder.is_dir():
        raise MedstError(f"{folder}: no such folder; it holds the DICOM files, give it with --images.")
    table = split_patients(patients).with_columns(image_id="patient_id", path=pl.col("patient_id") + ".dcm")
    return write_classification(writer, folder, table, CLASSES)
