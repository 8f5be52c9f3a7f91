"""Embeddings of another model, read from Parquet files, as a subject of the benchmarks.

A file has rows (id, vector), where an id is an `image_id` of a cohort or a sentence, or rows (current, prior, vector) of two
image ids, for a model that embeds pairs of images. Nothing that a benchmark needs is replaced or left out: a missing row is
an error that names it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32
from numpy.typing import ArrayLike

from medst.cohort.report_text import clean
from medst.cohort.store import Cohort
from medst.encode import ImageFeatures
from medst.errors import MedstError
from medst.files import open_regular, sha256

Key = str | tuple[str, str]
KEYS = (("id",), ("current", "prior"))
"""Columns beside `vector`: those of single images and sentences, or those of pairs."""
EXAMPLES = 3
"""Ids that a message names."""


@dataclass(frozen=True)
class Vectors:
    """Vectors by id, or by the ids of a pair.

    Attributes:
        rows: one per id, as written.
        place: row of each id.
    """

    rows: Float32[np.ndarray, "id dim"] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    place: dict[Key, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Embeddings:
    """A subject that looks up what another model computed.

    Images and texts are compared by the cosine of their vectors; features of probe are the vectors as written.

    Attributes:
        name: the files' names, for messages.
        fingerprint: hexadecimal digest of the files, whatever their order.
        singles: vectors of images and sentences.
        pairs: vectors of (current, prior) pairs of images.
    """

    name: str
    fingerprint: str
    singles: Vectors
    pairs: Vectors

    def images(self, cohort: Cohort, rows: ArrayLike, *, laterals: ArrayLike | None = None) -> ImageFeatures:
        """See `Subject`; `laterals` are not used, because a vector can't be combined with another.

        Raises:
            MedstError: an image has no vector.
        """
        ids = cohort.image_table["image_id"].gather(np.asarray(rows, dtype=np.int64)).to_list()
        found = self._found(self.singles, ids, f"images of {cohort.path.name}")
        unit = _unit(found)
        return ImageFeatures(unit, found, unit)

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
        """See `Subject`; a text is found by itself, or by an id that has the same words when it is cleaned.

        Raises:
            MedstError: a text has no vector, or two ids have its words and different vectors.
        """
        keys = [text if text in self.singles.place else self._cleaned.get(text, text) for text in texts]
        if unclear := sorted({text for text in texts if text not in self.singles.place} & self._unclear):
            raise MedstError(
                f"{self.name}: {len(unclear)} sentences have several vectors, because their ids differ only in case, "
                f"punctuation or digits ({_some(unclear)}); give these cleaned sentences as ids too."
            )
        return _unit(self._found(self.singles, keys, "sentences"))

    def prompts(self, prompts: Mapping[str, list[str]]) -> Float32[np.ndarray, "class dim"]:
        """See `Subject`: the mean of the unit vectors of a class's prompts, of unit length."""
        self.texts([text for texts in prompts.values() for text in texts])  # names all that is missing, of any class
        return _unit(np.stack([self.texts(texts).mean(0) for texts in prompts.values()]))

    def comparisons(
        self, cohort: Cohort, current: ArrayLike, previous: ArrayLike
    ) -> tuple[Float32[np.ndarray, "row dim"], Float32[np.ndarray, "row dim"] | str]:
        """Vectors of pairs of images, of unit length, and those of the swapped pairs, or why there are none.

        Raises:
            MedstError: a pair has no vector.
        """
        names = cohort.image_table["image_id"]
        sides = [names.gather(np.asarray(rows, dtype=np.int64)).to_list() for rows in (current, previous)]
        pairs, swapped = [*zip(*sides, strict=True)], [*zip(*reversed(sides), strict=True)]
        found = _unit(self._found(self.pairs, pairs, f"pairs (current, prior) of {cohort.path.name}"))
        if missing := _missing(self.pairs, swapped):
            needed = len(set(swapped))
            return found, (
                f"it needs the swapped pairs too, and {self.name} has no vector for {len(missing)} of {needed} of them, "
                f"such as {_some(missing)}"
            )
        return found, _unit(self._found(self.pairs, swapped, "swapped pairs"))

    def has_images(self, cohort: Cohort) -> bool:
        """Whether any image of a cohort has a vector of its own."""
        return any(image in self.singles.place for image in cohort.image_table["image_id"].drop_nulls())

    @cached_property
    def _cleaned(self) -> dict[str, str]:
        """The first id of each cleaned text."""
        found: dict[str, str] = {}
        for key in self.singles.place:
            found.setdefault(clean(str(key), fewest_words=1), str(key))
        return found

    @cached_property
    def _unclear(self) -> set[str]:
        """Cleaned texts of several ids whose vectors differ."""
        rows, place = self.singles.rows, self.singles.place
        words = ((clean(str(key), fewest_words=1), row) for key, row in place.items())
        return {text for text, row in words if not np.array_equal(rows[place[self._cleaned[text]]], rows[row])}

    def _found(self, vectors: Vectors, keys: Sequence[Key], what: str) -> Float32[np.ndarray, "key dim"]:
        if missing := _missing(vectors, keys):
            raise MedstError(
                f"{self.name} has no vector for {len(missing)} of {len(set(keys))} {what}, such as {_some(missing)}."
            )
        return vectors.rows[[vectors.place[key] for key in keys]]


