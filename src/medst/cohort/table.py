"""A user's own CSV or Parquet file to a cohort of pairs: the way in for any hospital.

Columns: patient, study, time, frontal and report; and, as far as there are any, lateral, split and the 14 CheXpert labels. A
row is a frontal image; paths are relative to the table's folder, or to --images. In place of `report` there may be
`findings` and `impression`.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from polars import selectors as cs

from medst.cohort.options import Options
from medst.cohort.pairs import LABELS, PAIR_COLUMNS, SPLITS, Sources, read_labels, write_pairs
from medst.cohort.raw_tables import find_table, read_csv, read_parquet
from medst.cohort.report_text import HEADER, loses_letters, report_text, section_text
from medst.cohort.splits import draw_splits
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import sha256

OPTIONS = ("images", "frontal", "text", "decode", "intensity", "labels", "separator", "date_format")
NEEDED = ("patient", "study", "time", "frontal")
PATHS, TEXTS = ("frontal", "lateral"), ("report", "findings", "impression")
USED = ("patient", "study", "time", "split", *PATHS, *TEXTS)
SEPARATORS = {"auto": None, "comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
ADDED = ("image_id", "path", "rows", "view", "view_position")
MOST_BYTES = 1_000_000
"""Of a report, in UTF-8; as for the files of other data sets."""
AMBIGUOUS = re.compile(r"^\d{1,2}([/. -])\d{1,2}([/. -])(\d{2,4})\b")
RENAMED = {"train": "train", "training": "train", "valid": "valid", "validate": "valid", "val": "valid", "test": "test"}
INDENT = re.compile(r"(?m)^[ \t]*")


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """What a cohort of this table is made from: the start of cohort.json.

    `columns` names those that are not used, and of these the ones that look like labels.

    Raises:
        MedstError: the table is missing, lacks a column, or writes dates that can be read in two ways.
    """
    table, unused = read_own(raw, options)
    known = table.select(pl.col(name) for name in unused if name in table.columns)
    numbers = known.select(pl.all().str.strip_chars().cast(pl.Float64, strict=False))
    alike = [
        name
        for name in known.columns
        if known[name].count() and numbers[name].is_in([0.0, 1.0, -1.0]).sum() == known[name].count()
    ]
    return {
        "dataset": "table",
        "dataset_version": "unknown",
        "options": options.record(OPTIONS),
        "source": {raw.name: sha256(find_table(raw))},
        "time": "order" if _ordered(table, options.date_format) else "timestamps",
        "columns": {"unused": unused, "like_labels": alike},
    }


def read_own(raw: Path, options: Options) -> tuple[pl.DataFrame, list[str]]:
    """The table and the names of its columns that are not used.

    Returns:
        All columns as texts, blank ones null; names in lower case, but for labels and what is not used.

    Raises:
        MedstError: it is missing, not a table, lacks a column or gives one twice, has lists in a column that is used, or
            writes dates that can be read in two ways.
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
    labels = {name.lower(): name for name in label_names(options)}
    odd = [name for name in options.labels if name.lower() in (*USED, *PAIR_COLUMNS, *ADDED)]
    if odd:
        raise MedstError(f"--labels {odd[0]}: a label cannot have the name of another column; rename it in {raw}.")
    names = [name.strip().lower() for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MedstError(f"{raw} has the column {twice[0]} more than once.")
    unused = [shown for name, shown in zip(names, table.columns, strict=True) if name not in (*USED, *labels)]
    table.columns = [
        labels.get(name, name if name in USED else shown) for name, shown in zip(names, table.columns, strict=True)
    ]
    missing = [name for name in (*NEEDED, *label_names(options)[len(LABELS) :]) if name not in table.columns]
    if not set(TEXTS) & set(table.columns):
        missing.append("report (or findings and impression)")
    if missing:
        raise MedstError(
            f"{raw} has no column {', '.join(missing)}; it has {', '.join(table.columns)[:300]}. See docs/data.md."
        )
    table = _as_texts(raw, table, [name for name in table.columns if name not in unused])
    _refuse_ambiguous(raw, table, options.date_format)
    return table, unused


def label_names(options: Options) -> tuple[str, ...]:
    """The 14 CheXpert labels and then the user's own, each once whatever its case."""
    names = {name.lower(): name for name in (*options.labels[::-1], *LABELS)}
    return (
        *LABELS,
        *(name for name in dict.fromkeys(options.labels) if names[name.lower()] == name and name not in LABELS),
    )


def _as_texts(raw: Path, table: pl.DataFrame, used: list[str]) -> pl.DataFrame:
    """Blank cells to null, ids and times without blanks around them; columns that cannot be text are refused or dropped."""
    odd = [name for name, dtype in table.schema.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Object)]
    refused = [name for name in odd if name in used]
    if refused:
        raise MedstError(
            f"{raw}: column {refused[0]} holds {table.schema[refused[0]]}, not texts or numbers; give one text for each row."
        )
    # A float column has NaN where others have null: a blank cell, not an id.
    texts = table.select(pl.all().exclude(odd)).with_columns(cs.float().fill_nan(None)).cast(pl.String)
    bare = pl.all().str.strip_chars()
    table = texts.select(pl.when(bare != "").then(pl.all()))
    return table.with_columns(pl.col(name).str.strip_chars() for name in used if name not in (*PATHS, *TEXTS))


