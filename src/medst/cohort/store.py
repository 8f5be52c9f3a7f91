"""Open a cohort on disk, read-only; writer.py writes it.

    cohort.json       data set, options, sources, counts, fingerprint, digests of the tables; written last
    pairs.parquet     one row per pair; an ms-cxr-t cohort has comparisons.parquet and sentences.parquet instead, rsna and
                      covidx labelled.parquet
    images.npy        uint8 (N, 256, 256), memory-mapped
    images.parquet    one row per image
    rejected.csv      everything that was left out, and why

These files hold no clock time and no absolute path: the same input gives the same bytes.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst.cohort.resize import SIDE
from medst.errors import MedstError
from medst.files import open_regular, part_of, read_json, sha256

SCHEMA = 1
META = {
    "dataset": str,
    "dataset_version": str,
    "options": dict,
    "source": dict,
    "counts": dict,
    "medst_version": str,
    "fingerprint": str,
}
"""Keys that cohort.json must have, see `medst.files.misfit`."""
_TEXT: dict[str, Any] = dict.fromkeys(("patient_id", "study_id"), pl.String)
COLUMNS: dict[str, dict[str, Any]] = {
    "images": {
        "row": pl.Int64,
        **dict.fromkeys(("image_id", "path", "view", "view_position"), pl.String),
        **dict.fromkeys(("height", "width"), pl.Int32),
        "status": pl.String,
    },
    "pairs": _TEXT
    | {"time": pl.Datetime("us"), "split": pl.String, "report": pl.String}
    | {"frontal": pl.Int64, "lateral": pl.Int64, "labels": pl.Struct},
    "comparisons": _TEXT | {"finding": pl.String, "current": pl.Int64, "previous": pl.Int64, "progression": pl.String},
    "sentences": dict.fromkeys(("sentence_1", "sentence_2", "category", "subset"), pl.String),
    "labelled": {"patient_id": pl.String, "image_id": pl.String, "image": pl.Int64, "split": pl.String}
    | {"label": pl.Int64},
}
"""Columns that the tables must have."""
TABLES = {"ms-cxr-t": ("comparisons", "sentences"), "rsna": ("labelled",), "covidx": ("labelled",)}
"""Tables of a data set besides images, for cohorts of earlier versions, whose cohort.json has no list of files."""
TYPES = {
    "text": (pl.String,),
    "whole": (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32),
    "float": (pl.Float32, pl.Float64),
    "truth": (pl.Boolean,),
    "microseconds": (pl.Datetime("us"),),
    "fields": (pl.Struct,),
    "list": (pl.List,),
}
"""Types that a table may hold, by the name that goes into the fingerprint."""
BYTES = {"whole": "<i8", "float": "<f8", "truth": "<u1", "microseconds": "<i8"}
POINTERS = {"pairs": ("frontal", "lateral"), "comparisons": ("current", "previous"), "labelled": ("image",)}
"""Columns that hold rows of images.npy."""
MAY_BE_NULL = ("lateral", "image")
"""For a pair without a lateral view, and for a labelled image that can't be read."""


@dataclass
class Cohort:
    """An opened cohort.

    Attributes:
        path: its folder.
        meta: the content of cohort.json.
        images: uint8 (N, 256, 256), memory-mapped.
        image_table: one row per image, in the order of `images`.
        pairs: patient_id, study_id, time, split, report, frontal, lateral, labels; None in a benchmark cohort.
        comparisons: finding, patient_id, study_id, current, previous, progression; None elsewhere.
        sentences: sentence_1, sentence_2, category, subset; None elsewhere.
        labelled: patient_id, image_id, image, split, label (index into `meta["classes"]`), and further columns; None
            elsewhere.
    """

    path: Path
    meta: dict[str, Any]
    images: np.ndarray
    image_table: pl.DataFrame
    pairs: pl.DataFrame | None = None
    comparisons: pl.DataFrame | None = None
    sentences: pl.DataFrame | None = None
    labelled: pl.DataFrame | None = None

    @property
    def fingerprint(self) -> str:
        """sha256, hexadecimal, over all tables and pixels."""
        return str(self.meta["fingerprint"])

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.meta["dataset"])

    @property
    def classes(self) -> list[str]:
        """Names of the classes of `labelled`."""
        return [str(name) for name in self.meta["classes"]]

    def require(self, name: str, remedy: str = "give another cohort") -> pl.DataFrame:
        """The table of this name.

        Raises:
            MedstError: the cohort has none; `remedy` ends the message, without a full stop.
        """
        table: pl.DataFrame | None = getattr(self, name)
        if table is None:
            held = name.replace("labelled", "labelled images")
            raise MedstError(f"{self.path} has no {held}: it is a {self.dataset} cohort; {remedy}.")
        return table


