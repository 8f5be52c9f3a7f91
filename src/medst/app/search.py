"""Exact search for the studies of a cohort that are most similar to one.

A question is one matrix-vector product: 10 ms and 0.5 GB for a million studies on two cores, four times that for four
million (`benchmarks/use.py`, 128 numbers per study). Memory sets the limit: above some ten million studies, use an
approximate index.
"""

from pathlib import Path
from threading import Lock, Thread

import numpy as np
import polars as pl
from jaxtyping import Float32

from medst.cohort.store import Cohort, read_table
from medst.encode import image_features
from medst.errors import MedstError
from medst.files import read_json
from medst.use import Model

MOST_EMBEDDED = 20_000
"""Pairs that are embedded for the first search; a larger cohort needs `medst embed` beforehand."""
BLOCK = 256
"""Pairs that are embedded at a time."""
PATIENCE = 20.0
"""Seconds that a search waits for the cohort to be embedded before it reports the progress."""


class SearchIndex:
    """Image embeddings of a cohort's pairs, unit rows in the order of the table.

    They are read at once, or made in a thread at the first search. After an error, the next search resumes there.
    """

    def __init__(self, model: Model, cohort: Cohort, embeddings: Path | None) -> None:
        """Args:
            model: encodes if there are no embeddings yet.
            cohort: with pairs.
            embeddings: folder that `medst embed` wrote, or None.

        Raises:
            MedstError: the embeddings belong to another model or cohort, or are unfinished or damaged.
        """
        self.model, self.cohort, self.pairs = model, cohort, cohort.require("pairs")
        self.done, self.failed = 0, ""
        self._parts: list[np.ndarray] = []
        self._thread: Thread | None = None
        self._lock = Lock()
        self._rows = None if embeddings is None else _read(embeddings, model.fingerprint, cohort)

    def rows(self, patience: float = PATIENCE) -> Float32[np.ndarray, "pair dim"]:
        """All embeddings, waiting up to `patience` seconds until they are made.

        Raises:
            MedstError: they are still being made (the message gives the progress), failed, or the cohort is too large.
        """
        if self._rows is None:
            self._wait(patience)
        if self._rows is not None:
            return self._rows
        if self.failed:
            raise MedstError(f"the cohort could not be embedded ({self.failed}); ask again to resume.")
        raise MedstError(
            f"the cohort is being embedded for the first search: {self.done} of {self.pairs.height} studies; "
            "ask again in a moment."
        )

    def _wait(self, patience: float) -> None:
        if self.pairs.height > MOST_EMBEDDED:
            raise MedstError(
                f"this cohort has {self.pairs.height} studies, too many to embed now; run `medst embed MODEL COHORT "
                "OUT` and start the page with --embeddings OUT."
            )
        with self._lock:
            if self._rows is None and (self._thread is None or not self._thread.is_alive()):
                self.failed = ""
                self._thread = Thread(target=self._make, daemon=True)
                self._thread.start()
            thread = self._thread
        if thread is not None:
            thread.join(patience)

    def _make(self) -> None:
        try:
            frontal = self.pairs["frontal"].to_numpy()
            lateral = self.pairs["lateral"].fill_null(-1).to_numpy()
            for start in range(self.done, self.pairs.height, BLOCK):
                rows = slice(start, start + BLOCK)
                found = image_features(self.model, self.cohort, frontal[rows], laterals=lateral[rows])
                self._parts.append(found.embedding)
                self.done = min(start + BLOCK, self.pairs.height)
            self._rows = np.concatenate(self._parts)
            self._parts = []
        except Exception as error:  # nobody else sees an error in a thread
            self.failed = f"{type(error).__name__}: {error}"


def nearest(
    rows: Float32[np.ndarray, "pair dim"],
    row: Float32[np.ndarray, " dim"],
    count: int,
    without: np.ndarray | None = None,
) -> list[tuple[int, float]]:
    """The at most `count` most similar rows and their cosines, best first; rows of equal cosine in order.

    All rows are of unit length; those in `without` are left out.
    """
    cosine = rows @ row
    if without is not None:
        cosine[without] = -np.inf
    count = min(count, int(np.isfinite(cosine).sum()))
    if count < 1:
        return []
    # All that tie with the last one, so that the partition does not decide which of them is found.
    last = np.partition(cosine, len(cosine) - count)[len(cosine) - count]
    candidates = np.flatnonzero(cosine >= last)
    best = candidates[np.argsort(-cosine[candidates], kind="stable")][:count]
    return [(int(i), float(cosine[i])) for i in best]


def _read(folder: Path, fingerprint: str, cohort: Cohort) -> np.ndarray:
    """The image embeddings that `medst embed` wrote for this model and cohort."""
    remedy = "run `medst embed` again, in a new folder"
    if not (folder / "embed.json").is_file():
        raise MedstError(f"{folder}: no finished embeddings here (there is no embed.json); run `medst embed` first.")
    about = read_json(folder / "embed.json", remedy, {"model": str, "cohort": str, "files": int, "dim": int})
    for kind, expected in {"model": fingerprint, "cohort": cohort.fingerprint}.items():
        if about[kind] != expected:
            raise MedstError(f"{folder} holds embeddings of another {kind}; run `medst embed` for this one.")
    try:
        files = [folder / f"part-{number:05d}.parquet" for number in range(about["files"])]
        column = pl.concat([read_table(file, {"image": pl.List(pl.Float32)})["image"] for file in files])
        rows = np.ascontiguousarray(column.list.to_array(about["dim"]).to_numpy(), dtype=np.float32)
    except FileNotFoundError as error:
        raise MedstError(
            f"{folder}: no finished embeddings here; run the same `medst embed` again, it resumes."
        ) from error
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise MedstError(f"{folder}: the embeddings are damaged ({error}); {remedy}.") from error
    if cohort.pairs is None or len(rows) != cohort.pairs.height:
        raise MedstError(f"{folder} holds {len(rows)} rows, which is not the number of the cohort's pairs; {remedy}.")
    return rows