def _ordered(table: pl.DataFrame, date_format: str | None) -> bool:
    """Whether `time` is small whole numbers, which order a patient's studies and are no time."""
    return date_format is None and bool(
        table.select(pl.col("time").drop_nulls().str.contains(r"^\d{1,6}$").all()).item()
    )


def _refuse_ambiguous(raw: Path, table: pl.DataFrame, date_format: str | None) -> None:
    if date_format is not None:
        moment = datetime(2023, 9, 4)
        try:
            known = datetime.strptime(moment.strftime(date_format), date_format).date() == moment.date()
        except ValueError:
            known = False
        if not known:
            raise MedstError(f"--date-format {date_format} does not give a day; write it like %d/%m/%Y or %m/%d/%Y.")
        return
    odd = table.filter(pl.col("time").str.contains(AMBIGUOUS.pattern).fill_null(False))
    if odd.height:
        found = AMBIGUOUS.search(odd["time"][0])
        assert found is not None
        rest = f"{found[2]}{'%Y' if len(found[3]) == 4 else '%y'}"
        forms = [f"{first}{found[1]}{second}{rest}" for first, second in (("%d", "%m"), ("%m", "%d"))]
        first, second = (f"'{form}'" if " " in form else form for form in forms)
        raise MedstError(
            f"{raw}: the time '{odd['time'][0]}' can be read in two ways; say which with --date-format, for instance "
            f"{first} if the day comes first or {second} if the month does."
        )


def read_time(table: pl.DataFrame, date_format: str | None = None) -> pl.Series:
    """`time` as datetime; null where the text is neither a time nor a number.

    Args:
        table: with time, as text: ISO 8601 with or without a time of day, yyyymmdd, or whole numbers of up to 6 digits.
        date_format: how it writes a day instead, as `datetime.strptime` takes it.
    """
    text = pl.col("time").str.strip_chars()
    if _ordered(table, date_format):
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
    return table.select(parsed.cast(pl.Datetime("us")).alias("time"))["time"]


def text_of(report: str, findings: str, impression: str, whole: bool) -> tuple[str | None, str]:
    """The text of a pair: of the sections, or of a report with or without headers; and why there is none."""
    if findings or impression:
        return section_text(impression, findings, whole)
    if not report:
        return None, "the report is empty"
    lines = "\n" + INDENT.sub(" ", report.replace("\r\n", "\n").replace("\r", "\n"))  # as MIMIC's headers begin
    return report_text(lines, whole) if HEADER.search(lines) else section_text("", report, whole)


def _read_times(raw: Path, table: pl.DataFrame, date_format: str | None) -> tuple[pl.Series, str]:
    """As `read_time`, and what a text that gives none is; refused where no text gives one."""
    times, written = read_time(table, date_format), table["time"].drop_nulls()
    wrong = f"not of the form {date_format}" if date_format else "neither ISO 8601, yyyymmdd nor a whole number"
    if len(written) and not times.count():
        raise MedstError(
            f"{raw}: no time can be read; the first, '{written[0]}', is {wrong}. "
            "Say how a day is written with --date-format."
        )
    return times, wrong


def _read_texts(studies: pl.DataFrame, name: str, whole: bool) -> tuple[pl.DataFrame, int]:
    """Texts as in `Sources`, of a table with study_id and the columns `TEXTS`; and how many of them lose letters."""
    found: list[tuple[str | None, str, str]] = []
    losing = 0
    for report, findings, impression in studies.select(TEXTS).iter_rows():
        parts = report + findings + impression
        if len(parts.encode()) > MOST_BYTES:
            found.append((None, f"larger than the {MOST_BYTES / 1e6:.0f} MB that are read", "report"))
            continue
        text, reason = text_of(report, findings, impression, whole)
        found.append((text, reason, "text"))
        losing += (
            not whole
            and not parts.isascii()
            and loses_letters(text_of(report, findings, impression, True)[0] or "", "")
        )
    columns = dict.fromkeys(("report", "reason", "kind"), pl.String)
    texts = pl.DataFrame(found, schema=columns, orient="row")
    return studies.select("study_id", path=pl.lit(name)).hstack(texts), losing