def open_cohort(path: Path) -> Cohort:
    """Open a finished cohort.

    The columns, digests and row numbers of its tables are checked. The pixels are mapped, not read.

    Raises:
        MedstError: there is none, or it is unfinished, damaged or of another schema.
    """
    path = Path(path)
    meta = read_meta(path)
    if meta is None:
        if part_of(path).exists():
            raise MedstError(f"{path}: this cohort is not finished; run the same `medst prepare` again, it resumes.")
        raise MedstError(f"{path}: no cohort here (there is no cohort.json); make one with `medst prepare`.")
    try:
        listed = meta.get("files") or {  # cohorts of earlier versions have no digests
            f"{name}.parquet": None for name in ("images", *TABLES.get(meta["dataset"], ("pairs",)))
        }
        for name, digest in ({"images.npy": None, "images.parquet": None} | listed).items():
            if not (path / name).exists():
                raise ValueError(f"{name} is missing")
            if digest is not None and sha256(path / name) != digest:
                raise ValueError(f"{name} is not the file that `medst prepare` wrote")
        images = _open_images(path / "images.npy")
        files = {name: path / f"{name}.parquet" for name in COLUMNS}
        tables = {name: read_table(file, COLUMNS[name]) for name, file in files.items() if file.exists()}
        _check_rows(tables, len(images), len(meta.get("classes", ())))
    except (OSError, ValueError, MedstError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise MedstError(
            f"{path}: this cohort is damaged ({reason}); remove the folder and prepare it again."
        ) from error
    return Cohort(path, meta, images, tables.pop("images"), **tables)


def _open_images(file: Path) -> np.ndarray:
    """uint8 (N, 256, 256), memory-mapped."""
    with open_regular(file):
        pass  # numpy would wait for ever at a pipe
    try:
        images = np.lib.format.open_memmap(file, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy raises all kinds of errors for a damaged header
        raise ValueError(f"images.npy: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE) or not images.flags.c_contiguous:
        raise ValueError(f"images.npy holds {images.dtype} {images.shape}, not uint8 (N, {SIDE}, {SIDE})")
    return images


def read_table(file: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Read a Parquet file that medst wrote. It must have `columns` with these types, and may have more.

    Raises:
        ValueError: it is damaged, or lacks a column or has it as another type.
        UnusableFile: it is not a regular file.
        OSError: it is missing or can't be read.
    """
    with open_regular(file):
        pass  # polars would wait for ever at a pipe
    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        raise ValueError(f"{file.name}: {error}") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"{file.name} has no column {', '.join(missing)}")
    for name, dtype in columns.items():
        if table.schema[name] != dtype:
            raise ValueError(f"{file.name}: column {name} is {table.schema[name]}, not {dtype}")
    return table


def _check_rows(tables: Mapping[str, pl.DataFrame], images: int, classes: int) -> None:
    """Raise ValueError for a number that is not the number of an image or class."""
    rows = tables["images"]["row"]
    if len(rows) != images:
        raise ValueError(f"images.npy has {images} images, images.parquet {len(rows)}")
    if not rows.eq_missing(pl.int_range(images, eager=True)).all():
        raise ValueError("images.parquet: column row does not count the images")
    limits = [(name, column, images) for name, columns in POINTERS.items() for column in columns]
    for name, column, below in (*limits, ("labelled", "label", classes)):
        if name not in tables:
            continue
        values = tables[name][column]
        odd = values.filter(~values.is_between(0, below - 1))
        if len(odd):
            raise ValueError(f"{name}.parquet: column {column} holds {odd[0]}, where 0 to {below - 1} exist")
        if column not in MAY_BE_NULL and values.null_count():
            raise ValueError(f"{name}.parquet: column {column} has rows without a number")


def read_meta(path: Path) -> dict[str, Any] | None:
    """Read cohort.json; None if there is none.

    Raises:
        MedstError: it is damaged or of another schema.
    """
    file = path / "cohort.json"
    if not file.exists() and not file.is_symlink():
        return None
    remedy = f"remove {path} and prepare the cohort again"
    meta: dict[str, Any] = read_json(file, remedy)
    if meta.get("schema") != SCHEMA:
        raise MedstError(f"{path} has cohort schema {meta.get('schema')}, this medst reads {SCHEMA}; {remedy}.")
    return dict(read_json(file, remedy, META | ({"files": {str: str}} if "files" in meta else {})))


def digest_table(table: pl.DataFrame) -> str:
    """Hexadecimal sha256 of a table's names, types and values, which does not depend on the version of polars.

    Raises:
        TypeError: a column has a type that cohorts don't use.
    """
    return sha256(chain([str(table.height).encode()], *map(_chunks, table)))


def _chunks(column: pl.Series) -> Iterator[bytes]:
    """Yield the bytes that a column's name, type and values are digested as."""
    kind = next((name for name, dtypes in TYPES.items() if column.dtype in dtypes), None)
    if kind is None:
        raise TypeError(f"column {column.name} has the type {column.dtype}, which has no fingerprint")
    yield json.dumps([column.name, kind, len(column)]).encode()
    yield column.is_null().to_numpy().tobytes()
    known = column.drop_nulls()
    if isinstance(column.dtype, pl.Struct):
        for field in known.struct.fields:
            yield from _chunks(known.struct.field(field))
    elif isinstance(column.dtype, pl.List):
        yield known.list.len().to_numpy().astype("<i8").tobytes()
        yield from _chunks(known.filter(known.list.len() > 0).explode())
    elif kind == "text":
        texts = [text.encode() for text in known]
        yield np.array([len(text) for text in texts], dtype="<i8").tobytes()
        yield b"".join(texts)
    else:
        yield known.to_physical().to_numpy().astype(BYTES[kind]).tobytes()
