"""CheXpert Plus: a cohort of pairs from its table of reports and paths, with PNG or DICOM images.

It has no dates, only the order of a patient's reports. So `time` only orders: the n-th report has day n of the year 2000,
and cohort.json says `"time": "order"`.
"""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, read_labels, write_pairs
from medst.cohort.raw_tables import digest, read_csv
from medst.cohort.report_text import TEXT_COLUMNS, section_text
from medst.cohort.writer import Writer
from medst.errors import MedstError

TABLE = "df_chexpert_plus_240401.csv"
LABEL_FILE = Path("chexbert_labels") / "report_fixed.json"
COLUMNS = (
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "patient_report_date_order",
    "section_findings",
    "section_impression",
    "split",
)
VIEWS = {"frontal": "frontal", "lateral": "lateral"}
SPLIT_NAMES = {"train": "train", "valid": "valid", "validate": "valid", "test": "test"}
STUDY = r"([^/]+/[^/]+)/[^/]+$"
"""Where an image's path has its study."""
MOST_DAYS = 1_000_000
FOLDERS = (("PNG", ".png"), ("PNG/PNG", ".png"), ("", ".png"), ("", ".jpg"), ("DICOM", ".dcm"), ("", ".dcm"))


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    labels = [raw / LABEL_FILE] if (raw / LABEL_FILE).is_file() else []
    version = TABLE.removeprefix("df_chexpert_plus_").removesuffix(".csv")
    return {"dataset_version": version, "source": digest([raw / TABLE, *labels]), "time": "order"}


def read_images(writer: Writer, raw: Path) -> pl.DataFrame:
    """Read all images that can be used, in the table's order; reject the others.

    Returns:
        image_id, path, patient_id, study_id, view, view_position, time, split, dicom (its path), impression, findings, rows.

    Raises:
        MedstError: the table is missing or lacks a column.
    """
    table = writer.number_rows(read_csv(raw / TABLE, COLUMNS))
    day = pl.col("patient_report_date_order").cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    day = pl.when(day.abs() <= MOST_DAYS).then(day)
    path = pl.col("path_to_image").str.strip_suffix(".jpg").str.strip_suffix(".png")
    images = table.select(
        image_id=path,
        path="path_to_image",
        patient_id="deid_patient_id",
        study_id=path.str.extract(STUDY),
        view=pl.col("frontal_lateral").str.to_lowercase().replace_strict(VIEWS, default=None, return_dtype=pl.String),
        view_position=pl.when(pl.col("frontal_lateral") == "Lateral").then(pl.lit("LATERAL")).otherwise("ap_pa"),
        time=(pl.datetime(2000, 1, 1) + pl.duration(days=day)).cast(pl.Datetime("us")),
        split=pl.col("split").str.to_lowercase().replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String),
        dicom="path_to_dcm",
        impression="section_impression",
        findings="section_findings",
        rows="rows",
    )
    return writer.reject_where(
        images,
        "row",
        (pl.any_horizontal(pl.col("image_id", "patient_id", "study_id").is_null()), "an id or path is missing"),
        (~pl.col("image_id").is_first_distinct(), "more than once in the table; its first row counts"),
        (pl.col("view").is_null(), "neither Frontal nor Lateral"),
        (pl.col("split").is_null(), "its split is not train, valid or test"),
        (pl.col("time").is_null(), "patient_report_date_order is not a number"),
    )


def find_images(raw: Path, given: Path | None, images: pl.DataFrame) -> tuple[Path, pl.Expr]:
    """Find the folder of the images, and their paths in it: PNG before DICOM.

    Raises:
        MedstError: there is none.
    """
    sample = images.head(200)
    base = given or raw
    for folder, suffix in FOLDERS:
        named = pl.col("dicom") if suffix == ".dcm" else pl.col("image_id") + suffix
        paths = sample.select(path=named)["path"].drop_nulls()
        if any((base / folder / path).is_file() for path in paths):
            return base / folder, named
    raise MedstError(
        f"No picture found (looked for {sample['image_id'][0]}.png, .jpg and .dcm in {base}, its PNG and its DICOM "
        "folder); download PNG.zip or the DICOM files of CheXpert Plus, or give their folder with --images."
    )


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    images = read_images(writer, raw)
    frontals = images.filter(view="frontal").select("study_id")
    if frontals.is_empty():
        raise MedstError(f"{raw / TABLE} names no frontal image that can be used.")
    root, named = find_images(raw, options.images, images)
    studies = study_sections(writer, images).join(frontals, on="study_id", how="semi", maintain_order="left")
    sections = studies.select("impression", "findings").iter_rows()
    found = [section_text(impression, findings, options.text == "whole") for impression, findings in sections]
    texts = pl.DataFrame(found, schema=TEXT_COLUMNS, orient="row")
    texts = texts.with_columns(studies["study_id"], path=pl.lit(TABLE))
    labels = _read_chexbert(writer, raw / LABEL_FILE) if (raw / LABEL_FILE).is_file() else None
    located = images.with_columns(path=named).drop("dicom", "impression", "findings")
    located = writer.reject_where(located, "row", (pl.col("path").is_null(), "no path_to_dcm"))
    return write_pairs(writer, root, located, texts, labels, options.frontal)


def study_sections(writer: Writer, images: pl.DataFrame) -> pl.DataFrame:
    """study_id, impression and findings: the first that any image of the study has. Others are noted in rejected.csv."""
    stripped = images.with_columns(pl.col("impression", "findings").str.strip_chars().replace("", None))
    for name in ("impression", "findings"):
        other = pl.col(name) != pl.col(name).drop_nulls().first().over("study_id")
        reason = f"kept; an earlier row of its study has another section_{name}, which counts"
        writer.reject_where(stripped, "row", (other, reason))
    first = pl.col("impression", "findings").drop_nulls().first().fill_null("")
    return stripped.group_by("study_id", maintain_order=True).agg(first)


def _read_chexbert(writer: Writer, file: Path) -> pl.DataFrame:
    """Read the labels that CheXbert gave the reports: one JSON object per line, by the image's path."""
    schema = dict.fromkeys(("path_to_image", *LABELS), pl.String)
    try:
        table = pl.read_ndjson(file, schema=schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MedstError(f"{file} can't be read as JSON lines ({str(error).splitlines()[0]}).") from error
    table = table.select("path_to_image", *LABELS, study_id=pl.col("path_to_image").str.extract(STUDY))
    nameless = table.filter(pl.col("study_id").is_null())
    writer.reject("row", nameless["path_to_image"], None, f"in {file.name}, but its path names no study")
    return read_labels(writer, table.filter(pl.col("study_id").is_not_null()), str(file))
