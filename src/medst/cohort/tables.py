"""The CSV files of raw data sets, read as text columns or refused with a sentence."""

from pathlib import Path

import polars as pl

from medst.errors import MedstError


def read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a CSV file, gzipped or not, all columns as text.

    Args:
        path: the file; `path.gz` is taken where only that exists, and the other way round.
        columns: must be there.

    Raises:
        MedstError: the file is missing or no CSV, or lacks a column.
    """
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    found = next((p for p in (path, plain, plain.with_name(plain.name + ".gz")) if p.is_file()), None)
    if found is None:
        raise MedstError(f"{path}: no such file; it is part of the data set, so check the folder or download it again.")
    try:
        table = pl.read_csv(found, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise MedstError(f"{found} can't be read as a CSV file ({str(error).splitlines()[0]}).") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise MedstError(f"{found} has no column {', '.join(missing)}; it has {', '.join(table.columns)}.")
    return table


def study_time(date: pl.Expr, time: pl.Expr) -> pl.Expr:
    """StudyDate (yyyymmdd) and StudyTime (hhmmss.fff, leading zeros possibly lost) as a datetime; null if impossible."""
    seconds = time.str.split(".").list.first().str.zfill(6)
    return (date.str.split(".").list.first() + seconds).str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False)
