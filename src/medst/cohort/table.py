"""A user's own CSV or Parquet file: a cohort of pairs from any hospital.

Columns: patient, study, time, frontal and report; optionally lateral, split and the 14 CheXpert labels. Each row is a
frontal image. Paths are relative to the table's folder, or to --images. Instead of `report` there may be `findings` and
`impression`.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors as cs

from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, PAIR_COLUMNS, SPLITS, draw_splits, read_labels, write_pairs
from medst.cohort.raw_tables import find_table, read_csv, read_parquet
from medst.cohort.report_text import HEADER, MOST_BYTES, TEXT_COLUMNS, TOO_LARGE, Text, report_text, section_text
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import sha256

NEEDED = ("patient", "study", "time", "frontal")
PATHS, TEXTS = ("frontal", "lateral"), ("report", "findings", "impression")
USED = ("patient", "study", "time", "split", *PATHS, *TEXTS)
SEPARATORS = {"auto": None, "comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
ADDED = ("image_id", "path", "rows", "view", "view_position")
AMBIGUOUS = re.compile(r"^\d{1,2}([/. -])\d{1,2}([/. -])(\d{2,4})\b")
SPLIT_NAMES = dict(zip(SPLITS, SPLITS, strict=True)) | {"training": "train", "validate": "valid", "val": "valid"}
INDENT = re.compile(r"(?m)^[ \t]*")
IMAGE_COLUMNS = ("image_id", "patient_id", "study_id", "view", "view_position", "time", "split", "path", "rows")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`. `columns` names the unused ones, and those of them that look like labels."""
    table, unused = read_own_table(raw, options)
    alike = []
    for name in (name for name in unused if name in table.columns):
        numbers = table[name].drop_nulls().str.strip_chars().cast(pl.Float64, strict=False)
        if len(numbers) and numbers.is_in([0.0, 1.0, -1.0]).sum() == len(numbers):
            alike.append(name)
    return {
        "source": {raw.name: sha256(find_table(raw))},
        "time": "order" if _is_order(table, options.date_format) else "timestamps",
        "columns": {"unused": unused, "like_labels": alike},
    }


def read_own_table(raw: Path, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """Read the table, and the names of its unused columns.

    Returns:
        All columns as text, blank cells null; names in lower case, except for labels and unused columns.

    Raises:
        MedstError: it is missing, not a table, lacks a column or has one twice, has lists in a column that is used, or
            has ambiguous dates.
    """
    if raw.is_dir():
        raise MedstError(f"{raw} is a folder; give the CSV or Parquet file itself (its columns are in docs/data.md).")
    if raw.suffix.lower() in (".parquet", ".pq"):
        if options.separator != "auto":
            raise MedstError(f"--separator does nothing for {raw}, which is a Parquet file; leave it out.")
        table = read_parquet(raw)
    else:
        find_table(raw, "check the path")
        remedy = "save it as CSV in UTF-8, or see --separator"
        table = read_csv(raw, (), SEPARATORS[options.separator], remedy)
    table, unused = _rename_columns(raw, table, options)
    missing = [name for name in (*NEEDED, *label_names(options)[len(LABELS) :]) if name not in table.columns]
    if not set(TEXTS) & set(table.columns):
        missing.append("report (or findings and impression)")
    if missing:
        raise MedstError(
            f"{raw} has no column {', '.join(missing)}; it has {', '.join(table.columns)[:300]}. See docs/data.md."
        )
    table = _as_texts(raw, table, [name for name in table.columns if name not in unused])
    if options.date_format is None:
        _check_unambiguous(raw, table)
    else:
        _check_date_format(options.date_format)
    return table, unused


def _rename_columns(raw: Path, table: pl.DataFrame, options: Options) -> tuple[pl.DataFrame, list[str]]:
    labels = {name.lower(): name for name in label_names(options)}
    odd = [name for name in options.labels if name.lower() in (*USED, *PAIR_COLUMNS, *ADDED)]
    if odd:
        raise MedstError(f"--labels {odd[0]}: a label cannot have the name of another column; rename it in {raw}.")
    names = [name.strip().lower() for name in table.columns]
    twice = min((name for name in names if names.count(name) > 1), default=None)
    if twice is not None:
        raise MedstError(f"{raw} has the column {twice} more than once.")
    pairs = list(zip(names, table.columns, strict=True))
    unused = [original for name, original in pairs if name not in (*USED, *labels)]
    table.columns = [labels.get(name, name if name in USED else original) for name, original in pairs]
    return table, unused


def label_names(options: Options) -> tuple[str, ...]:
    """The 14 CheXpert labels, then the user's own ones; each once, whatever its case."""
    names = {name.lower(): name for name in (*options.labels[::-1], *LABELS)}
    own = dict.fromkeys(name for name in options.labels if names[name.lower()] == name and name not in LABELS)
    return (*LABELS, *own)


def _as_texts(raw: Path, table: pl.DataFrame, used: list[str]) -> pl.DataFrame:
    """Convert to text: blank cells become null, and ids and times lose surrounding blanks."""
    odd = [name for name, dtype in table.schema.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Object)]
    refused = [name for name in odd if name in used]
    if refused:
        raise MedstError(
            f"{raw}: column {refused[0]} holds {table.schema[refused[0]]}, not texts or numbers; give one text per row."
        )
    # A float column has NaN where others have null: a blank cell, not an id.
    texts = table.select(pl.all().exclude(odd)).with_columns(cs.float().fill_nan(None)).cast(pl.String)
    table = texts.select(pl.when(pl.all().str.strip_chars() != "").then(pl.all()))
    return table.with_columns(pl.col(name).str.strip_chars() for name in used if name not in (*PATHS, *TEXTS))


