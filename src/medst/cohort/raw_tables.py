"""Read the CSV and Parquet files of raw data sets; CSV columns are text."""

import codecs
import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path

import polars as pl

from medst.child import ChildError, GuardedProcess
from medst.errors import MedstError
from medst.files import sha256

GZIP = b"\x1f\x8b"
OTHERS = {
    b"PK\x03\x04": "it is a spreadsheet such as .xlsx, or another zip file",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet of the old .xls kind",
    b"PAR1": "it is a Parquet file; give it a name that ends in .parquet",
}
"""First bytes of files that are often mistaken for CSV."""
MOST_FIELD = 2**26
"""Most characters in a field; a report may have fewer, see `medst.cohort.report_text.MOST_BYTES`."""
MOST_BYTES = 2 * 2**30
"""Most that a gzipped table may inflate to; also at most `MOST_RATIO` times its size, if that is above `SMALL`."""
MOST_RATIO, SMALL = 200, 64 * 2**20
BLOCK = 20_000
MOST_ROWS = 20_000_000
SECONDS, MEMORY = 600.0, 16 * 2**30
"""Time and memory limits for reading a Parquet file."""


def find_table(
    path: Path, remedy: str = "it is part of the data set, so check the folder or download it again"
) -> Path:
    """Find a file, or its gzipped or unpacked version; `remedy` ends the error message that it is missing.

    Raises:
        MedstError: it is missing.
    """
    if not path.parent.is_dir():
        raise MedstError(f"{path.parent}: no such folder; give the one that holds {path.name}.")
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    for found in (path, plain, plain.with_name(plain.name + ".gz")):
        if found.is_file():
            return found
    raise MedstError(f"{path}: no such file; {remedy}.")


def read_csv(
    path: Path, columns: tuple[str, ...], separator: str | None = ",", remedy: str = "download it again"
) -> pl.DataFrame:
    """Read a CSV file, gzipped or not, all columns as text.

    Quoted fields may hold line breaks. Blank fields are null, and so is every field of a blank line. Ids keep their zeros.

    Args:
        path: the file, see `find_table`.
        columns: required columns.
        separator: between fields; None: the one of `,`, `;`, tab and `|` that splits the header into most columns.
        remedy: what to do about a file that is not such a table; ends the error message.

    Raises:
        MedstError: the file is missing, not a CSV file in UTF-8 (or UTF-16 with a byte order mark), names a column twice,
            lacks a column, or inflates to too much.
    """
    found, usual = find_table(path), csv.field_size_limit(MOST_FIELD)
    try:
        data = _read_bytes(found)
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        table = _parse(TextIOWrapper(BytesIO(data), "utf-16" if utf16 else "utf-8-sig", newline=""), separator)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MedstError(f"{found} is a damaged gzip file ({error}); download or copy it again.") from error
    except (_NotCSV, csv.Error, OSError, UnicodeError) as error:
        reason = _first_damage(data) if isinstance(error, UnicodeError) else str(error).splitlines()[0]
        raise MedstError(f"{found} can't be read as a CSV file ({reason}); {remedy}.") from error
    finally:
        csv.field_size_limit(usual)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        has = ascii(", ".join(table.columns))[1:-1]
        raise MedstError(f"{found} has no column {', '.join(missing)}; it has {has[:300]}.")
    return table


class _NotCSV(Exception):
    """A file that is not a usable table; the message gives the reason in a few words."""


def _first_damage(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 text: byte {data[error.start]:#04x} in line {data.count(10, 0, error.start) + 1}"
    return "not UTF-8 text"


def _read_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:4] in OTHERS:
        raise _NotCSV(OTHERS[data[:4]])
    if not data.startswith(GZIP):
        return data
    most = min(MOST_BYTES, max(SMALL, MOST_RATIO * len(data)))
    with gzip.open(BytesIO(data)) as file:
        inflated = file.read(most + 1)
    if len(inflated) > most:
        raise _NotCSV(f"it inflates to more than {most / 1e6:.0f} MB; unpack it yourself if you trust it")
    return inflated


def _parse(text: TextIOWrapper, separator: str | None) -> pl.DataFrame:
    first = next((line for line in text if line.strip()), "")
    text.seek(0)
    if separator is None:
        separator = max(",;\t|", key=lambda candidate: len(next(csv.reader([first], delimiter=candidate), [])))
    reader = csv.reader(text, delimiter=separator, strict=True)
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            raise _NotCSV("it is empty")
        blocks, rows = [], _rows(reader, len(header))
        while block := list(islice(rows, BLOCK)):
            cells = zip(*block, strict=True)
            blocks.append(pl.DataFrame([pl.Series(str(i), cell, dtype=pl.String) for i, cell in enumerate(cells)]))
    except csv.Error as error:
        raise _NotCSV(f"line {reader.line_num}: {error}; is a quotation mark not closed or not doubled?") from None
    empty = pl.DataFrame(schema={str(i): pl.String for i in range(len(header))})
    table = pl.concat([empty, *blocks], rechunk=True).select(pl.when(pl.all() != "").then(pl.all()))
    # Spreadsheets add columns without a name and without content.
    kept = [column.alias(name) for column, name in zip(table, header, strict=True) if name or column.count()]
    twice = next((name for name, count in Counter(column.name for column in kept).items() if count > 1), None)
    if twice is not None:
        raise _NotCSV(f"it has the column {twice} more than once" if twice else "two of its columns have no name")
    return pl.DataFrame({column.name: column for column in kept})


def _rows(reader: Iterator[list[str]], width: int) -> Iterator[list[str]]:
    for number, row in enumerate(reader, 1):
        if row and len(row) != width:
            raise _NotCSV(f"row {number} has {len(row)} fields, the header has {width}")
        yield row or [""] * width


def read_parquet(path: Path) -> pl.DataFrame:
    """Read a Parquet file from elsewhere. A child process tries it first, because damage can abort polars.

    Raises:
        MedstError: it is missing, damaged, has more than `MOST_ROWS` rows, or needs too much time or memory.
    """
    if not path.is_file():
        raise MedstError(f"{path}: no such file.")
    _try_parquet(path, path.stat().st_mtime_ns, path.stat().st_size)
    return pl.read_parquet(path)


@lru_cache(maxsize=4)
def _try_parquet(path: Path, changed: int, size: int) -> None:
    try:
        with GuardedProcess(seconds=SECONDS, memory=MEMORY) as child:
            child(parquet_rows, path)
    except ChildError as error:
        raise MedstError(f"{path} can't be read as a Parquet file ({error}); write it again, or as CSV.") from None


def parquet_rows(path: Path) -> int:
    """Read a Parquet file completely and return its number of rows.

    Raises:
        MedstError: it can't be read, or has more than `MOST_ROWS`.
    """
    try:
        rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
        if rows > MOST_ROWS:  # a file of a few kilobytes can claim any number
            raise MedstError(f"{path} has {rows} rows; at most {MOST_ROWS} are read, so split it into several tables.")
        return pl.read_parquet(path).height
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MedstError(f"{path} can't be read as a Parquet file ({reason}); write it again, or as CSV.") from None


def digest(paths: list[Path]) -> dict[str, str]:
    """Hexadecimal sha256 of each table's file, by its name without .gz.

    Raises:
        MedstError: one is missing.
    """
    found = {path.name.removesuffix(".gz"): find_table(path) for path in paths}
    return {name: sha256(path) for name, path in found.items()}
