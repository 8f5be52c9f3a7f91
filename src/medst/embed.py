"""Embeddings of a cohort as Parquet files of a few thousand rows each, so that a stopped job resumes.

OUT is a folder that polars, pandas, DuckDB and Spark read as one table. embed.json describes it. A file under its final name
is complete.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst import NUMERICS, __version__
from medst.cohort.store import Cohort, open_cohort, read_table
from medst.encode import embed_pairs, image_features
from medst.errors import MedstError
from medst.files import claim, is_free, is_leftover, read_json, write_bytes, write_json
from medst.progress import Progress
from medst.use import Model, load

ROWS = 4096
SCHEMA = 1
_PAIRS = ("patient_id", "study_id", "time", "split", "frontal", "lateral")


def embed(
    model: Path, cohort: Path, out: Path, *, rows: int = ROWS, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the embeddings of a cohort.

    A cohort with pairs gives one row per pair: its ids and rows of images, `image` (the frontal view together with the
    lateral one where there is one) and `report`. Any other cohort gives one row per image: its row of images.parquet, and
    `image`. Both are lists of `dim` float32 of unit length.

    Args:
        out: folder for embed.json and part-00000.parquet and so on; a stopped job resumes.
        rows: rows per file; memory grows with it and not with the cohort.
        progress: called with (rows done, rows in all, a note).

    Returns:
        The content of embed.json: fingerprints of model and cohort, `rows`, `dim`, `files`.

    Raises:
        MedstError: no model or cohort there, rows below 1, `out` holds other embeddings or something else, or another
            process writes it.
    """
    if rows < 1:
        raise MedstError(f"rows is {rows}; give 1 or more.")
    loaded, opened = load(model, device="cpu"), open_cohort(cohort)
    table = opened.image_table if opened.pairs is None else opened.pairs.select(_PAIRS)
    description = {
        "schema": SCHEMA,
        "medst_version": __version__,
        "numerics": NUMERICS,
        "model": loaded.fingerprint,
        "cohort": opened.fingerprint,
        "dataset": opened.dataset,
        "rows": table.height,
        "dim": loaded.model.settings.embedding,
        "rows_a_file": rows,
        "files": -(-table.height // rows),
    }
    with claim(out):
        _check_folder(out, description)
        for number, start in enumerate(range(0, table.height, rows)):
            file, part = out / f"part-{number:05d}.parquet", table.slice(start, rows)
            if not _is_complete(file, part.height):
                parquet = BytesIO()
                part.with_columns(**_columns(loaded, opened, start, part.height)).write_parquet(parquet)
                write_bytes(file, parquet.getbuffer())
            if progress is not None:
                progress(start + part.height, table.height, file.name)
    return description


def _is_complete(file: Path, rows: int) -> bool:
    """Whether an earlier job wrote this file; a damaged one is written again."""
    try:
        return file.is_file() and read_table(file, {"image": pl.List(pl.Float32)}).height == rows
    except (OSError, ValueError):
        return False


def _columns(loaded: Model, cohort: Cohort, start: int, rows: int) -> dict[str, pl.Series]:
    if cohort.pairs is None:
        found = {"image": image_features(loaded, cohort, np.arange(start, start + rows)).embedding}
    else:
        image, report = embed_pairs(loaded, cohort, cohort.pairs.slice(start, rows))
        found = {"image": image, "report": report}
    return {
        name: pl.Series(embeddings, dtype=pl.Array(pl.Float32, embeddings.shape[1])).arr.to_list()
        for name, embeddings in found.items()
    }


def _check_folder(out: Path, description: dict[str, Any]) -> None:
    """Accept a new folder, or one with the same embeddings."""
    file = out / "embed.json"
    if file.is_file():
        before = {"numerics": 1} | read_json(file, "give a new folder")  # version 1 did not record it
        other = [name for name in description if name != "medst_version" and before.get(name) != description[name]]
        if other:
            raise MedstError(f"{out} holds embeddings of another {other[0].replace('_', ' ')}; give a new folder.")
    elif is_free(out):
        write_json(file, description)
    else:
        raise MedstError(f"{out} is not empty and does not hold embeddings; give a new folder.")
    for leftover in out.iterdir():
        if is_leftover(leftover):
            leftover.unlink()
