"""A user's own CSV or Parquet file to a cohort of pairs: the way in for any hospital.

Columns: patient, study, time, frontal and report; and, as far as there are any, lateral, split and the 14 CheXpert labels. A
row is a frontal image; paths are relative to the table's folder, or to --images. In place of `report` there may be
`findings` and `impression`.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, SPLITS, Sources, read_labels, write_pairs
from medst.cohort.reports import HEADER, report_text, section_text
from medst.cohort.splits import draw_splits
from medst.cohort.tables import read_table
from medst.cohort.writer import Writer
from medst.errors import MedstError

OPTIONS = ("images", "frontal", "text", "decode", "intensity")
NEEDED = ("patient", "study", "time", "frontal")
RENAMED = {"train": "train", "training": "train", "valid": "valid", "validate": "valid", "val": "valid", "test": "test"}
INDENT = re.compile(r"(?m)^[ \t]*")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this table is made from: the start of cohort.json.

    Raises:
        MedstError: the table is missing, or lacks a column.
    """
    table = read_own(raw)
    return {
        "dataset": "table",
        "dataset_version": "unknown",
        "options": options.record(OPTIONS),
        "source": {raw.name: hashlib.sha256(raw.read_bytes()).hexdigest()},
        "time": "order" if _ordered(table) else "timestamps",
    }


def read_own(raw: Path) -> pl.DataFrame:
    """The table, all columns as texts, column names in lower case but for the labels.

    Raises:
        MedstError: it is missing, no table, or lacks a column.
    """
    if raw.is_dir():
        raise MedstError(f"{raw} is a folder; give the CSV or Parquet file itself (its columns are in docs/data.md).")
    if raw.suffix.lower() in (".parquet", ".pq"):
        try:
            table = pl.read_parquet(raw)
        except FileNotFoundError as error:
            raise MedstError(f"{raw}: no such file.") from error
        except (pl.exceptions.PolarsError, OSError) as error:
            raise MedstError(f"{raw} can't be read as a Parquet file ({str(error).splitlines()[0]}).") from error
        table = table.select(pl.all().cast(pl.String, strict=False))
    else:
        table = read_table(raw, ())
    labels = {name.lower(): name for name in LABELS}
    names = [name.strip().lower() for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MedstError(f"{raw} has the column {twice[0]} more than once.")
    table.columns = [labels.get(name, name) for name in names]
    missing = [name for name in NEEDED if name not in table.columns]
    if not {"report", "findings", "impression"} & set(table.columns):
        missing.append("report (or findings and impression)")
    if missing:
        raise MedstError(
            f"{raw} has no column {', '.join(missing)}; it has {', '.join(table.columns)[:300]}. See docs/data.md."
        )
    blank = [pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)) for name in table.columns]
    return table.select(blank)


def _ordered(table: pl.DataFrame) -> bool:
    """Whether `time` is small whole numbers, which order a patient's studies and are no time."""
    return bool(table.select(pl.col("time").drop_nulls().str.contains(r"^\d{1,6}$").all()).item())


def read_time(table: pl.DataFrame) -> pl.Series:
    """`time` as datetime: ISO 8601 with or without a time of day, yyyymmdd, or whole numbers; null where it is none."""
    text = pl.col("time").str.strip_chars()
    if _ordered(table):
        parsed = pl.datetime(2000, 1, 1) + pl.duration(days=text.cast(pl.Int64, strict=False))
    else:
        plain = text.str.replace("T", " ").str.replace(r"(Z|[+-]\d\d:?\d\d)$", "")
        forms = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M")
        days = ("%Y-%m-%d", "%Y%m%d")
        parsed = pl.coalesce(
            *(plain.str.to_datetime(form, time_unit="us", strict=False) for form in forms),
            *(plain.str.to_date(form, strict=False).cast(pl.Datetime("us")) for form in days),
        )
    return table.select(parsed.cast(pl.Datetime("us")).alias("time"))["time"]