def read_embeddings(files: Sequence[Path]) -> Embeddings:
    """Read the embeddings of one model.

    Raises:
        MedstError: a file is not Parquet, or lacks the columns; a row has no id, or a vector with a number that
            is missing, infinite or not a number; an id is given twice; vectors differ in length.
        OSError: a file is missing.
    """
    tables: dict[tuple[str, ...], list[tuple[str, pl.DataFrame]]] = {}
    for file in files:
        keys, table = _read(file)
        tables.setdefault(keys, []).append((file.name, table))
    singles, pairs = (_vectors(keys, tables[keys]) if keys in tables else Vectors() for keys in KEYS)
    digest = sha256(sorted(sha256(file).encode() for file in files)) if len(files) > 1 else sha256(files[0])
    return Embeddings(", ".join(file.name for file in files), digest, singles, pairs)


def _read(file: Path) -> tuple[tuple[str, ...], pl.DataFrame]:
    if file.is_dir():
        raise MedstError(f"{file} is a folder, not a Parquet file; give cohorts before --embeddings.")
    with open_regular(file):
        pass  # polars would wait for ever at a pipe
    try:
        table = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        raise MedstError(f"{file} is not a Parquet file ({str(error).splitlines()[0]}).") from error
    fitting = [keys for keys in KEYS if {*keys, "vector"} <= set(table.columns)]
    if len(fitting) != 1:
        raise MedstError(
            f"{file} has the columns {', '.join(table.columns)}; --embeddings needs id and vector, or current, prior and "
            "vector."
        )
    [keys] = fitting
    for name in keys:
        if table.schema[name] != pl.String:
            raise MedstError(f"{file}: column {name} is {table.schema[name]}, not text; write ids as text.")
        if empty := table[name].null_count():
            raise MedstError(f"{file}: {empty} rows have no {name}.")
    kind = table.schema["vector"]
    if not isinstance(kind, pl.List | pl.Array) or not kind.inner.is_numeric():
        raise MedstError(f"{file}: column vector is {kind}, not lists of numbers.")
    if not table.height:
        raise MedstError(f"{file} has no rows.")
    return keys, table.select(*keys, pl.col("vector").cast(pl.List(pl.Float64)))


def _vectors(keys: tuple[str, ...], tables: Sequence[tuple[str, pl.DataFrame]]) -> Vectors:
    """Join the tables of one kind."""
    names, joined = ", ".join(name for name, _ in tables), pl.concat([table for _, table in tables])
    lengths = joined["vector"].list.len().fill_null(0)
    if lengths.n_unique() > 1:
        counts = lengths.value_counts(sort=True)
        shown = ", ".join(f"{length} ({count} rows)" for length, count in counts.head(EXAMPLES).iter_rows())
        raise MedstError(f"{names}: vectors differ in length: {shown}; give those of one model.")
    if not lengths[0]:
        raise MedstError(f"{names}: the vectors are empty.")
    ids: list[Key] = joined[keys[0]].to_list() if len(keys) == 1 else [*joined.select(keys).iter_rows()]
    numbers = joined["vector"].list.explode().to_numpy().reshape(joined.height, -1)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite and is named below
        rows = numbers.astype(np.float32)
    if wrong := [ids[row] for row in np.flatnonzero(~np.isfinite(rows).all(1))]:
        raise MedstError(
            f"{names}: {len(wrong)} of {len(ids)} vectors hold a number that is missing, infinite or not a number, such as "
            f"{_some(wrong)}."
        )
    place = {key: row for row, key in enumerate(ids)}
    if len(place) < len(ids):
        twice = joined.select(keys).filter(joined.select(keys).is_duplicated()).unique(maintain_order=True)
        shown = _some(twice.to_series().to_list() if len(keys) == 1 else [*twice.iter_rows()])
        raise MedstError(f"{names}: {twice.height} ids are given more than once, such as {shown}.")
    return Vectors(rows, place)


def _missing(vectors: Vectors, keys: Iterable[Key]) -> list[Key]:
    return [key for key in dict.fromkeys(keys) if key not in vectors.place]


def _some(keys: Sequence[Key]) -> str:
    """The first of some ids, and whether there are more."""
    shown = [key if isinstance(key, str) else f"({key[0]}, {key[1]})" for key in keys[:EXAMPLES]]
    return ", ".join(shown) + (" and others" if len(keys) > EXAMPLES else "")


def _unit(rows: Float32[np.ndarray, "row dim"]) -> Float32[np.ndarray, "row dim"]:
    """Rows of unit length; zero stays zero."""
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