def _is_order(table: pl.DataFrame, date_format: str | None) -> bool:
    """Whether `time` has small integers, which order a patient's studies and are not times."""
    return date_format is None and bool(
        table.select(pl.col("time").drop_nulls().str.contains(r"^\d{1,6}$").all()).item()
    )


def _check_date_format(date_format: str) -> None:
    moment = datetime(2023, 9, 4)
    try:
        known = datetime.strptime(moment.strftime(date_format), date_format).date() == moment.date()
    except ValueError:
        known = False
    if not known:
        raise MedstError(f"--date-format {date_format} does not give a day; write it like %d/%m/%Y or %m/%d/%Y.")


def _check_unambiguous(raw: Path, table: pl.DataFrame) -> None:
    odd = table.filter(pl.col("time").str.contains(AMBIGUOUS.pattern).fill_null(False))
    if odd.is_empty():
        return
    found = AMBIGUOUS.search(odd["time"][0])
    assert found is not None
    rest = f"{found[2]}{'%Y' if len(found[3]) == 4 else '%y'}"
    forms = (f"%d{found[1]}%m{rest}", f"%m{found[1]}%d{rest}")
    day_first, month_first = (f"'{form}'" if " " in form else form for form in forms)
    raise MedstError(
        f"{raw}: the time '{odd['time'][0]}' can be read in two ways; say which with --date-format, for instance "
        f"{day_first} if the day comes first or {month_first} if the month does."
    )


def read_time(table: pl.DataFrame, date_format: str | None = None) -> pl.Series:
    """Convert `time` to datetime; null where the text is neither a time nor a number.

    Args:
        table: with time, as text: ISO 8601 with or without a time of day, yyyymmdd, or integers of up to 6 digits.
        date_format: another format of the day, for `datetime.strptime`.
    """
    text = pl.col("time").str.strip_chars()
    if _is_order(table, date_format):
        parsed = pl.datetime(2000, 1, 1) + pl.duration(days=text.cast(pl.Int64, strict=False))
    else:
        plain = text.str.replace(r"(\d)T(\d)", "$1 $2").str.replace(r"(:\d\d(?:\.\d+)?) ?(?:Z|[+-]\d\d:?\d\d)$", "$1")
        if date_format is None:
            plain, days = plain.str.replace(r"^(\d{4})/(\d\d?)/", "$1-$2-"), ["%Y-%m-%d", "%Y%m%d"]
        else:
            days = [date_format]
        timed = "%H" in days[0] or "%I" in days[0]
        forms = days if timed else [days[0] + clock for clock in (" %H:%M:%S%.f", " %H:%M:%S", " %H:%M")]
        parsed = pl.coalesce(
            *(plain.str.to_datetime(form, time_unit="us", strict=False) for form in forms),
            *(plain.str.to_date(day, strict=False).cast(pl.Datetime("us")) for day in days if not timed),
        )
    return table.select(time=parsed.cast(pl.Datetime("us")))["time"]


def pair_text(report: str, findings: str, impression: str, whole: bool) -> Text:
    """The text of a pair, from sections or from a report with or without headers."""
    if findings or impression:
        return section_text(impression, findings, whole)
    if not report:
        return Text(None, "the report is empty")
    lines = "\n" + INDENT.sub(" ", report.replace("\r\n", "\n").replace("\r", "\n"))  # indented as in MIMIC-CXR
    return report_text(lines, whole) if HEADER.search(lines) else section_text("", report, whole)


