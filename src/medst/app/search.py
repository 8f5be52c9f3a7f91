"""The studies of a cohort that are most like one: exact search over all of them.

One matrix-vector product a question: 10 ms and 0.5 GB for a million studies on two cores, four times that for four million
(`benchmarks/use.py`, 128 numbers a study). It stops being fine where memory does, from some ten million studies on; take an
approximate index then.
"""

from dataclasses import dataclass
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

MOST = 20_000
"""Pairs that are embedded for the first search; more take `medst embed` beforehand."""
AT_ONCE = 256
"""Pairs between two looks at how far it is."""
PATIENCE = 20.0
"""Seconds that a search waits for the cohort to be embedded before it says how far that is."""


@dataclass(frozen=True, eq=False)
class Index:
    """Unit rows to search in, in the order of the cohort's pairs."""

    rows: Float32[np.ndarray, "pair dim"]

    def nearest(
        self, row: Float32[np.ndarray, " dim"], count: int, without: np.ndarray | None = None
    ) -> list[tuple[int, float]]:
        """The most similar rows and their cosines, best first; rows of equal cosine in order.

        Args:
            row: of unit length.
            count: how many at most.
            without: rows that don't count.
        """
        cosine = self.rows @ row
        if without is not None:
            cosine[without] = -np.inf
        count = min(count, int(np.isfinite(cosine).sum()))
        if count < 1:
            return []
        # All that tie with the last one, so that which of them is shown does not depend on the partition.
        last = np.partition(cosine, len(cosine) - count)[len(cosine) - count]
        candidates = np.flatnonzero(cosine >= last)
        best = candidates[np.argsort(-cosine[candidates], kind="stable")][:count]
        return [(int(i), float(cosine[i])) for i in best]


class Indexing:
    """The index of a cohort: read at once, or made at the first search, in a thread that outlives the question.

    After an error, the next search resumes where it happened.
    """

    def __init__(self, model: Model, cohort: Cohort, embeddings: Path | None) -> None:
        """Args:
            model: encodes where there are no embeddings yet.
            cohort: with pairs.
            embeddings: folder that `medst embed` wrote, or None.

        Raises:
            MedstError: the embeddings are of another model or cohort, unfinished or damaged.
        """
        assert cohort.pairs is not None
        self.model, self.cohort, self.pairs = model, cohort, cohort.pairs
        self.done, self.failed = 0, ""
        self.index: Index | None = None
        self._parts: list[np.ndarray] = []
        self._thread: Thread | None = None
        self._lock = Lock()
        if embeddings is not None:
            self.index = Index(_read(embeddings, model.fingerprint, cohort))

    def get(self, patience: float = PATIENCE) -> Index:
        """The index, if it is there after `patience` seconds.

        Raises:
            MedstError: it is still being made (the message says how far that is), failed, or the cohort is too large.
        """
        if self.index is None:
            if self.pairs.height > MOST:
                raise MedstError(
                    f"this cohort has {self.pairs.height} studies, too many to embed now; run `medst embed MODEL COHORT "
                    "OUT` and start the page with --embeddings OUT."
                )
            with self._lock:
                if self.index is None and (self._thread is None or not self._thread.is_alive()):
                    self.failed = ""
                    self._thread = Thread(target=self._make, daemon=True)
                    self._thread.start()
                thread = self._thread
            if thread is not None:
                thread.join(patience)
        if self.index is None:
            if self.failed:
                raise MedstError(f"the cohort could not be embedded ({self.failed}); ask again to resume.")
            raise MedstError(
                f"the cohort is being embedded for the first search: {self.done} of {self.pairs.height} studies; "
                "ask again in a moment."
            )
        return self.index

    def _make(self) -> None:
        try:
            frontal = self.pairs["frontal"].to_numpy()
            lateral = self.pairs["lateral"].fill_null(-1).to_numpy()
            for start in range(self.done, self.pairs.height, AT_ONCE):
                rows = slice(start, start + AT_ONCE)
                found = image_features(self.model, self.cohort, frontal[rows], laterals=lateral[rows])
                self._parts.append(found.embedding)
                self.done = min(start + AT_ONCE, self.pairs.height)
            self.index = Index(np.concatenate(self._parts))
            self._parts = []
        except Exception as error:  # a thread has nobody else to tell
            self.failed = f"{type(error).__name__}: {error}"


def _read(folder: Path, fingerprint: str, cohort: Cohort) -> np.ndarray:
    remedy = "run `medst embed` again, in a new folder"
    if not (folder / "embed.json").is_file():
        raise MedstError(f"{folder}: no finished embeddings here (there is no embed.json); run `medst embed` first.")
    said = read_json(folder / "embed.json", remedy, {"model": str, "cohort": str, "files": int, "dim": int})
    for what, expected in {"model": fingerprint, "cohort": cohort.fingerprint}.items():
        if said[what] != expected:
            raise MedstError(f"{folder} holds embeddings of another {what}; run `medst embed` for this one.")
    try:
        files = [folder / f"part-{number:05d}.parquet" for number in range(said["files"])]
        column = pl.concat([read_table(file, {"image": pl.List(pl.Float32)})["image"] for file in files])
        rows = np.ascontiguousarray(column.list.to_array(said["dim"]).to_numpy(), dtype=np.float32)
    except FileNotFoundError as error:
        raise MedstError(
            f"{folder}: no finished embeddings here; run the same `medst embed` again, it resumes."
        ) from error
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise MedstError(f"{folder}: the embeddings are damaged ({error}); {remedy}.") from error
    if cohort.pairs is None or len(rows) != cohort.pairs.height:
        raise MedstError(f"{folder} holds {len(rows)} rows, but the cohort's pairs are others; write them anew.")
    return rows
