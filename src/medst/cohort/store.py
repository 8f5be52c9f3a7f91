"""A cohort on disk, opened read-only; writer.py makes it.

    cohort.json       data set, options, sources, counts, fingerprint; written last
    pairs.parquet     a row a pair; an ms-cxr-t cohort has comparisons.parquet and sentences.parquet instead, rsna and covidx
                      labelled.parquet
    images.npy        uint8 (N, 256, 256), memory-mapped
    images.parquet    a row an image
    rejected.csv      all that was left out, and why

What is here has no clock time and no absolute path in it: the same input gives the same bytes.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst.errors import MedstError

SCHEMA = 1
TABLES = ("pairs", "comparisons", "sentences", "labelled")

Progress = Callable[[int, int], None]


@dataclass
class Cohort:
    """An opened cohort.

    Attributes:
        path: its folder.
        meta: the content of cohort.json.
        images: uint8 (N, 256, 256), memory-mapped.
        image_table: a row an image, in the order of `images`.
        pairs: patient_id, study_id, time, split, report, frontal, lateral, labels; None in a benchmark cohort.
        comparisons: finding, patient_id, study_id, current, previous, progression; None elsewhere.
        sentences: sentence_1, sentence_2, category, subset; None elsewhere.
        labelled: patient_id, image_id, image, split, label (index into `meta["classes"]`), and what else a benchmark gives;
            None elsewhere.
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


def open_cohort(path: Path) -> Cohort:
    """Open a finished cohort.

    Raises:
        MedstError: there is none, it is unfinished, damaged or of another schema.
    """
    path = Path(path)
    meta = read_meta(path)
    if meta is None:
        if part_path(path).exists():
            raise MedstError(f"{path}: this cohort is not finished; run the same `medst prepare` again to go on.")
        raise MedstError(f"{path}: no cohort here (there is no cohort.json); make one with `medst prepare`.")
    try:
        tables = {
            name: pl.read_parquet(path / f"{name}.parquet") for name in TABLES if (path / f"{name}.parquet").exists()
        }
        image_table = pl.read_parquet(path / "images.parquet")
        images = np.load(path / "images.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError, pl.exceptions.PolarsError) as error:
        raise MedstError(f"{path}: this cohort is damaged ({error}); prepare it again.") from error
    if len(images) != image_table.height:
        raise MedstError(
            f"{path}: this cohort is damaged (images.npy has {len(images)} images, images.parquet {image_table.height}); "
            "prepare it again."
        )
    return Cohort(path, meta, images, image_table, **tables)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The content of cohort.json, or None where there is none.

    Raises:
        MedstError: it is damaged or of another schema.
    """
    file = path / "cohort.json"
    if not file.is_file():
        return None
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MedstError(f"{file} is damaged ({error}); prepare the cohort again.") from error
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != SCHEMA:
        raise MedstError(f"{path} has cohort schema {schema}, this medst reads {SCHEMA}; prepare it again.")
    return meta


def part_path(path: Path) -> Path:
    """Where a cohort grows until it is whole."""
    path = Path(os.path.abspath(path))  # "." has no name to add to
    return path.with_name(path.name + ".part")
