"""Embeddings of a whole cohort as Parquet, a file for every few thousand rows, so that a stopped job goes on.

Unusual here: OUT is a folder that polars, pandas, DuckDB and Spark read as one table; what is in it is said in embed.json,
and a file under its final name is whole.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medst import __version__
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError
from medst.evaluate.features import embed_images, embed_pairs
from medst.weights import Loaded, load

Progress = Callable[[int, int, str], None]
ROWS = 4096
SCHEMA = 1
_PAIRS = ("patient_id", "study_id", "time", "split", "frontal", "lateral")


def embed(
    model: Path, cohort: Path, out: Path, *, rows: int = ROWS, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the embeddings of a cohort.

    Of a cohort with pairs a row a pair: its ids and rows of images, `image` (the frontal view together with the lateral one
    where there is one) and `report`. Of any other cohort a row an image: what its table of images says, and `image`. Both
    are lists of `dim` float32 of unit length.

    Args:
        model: folder of a model.
        cohort: a prepared cohort of any kind.
        out: folder for embed.json and part-00000.parquet and so on; one that was stopped goes on where it was.
        rows: a file; memory grows with it and not with the cohort.
        progress: called with (rows done, rows in all, a note).

    Returns:
        What embed.json says: fingerprints of model and cohort, `rows`, `dim`, `files`.

    Raises:
        MedstError: no model or cohort there, rows below 1, or `out` holds other embeddings or something else.
    """
    if rows < 1:
        raise MedstError(f"rows is {rows}; give 1 or more.")
    loaded, opened = load(model), open_cohort(cohort)
    table = opened.image_table if opened.pairs is None else opened.pairs.select(_PAIRS)
    said = {
        "schema": SCHEMA,
        "medst_version": __version__,
        "model": loaded.fingerprint,
        "cohort": opened.fingerprint,
        "dataset": str(opened.meta["dataset"]),
        "rows": table.height,
        "dim": loaded.model.settings.embedding,
        "rows_a_file": rows,
        "files": -(-table.height // rows),
    }
    _claim(out, said)
    for number, start in enumerate(range(0, table.height, rows)):
        file = out / f"part-{number:05d}.parquet"
        if not file.is_file():
            part = file.with_suffix(".part")
            _embedded(loaded, opened, table, start, rows).write_parquet(part)
            os.replace(part, file)
        if progress is not None:
            progress(min(start + rows, table.height), table.height, file.name)
    return said


def _embedded(loaded: Loaded, cohort: Cohort, table: pl.DataFrame, start: int, rows: int) -> pl.DataFrame:
    part = table.slice(start, rows)
    if cohort.pairs is None:
        return part.with_columns(image=_column(embed_images(loaded, cohort, np.arange(start, start + part.height))))
    image, report = embed_pairs(loaded, cohort, cohort.pairs.slice(start, rows))
    return part.with_columns(image=_column(image), report=_column(report))


def _column(embeddings: np.ndarray) -> pl.Series:
    return pl.Series(embeddings, dtype=pl.Array(pl.Float32, embeddings.shape[1])).arr.to_list()


def _claim(out: Path, said: dict[str, Any]) -> None:
    """Take a new folder, or one with the same embeddings."""
    file = out / "embed.json"
    if file.is_file():
        try:
            before = json.loads(file.read_text())
        except ValueError as error:
            raise MedstError(f"{file} is damaged: {error}; give a new folder.") from error
        if before != said:
            other = [name for name in said if before.get(name) != said[name]]
            raise MedstError(f"{out} holds embeddings of another {other[0].replace('_', ' ')}; give a new folder.")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MedstError(f"{out} is there and no folder of embeddings; give a new one.")
    out.mkdir(parents=True, exist_ok=True)
    part = out / "embed.json.part"
    part.write_text(json.dumps(said, indent=1) + "\n")
    os.replace(part, file)
