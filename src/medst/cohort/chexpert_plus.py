"""CheXpert Plus to a cohort of pairs: its table of reports and paths, with PNG or DICOM pictures.

It gives no dates but the order of a patient's reports, so `time` only orders: the n-th report has day n of the
year 2000, and cohort.json says `"time": "order"`.
"""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, Sources, read_labels, write_pairs
from medst.cohort.raw_tables import digest, read_csv
from medst.cohort.report_text import loses_letters, section_text
from medst.cohort.writer import Writer
from medst.errors import MedstError

OPTIONS = ("images", "frontal", "text", "decode", "intensity")
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
RENAMED = {"train": "train", "valid": "valid", "validate": "valid", "test": "test"}
MOST_DAYS = 1_000_000
FOLDERS = (("PNG", ".png"), ("PNG/PNG", ".png"), ("", ".png"), ("", ".jpg"), ("DICOM", ".dcm"), ("", ".dcm"))


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this folder is made from: the start of cohort.json.

    Raises:
        MedstError: the folder or the table is missing.
    """
    labels = [raw / LABEL_FILE] if (raw / LABEL_FILE).is_file() else []
    return {
        "dataset": "chexpert-plus",
        "dataset_version": TABLE.removeprefix("df_chexpert_plus_").removesuffix(".csv"),
        "options": options.record(OPTIONS),
        "source": digest([raw / TABLE, *labels]),
        "time": "order",
    }


def read_images(writer: Writer, raw: Path) -> pl.DataFrame:
    """All images that can take part, in the table's order; the others are noted in `writer`.

    Returns:
        image_id, patient_id, study_id, view, view_position, time, split, dicom (its path), impression, findings, rows.

    Raises:
        MedstError: the table is missing or lacks a column.
    """
    table = writer.number_rows(read_csv(raw / TABLE, COLUMNS))
    writer.seen["row"] = table.height
    day = pl.col("patient_report_date_order").cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    day = pl.when(day.abs() <= MOST_DAYS).then(day)
    path = pl.col("path_to_image").str.strip_suffix(".jpg").str.strip_suffix(".png")
    images = table.select(
        image_id=path,
        path="path_to_image",
        patient_id="deid_patient_id",
        study_id=path.str.extract(r"([^/]+/[^/]+)/[^/]+$"),
        view=pl.col("frontal_lateral").str.to_lowercase().replace_strict(VIEWS, default=None, return_dtype=pl.String),
        view_position=pl.when(pl.col("frontal_lateral") == "Lateral").then(pl.lit("LATERAL")).otherwise("ap_pa"),
        time=pl.datetime(2000, 1, 1) + pl.duration(days=day),
        split=pl.col("split").str.to_lowercase().replace_strict(RENAMED, default=None, return_dtype=pl.String),
        dicom="path_to_dcm",
        impression="section_impression",
        findings="section_findings",
        rows="rows",
    )
    for where, reason in (
        (pl.any_horizontal(pl.col("image_id", "patient_id", "study_id").is_null()), "an id or path is missing"),
        (~pl.col("image_id").is_first_distinct(), "more than once in the table; its first row counts"),
        (pl.col("view").is_null(), "neither Frontal nor Lateral"),
        (pl.col("split").is_null(), "its split is none of train, valid and test"),
        (pl.col("time").is_null(), "patient_report_date_order is no number"),
    ):
        images = writer.reject_where(images, where, "row", reason)
    return images.with_columns(pl.col("time").cast(pl.Datetime("us")))


def find_images(raw: Path, given: Path | None, images: pl.DataFrame) -> tuple[Path, pl.Expr]:
    """Where the pictures are, and their paths below that: PNG before DICOM.

    Raises:
        MedstError: none is found.
    """
    sample = images.head(200)
    for base in [given] if given else [raw]:
        for folder, suffix in FOLDERS:
            named = pl.col("dicom") if suffix == ".dcm" else pl.col("image_id") + suffix
            if any(
                (base / folder / path).is_file() for path in sample.select(named.alias("path"))["path"].drop_nulls()
            ):
                return base / folder, named
    raise MedstError(
        f"No picture found (looked for {sample['image_id'][0]}.png, .jpg and .dcm in {given or raw}, its PNG and its DICOM "
        "folder); download PNG.zip or the DICOM files of CheXpert Plus, or give their folder with --images."
    )


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    images = read_images(writer, raw)
    if images.filter(view="frontal").is_empty():
        raise MedstError(f"{raw / TABLE} names no frontal image that can take part.")
    root, named = find_images(raw, options.images, images)
    frontals = images.filter(view="frontal").select("study_id")
    studies = study_sections(writer, images).join(frontals, on="study_id", how="semi", maintain_order="left")
    whole = options.text == "whole"
    found = [
        section_text(impression, findings, whole)
        for impression, findings in studies.select("impression", "findings").iter_rows()
    ]
    sections = studies.select("impression", "findings").iter_rows()
    losing = 0 if whole else sum(loses_letters(impression, findings) for impression, findings in sections)
    texts = studies.select("study_id", path=pl.lit(TABLE)).with_columns(
        pl.Series("report", [text for text, _ in found], dtype=pl.String),
        pl.Series("reason", [reason for _, reason in found], dtype=pl.String),
        kind=pl.lit("text"),
    )
    labels = _read_labels(writer, raw / LABEL_FILE) if (raw / LABEL_FILE).is_file() else None
    located = images.with_columns(path=named).drop("dicom", "impression", "findings")
    located = writer.reject_where(located, pl.col("path").is_null(), "row", "no path_to_dcm")
    nothing = f"{raw / TABLE}: no study has both a frontal image and a usable report."
    return write_pairs(
        writer, root, Sources(located, texts, labels, timed=False, losing=losing), options.frontal, nothing
    )


def study_sections(writer: Writer, images: pl.DataFrame) -> pl.DataFrame:
    """study_id, impression and findings: the first that any image of the study has; another one is noted in `writer`."""
    stripped = images.with_columns(pl.col("impression", "findings").str.strip_chars().replace("", None))
    for name in ("impression", "findings"):
        other = stripped.filter(pl.col(name) != pl.col(name).drop_nulls().first().over("study_id"))
        reason = f"kept; an earlier row of its study has another section_{name}, which counts"
        writer.reject("row", other["image_id"], other["path"], reason, other["rows"])
    first = pl.col("impression", "findings").drop_nulls().first().fill_null("")
    return stripped.group_by("study_id", maintain_order=True).agg(first)


def _read_labels(writer: Writer, file: Path) -> pl.DataFrame:
    """Labels that CheXbert gave the reports: a JSON object a line, by the image's path."""
    schema = dict.fromkeys(("path_to_image", *LABELS), pl.String)
    try:
        table = pl.read_ndjson(file, schema=schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise MedstError(f"{file} can't be read as JSON lines ({str(error).splitlines()[0]}).") from error
    study = pl.col("path_to_image").str.extract(r"([^/]+/[^/]+)/[^/]+$")
    table = table.select("path_to_image", *LABELS, study_id=study)
    nameless = table.filter(pl.col("study_id").is_null())
    writer.reject("row", nameless["path_to_image"], None, f"in {file.name}, but its path names no study")
    return read_labels(writer, table.filter(pl.col("study_id").is_not_null()), str(file))