def text_of(report: str, findings: str, impression: str, whole: bool) -> tuple[str | None, str]:
    """The text of a pair: of the sections, or of a report with or without headers; and why there is none."""
    if findings or impression:
        return section_text(impression, findings, whole)
    if not report:
        return None, "the report is empty"
    lines = "\n" + INDENT.sub(" ", report.replace("\r\n", "\n").replace("\r", "\n"))  # as MIMIC's headers begin
    return report_text(lines, whole) if HEADER.search(lines) else section_text("", report, whole)


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    table = read_own(raw)
    writer.seen["row"] = table.height
    optional = {
        name: pl.lit(None, dtype=pl.String) for name in ("lateral", "split", "report", "findings", "impression")
    }
    table = table.with_columns(**{name: empty for name, empty in optional.items() if name not in table.columns})
    table = table.with_columns(
        time=read_time(table), image_id="frontal", path="frontal", patient_id="patient", study_id="study"
    )
    split_given = table["split"].is_not_null().any()
    known = pl.col("split").str.to_lowercase().replace_strict(RENAMED, default=None, return_dtype=pl.String)
    first = {name: pl.col(name).first().over("study_id") for name in ("patient_id", "report", "findings", "impression")}
    for where, reason in (
        (pl.any_horizontal(pl.col("patient", "study").is_null()), "no patient or no study"),
        (pl.col("frontal").is_null(), "no frontal image"),
        (pl.col("time").is_null(), "time is neither ISO 8601, yyyymmdd nor a whole number"),
        (~pl.col("frontal").is_first_distinct(), "frontal image in an earlier row as well, which counts"),
        (pl.col("patient_id") != first["patient_id"], "its study is another patient's in an earlier row"),
        *(
            (
                pl.col(name).is_not_null() & (pl.col(name) != first[name]),
                f"its study has another {name} in an earlier row",
            )
            for name in ("report", "findings", "impression")
        ),
        *([(known.is_null(), f"its split is none of {', '.join(SPLITS)}")] if split_given else []),
    ):
        table = writer.reject_where(table, where, "row", reason)
    split = table.select(known.alias("split"))["split"] if split_given else draw_splits(table["patient_id"])
    table = table.with_columns(split=split)
    _refuse_leaks(raw, table)
    studies = table.group_by("study_id", maintain_order=True).agg(
        pl.col("report", "findings", "impression").drop_nulls().first().fill_null("")
    )
    whole = options.text == "whole"
    found = [
        text_of(report, findings, impression, whole)
        for report, findings, impression in studies.select("report", "findings", "impression").iter_rows()
    ]
    texts = studies.select("study_id", path=pl.lit(raw.name)).with_columns(
        pl.Series("report", [text for text, _ in found], dtype=pl.String),
        pl.Series("reason", [reason for _, reason in found], dtype=pl.String),
        kind=pl.lit("text"),
    )
    columns = ("image_id", "patient_id", "study_id", "view", "view_position", "time", "split", "path")
    frontal = table.with_columns(view=pl.lit("frontal"), view_position=pl.lit(None, dtype=pl.String)).select(columns)
    lateral = (
        table.filter(pl.col("lateral").is_not_null())
        .with_columns(image_id="lateral", path="lateral", view=pl.lit("lateral"), view_position=pl.lit("LATERAL"))
        .unique("image_id", keep="first", maintain_order=True)
        .select(columns)
    )
    both = lateral.join(frontal, on="image_id", how="semi")
    writer.reject("row", both["image_id"], both["path"], "lateral and frontal at once; kept as frontal")
    lateral = lateral.join(frontal, on="image_id", how="anti", maintain_order="left")
    labels = read_labels(table, str(raw)) if set(LABELS) & set(table.columns) else None
    sources = Sources(pl.concat([frontal, lateral]), texts, labels, timed=writer.header["time"] == "timestamps")
    nothing = f"{raw}: no row has both a frontal image and a usable report."
    return write_pairs(writer, options.images or raw.parent, sources, options.frontal, nothing)


def _refuse_leaks(raw: Path, table: pl.DataFrame) -> None:
    leaks = table.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1).sort("patient_id")
    if leaks.height:
        raise MedstError(
            f"{raw}: {leaks.height} patients are in more than one split ({leaks['patient_id'][0]} is one of them); put all "
            "studies of a patient into one."
        )
