"""The CSV files of raw data sets, read as text columns or refused with a sentence."""

import hashlib
from pathlib import Path

import polars as pl

from medst.errors import MedstError


def find_table(path: Path) -> Path:
    """The file itself, or the same one gzipped or unpacked.

    Raises:
        MedstError: there is neither.
    """
    if not path.parent.is_dir():
        raise MedstError(f"{path.parent}: no such folder; give the one that holds {path.name}.")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    for found in (path, plain, plain.with_name(plain.name + ".gz")):
        if found.is_file():
            return found
    raise MedstError(f"{path}: no such file; it is part of the data set, so check the folder or download it again.")


def read_table(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read a CSV file, gzipped or not, all columns as text.

    Args:
        path: the file, as in `find_table`.
        columns: must be there.

    Raises:
        MedstError: the file is missing or no CSV, or lacks a column.
    """
    found = find_table(path)
    try:
        table = pl.read_csv(found, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise MedstError(
            f"{found} can't be read as a CSV file ({str(error).splitlines()[0]}); download it again."
        ) from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        has = ascii(", ".join(table.columns))[1:-1]
        raise MedstError(f"{found} has no column {', '.join(missing)}; it has {has[:300]}.")
    return table


def digest(paths: list[Path]) -> dict[str, str]:
    """sha256, hexadecimal, of each table's file, by its name without .gz.

    Raises:
        MedstError: one is missing.
    """
    found = {path.name.removesuffix(".gz"): find_table(path) for path in paths}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}


def study_time(date: pl.Expr, time: pl.Expr) -> pl.Expr:
    """StudyDate (yyyymmdd) and StudyTime (hhmmss.fff, leading zeros possibly lost) as a datetime; null if impossible.

    The fraction counts: studies of the same second are in its order.
    """
    clock = time.str.splitn(".", 2)
    seconds = clock.struct.field("field_0").str.zfill(6)
    fraction = clock.struct.field("field_1").fill_null("").str.slice(0, 6).str.pad_end(6, "0")
    whole = (date.str.split(".").list.first() + seconds).str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False)
    return whole + pl.duration(microseconds=fraction.cast(pl.Int64, strict=False), time_unit="us")