def prepare(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """Write the cohort; see `medst.cohort.prepare` for what the arguments are."""
    table, unused = read_own(raw, options)
    table = writer.number_rows(table.drop(unused, strict=False))
    writer.seen["row"] = table.height
    optional = {name: pl.lit(None, dtype=pl.String) for name in USED if name not in table.columns}
    table = table.with_columns(**optional)
    times, wrong = _read_times(raw, table, options.date_format)
    table = table.with_columns(
        time=times,
        **{name: pl.col(of) for name, of in (("image_id", "frontal"), ("path", "frontal"), ("patient_id", "patient"))},
        study_id="study",
    )
    table = writer.reject_where(table, pl.all_horizontal(pl.col(USED).is_null()), "unused", "the row is blank")
    split_given = table["split"].is_not_null().any()
    known = pl.col("split").str.to_lowercase().replace_strict(RENAMED, default=None, return_dtype=pl.String)
    first = {name: pl.col(name).drop_nulls().first().over("study_id") for name in ("patient_id", *TEXTS)}
    for where, reason in (
        (pl.any_horizontal(pl.col("patient", "study").is_null()), "no patient or no study"),
        (pl.col("frontal").is_null(), "no frontal image"),
        (pl.col("time").is_null(), f"time is {wrong}"),
        *([(known.is_null(), f"its split is none of {', '.join(SPLITS)}")] if split_given else []),
        (~pl.col("frontal").is_first_distinct(), "frontal image in an earlier row as well, which counts"),
        (pl.col("patient_id") != first["patient_id"], "its study is another patient's in an earlier row"),
        *((pl.col(name) != first[name], f"its study has another {name} in an earlier row") for name in TEXTS),
    ):
        table = writer.reject_where(table, where, "row", reason)
    split = table.select(known.alias("split"))["split"] if split_given else draw_splits(table["patient_id"])
    table = table.with_columns(split=split)
    _refuse_leaks(raw, table)
    studies = table.group_by("study_id", maintain_order=True).agg(
        pl.col("report", "findings", "impression").drop_nulls().first().fill_null("")
    )
    texts, losing = _read_texts(studies, raw.name, options.text == "whole")
    columns = ("image_id", "patient_id", "study_id", "view", "view_position", "time", "split", "path", "rows")
    frontal = table.with_columns(view=pl.lit("frontal"), view_position=pl.lit(None, dtype=pl.String)).select(columns)
    lateral = (
        table.filter(pl.col("lateral").is_not_null())
        .with_columns(
            image_id="lateral", path="lateral", view=pl.lit("lateral"), view_position=pl.lit("LATERAL"), rows=None
        )
        .select(columns)
    )
    lateral = _first_laterals(writer, lateral)
    both = lateral.join(frontal, on="image_id", how="semi")
    writer.reject("row", both["image_id"], both["path"], "lateral and frontal at once; used as frontal")
    lateral = lateral.join(frontal, on="image_id", how="anti", maintain_order="left")
    names = label_names(options)
    labels = read_labels(writer, table, str(raw), names) if set(names) & set(table.columns) else None
    sources = Sources(pl.concat([frontal, lateral]), texts, labels, writer.header["time"] == "timestamps", losing)
    nothing = f"{raw}: no row has both a frontal image and a usable report."
    return write_pairs(writer, options.images or raw.parent, sources, options.frontal, nothing)


def _first_laterals(writer: Writer, lateral: pl.DataFrame) -> pl.DataFrame:
    """Each lateral image once; one that another study has as well is named."""
    first = pl.col("study_id").first().over("image_id")
    shared = lateral.filter(pl.col("study_id") != first)
    reason = "lateral image of another study in an earlier row, which counts"
    writer.reject("row", shared["image_id"], shared["path"], reason)
    return lateral.unique("image_id", keep="first", maintain_order=True)


def _refuse_leaks(raw: Path, table: pl.DataFrame) -> None:
    leaks = table.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1).sort("patient_id")
    if leaks.height:
        raise MedstError(
            f"{raw}: {leaks.height} patients are in more than one split ({leaks['patient_id'][0]} is one of them); put all "
            "studies of a patient into one."
        )