def _read_texts(studies: pl.DataFrame, name: str, whole: bool) -> pl.DataFrame:
    """Read the texts, see `write_pairs`, from study_id and the columns `TEXTS`."""
    found: list[Text] = []
    for report, findings, impression in studies.select(TEXTS).iter_rows():
        parts = report + findings + impression
        if len(parts.encode()) > MOST_BYTES:
            found.append(Text(None, TOO_LARGE, "report"))
            continue
        text = pair_text(report, findings, impression, whole)
        if not whole and not parts.isascii():
            kept = pair_text(report, findings, impression, True).report or ""
            text = text._replace(loses_letters=not kept.isascii())
        found.append(text)
    texts = pl.DataFrame(found, schema=TEXT_COLUMNS, orient="row")
    return studies.select("study_id", path=pl.lit(name)).hstack(texts)


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    table, unused = read_own_table(raw, options)
    table = writer.number_rows(table.drop(unused, strict=False))
    table = _check_rows(writer, raw, table, options)
    studies = table.group_by("study_id", maintain_order=True).agg(pl.col(TEXTS).drop_nulls().first().fill_null(""))
    texts = _read_texts(studies, raw.name, options.text == "whole")
    frontal = table.with_columns(view=pl.lit("frontal"), view_position=pl.lit(None, dtype=pl.String))
    images = pl.concat([frontal.select(IMAGE_COLUMNS), _laterals(writer, table)])
    names = label_names(options)
    labels = read_labels(writer, table, str(raw), names) if set(names) & set(table.columns) else None
    return write_pairs(writer, options.images or raw.parent, images, texts, labels, options.frontal)


def _check_rows(writer: Writer, raw: Path, table: pl.DataFrame, options: Options) -> pl.DataFrame:
    """Reject unusable rows; the rest with image_id, path, patient_id, study_id, time and split."""
    optional = {name: pl.lit(None, dtype=pl.String) for name in USED if name not in table.columns}
    table = table.with_columns(**optional)
    times, written = read_time(table, options.date_format), table["time"].drop_nulls()
    usual = "neither ISO 8601, yyyymmdd nor a whole number"
    wrong = f"not of the form {options.date_format}" if options.date_format else usual
    if len(written) and not times.count():
        raise MedstError(
            f"{raw}: no time can be read; the first, '{written[0]}', is {wrong}. "
            "Say how a day is written with --date-format."
        )
    table = table.with_columns(time=times, image_id="frontal", path="frontal", patient_id="patient", study_id="study")
    table = writer.reject_where(table, "unused", (pl.all_horizontal(pl.col(USED).is_null()), "the row is blank"))
    split_given = table["split"].is_not_null().any()
    known = pl.col("split").str.to_lowercase().replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)
    first = {name: pl.col(name).drop_nulls().first().over("study_id") for name in ("patient_id", *TEXTS)}
    table = writer.reject_where(
        table,
        "row",
        (pl.any_horizontal(pl.col("patient", "study").is_null()), "no patient or no study"),
        (pl.col("frontal").is_null(), "no frontal image"),
        (pl.col("time").is_null(), f"time is {wrong}"),
        *([(known.is_null(), f"its split is not {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")] if split_given else []),
        (~pl.col("frontal").is_first_distinct(), "frontal image of an earlier row, which counts"),
        (pl.col("patient_id") != first["patient_id"], "its study belongs to another patient in an earlier row"),
        *((pl.col(name) != first[name], f"its study has another {name} in an earlier row") for name in TEXTS),
    )
    table = table.with_columns(split=known if split_given else draw_splits(table["patient_id"]))
    leaks = table.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1).sort("patient_id")
    if leaks.height:
        raise MedstError(
            f"{raw}: {leaks.height} patients are in more than one split, for instance {leaks['patient_id'][0]}; put all "
            "studies of a patient into one."
        )
    return table


def _laterals(writer: Writer, table: pl.DataFrame) -> pl.DataFrame:
    """The lateral images, each once; one that another study has as well, or that is also frontal, is rejected."""
    new = {"view": pl.lit("lateral"), "view_position": pl.lit("LATERAL"), "rows": pl.lit(None, dtype=pl.String)}
    lateral = table.filter(pl.col("lateral").is_not_null()).with_columns(image_id="lateral", path="lateral", **new)
    lateral = lateral.select(IMAGE_COLUMNS)
    shared = lateral.filter(pl.col("study_id") != pl.col("study_id").first().over("image_id"))
    reason = "kept without its lateral image, which another study has in an earlier row"
    writer.reject("row", shared["image_id"], shared["path"], reason)
    lateral = lateral.unique("image_id", keep="first", maintain_order=True)
    frontal = pl.col("image_id").is_in(table["image_id"].unique().to_list())
    return writer.reject_where(lateral, "row", (frontal, "kept; both lateral and frontal, and used as frontal"))
