"""Embeddings of a whole cohort as Parquet, a file for every few thousand rows, so that a stopped job resumes.

OUT is a folder that polars, pandas, DuckDB and Spark read as one table; what is in it is said in embed.json,
and a file under its final name is whole.
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
        model: folder of a model.
        cohort: a prepared cohort of any kind.
        out: folder for embed.json and part-00000.parquet and so on; one that was stopped is resumed.
        rows: rows per file; memory grows with it and not with the cohort.
        progress: called with (rows done, rows in all, a note).

    Returns:
        What embed.json says: fingerprints of model and cohort, `rows`, `dim`, `files`.

    Raises:
        MedstError: no model or cohort there, rows below 1, `out` holds other embeddings or something else, or another
            process writes it.
    """
    if rows < 1:
        raise MedstError(f"rows is {rows}; give 1 or more.")
    loaded, opened = load(model, device="cpu"), open_cohort(cohort)
    table = opened.image_table if opened.pairs is None else opened.pairs.select(_PAIRS)
    said = {
        "schema": SCHEMA,
        "medst_version": __version__,
        "numerics": NUMERICS,
        "model": loaded.fingerprint,
        "cohort": opened.fingerprint,
        "dataset": str(opened.meta["dataset"]),
        "rows": table.height,
        "dim": loaded.model.settings.embedding,
        "rows_a_file": rows,
        "files": -(-table.height // rows),
    }
    with claim(out):
        _begin(out, said)
        for number, start in enumerate(range(0, table.height, rows)):
            file = out / f"part-{number:05d}.parquet"
            if not _is_whole(file, min(rows, table.height - start)):
                parquet = BytesIO()
                _embedded(loaded, opened, table, start, rows).write_parquet(parquet)
                write_bytes(file, parquet.getbuffer())
            if progress is not None:
                progress(min(start + rows, table.height), table.height, file.name)
    return said


def _is_whole(file: Path, rows: int) -> bool:
    """Whether a file of an earlier run is there and can be kept; a damaged one is written again."""
    try:
        return file.is_file() and read_table(file, {"image": pl.List(pl.Float32)}).height == rows
    except (OSError, ValueError):
        return False


def _embedded(loaded: Model, cohort: Cohort, table: pl.DataFrame, start: int, rows: int) -> pl.DataFrame:
    part = table.slice(start, rows)
    if cohort.pairs is None:
        images = np.arange(start, start + part.height)
        return part.with_columns(image=_column(image_features(loaded, cohort, images).embedding))
    image, report = embed_pairs(loaded, cohort, cohort.pairs.slice(start, rows))
    return part.with_columns(image=_column(image), report=_column(report))


def _column(embeddings: np.ndarray) -> pl.Series:
    return pl.Series(embeddings, dtype=pl.Array(pl.Float32, embeddings.shape[1])).arr.to_list()


def _begin(out: Path, said: dict[str, Any]) -> None:
    """Take a new folder, or one with the same embeddings."""
    file = out / "embed.json"
    if file.is_file():
        before = {"numerics": 1} | read_json(file, "give a new folder")  # the only version before it was written down
        other = [name for name in said if name != "medst_version" and before.get(name) != said[name]]
        if other:
            raise MedstError(f"{out} holds embeddings of another {other[0].replace('_', ' ')}; give a new folder.")
    elif is_free(out):
        write_json(file, said)
    else:
        raise MedstError(f"{out} is not empty and holds no embeddings; give a new folder.")
    for leftover in out.iterdir():
        if is_leftover(leftover):
            leftover.unlink()
