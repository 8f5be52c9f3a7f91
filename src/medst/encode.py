"""Frozen embeddings of a cohort's images and of texts, as NumPy rows.

A row of the cohort, or a text, that is asked for twice is embedded once. Batches have a fixed size, so memory does not grow
with the number of rows, and the same request gives the same bits. Cached features depend on the fingerprints of model and
cohort and on `medst.NUMERICS`.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32
from numpy.typing import ArrayLike
from torch import Tensor

from medst import NUMERICS
from medst.batch import centre, tokenize
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.evaluate.task import PAPER, Question
from medst.files import atomic
from medst.model.medst import MedST
from medst.weights import Loaded

T = TypeVar("T")

BATCH = 64
"""Most images or texts of a forward pass."""
CACHED = 5 * 2**20
"""Bytes of a forward pass's tokens that stay near a CPU's cores; larger ones take 15 % longer (`benchmarks/features.py`)."""


@dataclass
class ImageFeatures:
    """What a model makes of images, a row each, float32.

    Attributes:
        embedding: (image, dim), rows of unit length.
        feature: (image, width), the global feature that the head is given.
        patches: (image, dim), the mean of the patches' embeddings.
    """

    embedding: np.ndarray
    feature: np.ndarray
    patches: np.ndarray

    def of(self, tokens: str) -> np.ndarray:
        """The embedding (`global`), the mean of the patches' (`patches`), or both side by side."""
        if tokens == "both":
            return np.concatenate([self.embedding, self.patches], axis=1)
        return self.patches if tokens == "patches" else self.embedding


def image_features(
    loaded: Loaded, cohort: Cohort, rows: ArrayLike, question: Question = PAPER, laterals: ArrayLike | None = None
) -> ImageFeatures:
    """Features of images of a cohort, each alone and as a frontal view, or with a lateral one.

    Args:
        loaded: the model, which stays as it is; its recipe says how much of the stored picture is cut out.
        cohort: holds the pictures.
        rows: rows of the cohort's images, in any order and as often as wanted.
        question: its `precision` and `cache` are looked at. With a cache, what was once computed for the same rows is read,
            and the features lie in a file that is mapped to memory.
        laterals: for each of `rows` the row of its lateral view, -1 where there is none.

    Raises:
        MedstError: the cohort has no such row.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    beside = np.full_like(wanted, -1) if laterals is None else np.asarray(laterals, dtype=np.int64)
    both = np.stack([wanted, beside], axis=1)
    if len(both) and not (wanted.min() >= 0 and both.max() < len(cohort.images)):
        raise MedstError(
            f"{cohort.path}: a table names row {both.max()} of the images, but there are {len(cohort.images)}; "
            "prepare the cohort again."
        )
    unique, place = np.unique(both, axis=0, return_inverse=True)
    settings = loaded.model.settings
    dim, width = settings.embedding, settings.vision.width
    sizes = np.cumsum([0, dim, width, dim])
    encode = _Encoder(loaded, cohort, question.precision)
    key = (
        f"{NUMERICS}-{loaded.fingerprint}-{cohort.fingerprint}-{question.precision}-{encode.crop}".encode()
        + unique.tobytes()
    )
    found = _cached(question.cache, hashlib.sha256(key).hexdigest()[:32], unique, encode, int(sizes[-1]))
    columns = [np.asarray(found[:, start:stop])[place.ravel()] for start, stop in pairwise(sizes)]
    return ImageFeatures(*columns)


class _Encoder:
    """Rows of (frontal, lateral or -1) to rows of embedding, feature and mean patch, side by side."""

    def __init__(self, loaded: Loaded, cohort: Cohort, precision: str) -> None:
        self.loaded, self.cohort, self.precision = loaded, cohort, precision
        self.crop, self.size = loaded.recipe.data.crop, loaded.model.settings.vision.image_size
        self.device = device_of(loaded.model)
        vision = loaded.model.settings.vision
        tokens = 4 * vision.width * (1 + loaded.model.vision.patches)
        self.batch = min(BATCH, max(1, CACHED // tokens)) if self.device.type == "cpu" else BATCH

    def pictures(self, rows: np.ndarray) -> Tensor:
        stored = torch.from_numpy(np.asarray(self.cohort.images[rows])).to(self.device)
        return centre(stored, self.crop, self.size)

    def __call__(self, batch: np.ndarray) -> Tensor:
        model = self.loaded.model
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            frontal, has_lateral = self.pictures(batch[:, 0]), batch[:, 1] >= 0
            if has_lateral.any():
                of = torch.from_numpy(np.flatnonzero(has_lateral)).to(self.device)
                feature, patches, mask = model.vision(frontal, self.pictures(batch[has_lateral, 1]), of)
            else:
                tokens = model.vision.encode_view(frontal)
                feature, patches = tokens[:, 0], tokens[:, 1:]
                mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=self.device)
            embedded = model.image_local.tokens(patches, mask)
            mean = embedded.sum(1) / mask.sum(1, keepdim=True)
            return torch.cat([model.image_global(feature), feature.float(), mean], dim=1)


def _cached(cache: Path | None, key: str, rows: np.ndarray, encode: _Encoder, columns: int) -> np.ndarray:
    """What `encode` makes of all rows, batch after batch; from a file or into one where there is a cache."""
    shape = (len(rows), columns)
    if cache is None or not len(rows):
        found = np.empty(shape, dtype=np.float32)
        for start, block in _blocks(rows, encode):
            found[start : start + len(block)] = block
        return found
    file = cache / f"{key}.npy"
    before = _read(file, shape)
    if before is not None:
        return before
    # Written, not mapped: on a full disk a write fails, where touching a mapped page kills the process.
    with atomic(file) as part, part.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for _, block in _blocks(rows, encode):
            out.write(block.astype("<f4").tobytes())
    return np.load(file, mmap_mode="r")


def _read(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The features of a cache file; None where it is missing or damaged, for they can be computed again."""
    if not file.is_file():
        return None
    try:
        found = np.load(file, mmap_mode="r")
    except Exception:  # NumPy raises half a dozen types on a damaged header
        return None
    fits = isinstance(found, np.ndarray) and (found.shape, found.dtype) == (shape, np.dtype("<f4"))
    return found if fits else None


def _blocks(rows: np.ndarray, encode: _Encoder) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), encode.batch):
        with torch.inference_mode():
            block = encode(rows[start : start + encode.batch]).float().cpu().numpy()
        yield start, block


def embed_images(loaded: Loaded, cohort: Cohort, rows: ArrayLike) -> Float32[np.ndarray, "image dim"]:
    """Embed images of a cohort, each alone and as a frontal view: rows of unit length, float32.

    Raises:
        MedstError: the cohort has no such row.
    """
    return image_features(loaded, cohort, rows).embedding


def embed_texts(loaded: Loaded, texts: list[str]) -> Float32[np.ndarray, "text dim"]:
    """Embed texts as they are given, each alone; those longer than the model's `text.pieces` are cut.

    Returns:
        A row of unit length for each text, float32.
    """
    device, pieces = device_of(loaded.model), loaded.model.settings.text.pieces

    def embed(batch: list[str]) -> Tensor:
        ids, attention = tokenize(loaded.tokenizer, batch, pieces)
        return loaded.model.embed_text(ids.to(device), attention.to(device))

    unique = sorted(set(texts), key=lambda text: (len(text), text))  # by length: less padding a batch
    place = {text: i for i, text in enumerate(unique)}
    rows = _in_batches(unique, embed, loaded.model.settings.embedding)
    return rows[[place[text] for text in texts]]


def embed_pairs(
    loaded: Loaded, cohort: Cohort, pairs: pl.DataFrame
) -> tuple[Float32[np.ndarray, "pair dim"], Float32[np.ndarray, "pair dim"]]:
    """Embed pairs: the frontal image together with the lateral one where there is one, and the report.

    Args:
        loaded: the model, in evaluation mode.
        cohort: holds the pictures.
        pairs: columns frontal, lateral (rows of images, null where there is none) and report.

    Returns:
        Image and report embeddings, float32 rows of unit length in the order of `pairs`.
    """
    crop, size, device = loaded.recipe.data.crop, loaded.model.settings.vision.image_size, device_of(loaded.model)

    def pictures(rows: list[int]) -> Tensor:
        return centre(torch.from_numpy(np.asarray(cohort.images[rows])).to(device), crop, size)

    def embed(batch: list[int]) -> Tensor:
        table = pairs[batch]
        has_lateral = table["lateral"].is_not_null()
        of = torch.from_numpy(np.flatnonzero(has_lateral.to_numpy())).to(device)
        ids, attention = tokenize(loaded.tokenizer, table["report"].to_list(), loaded.model.settings.text.pieces)
        found = loaded.model(
            pictures(table["frontal"].to_list()),
            pictures(table["lateral"].filter(has_lateral).to_list()),
            of,
            ids.to(device),
            attention.to(device),
        )
        return torch.cat([found.image, found.report], dim=1)

    dim = loaded.model.settings.embedding
    both = _in_batches(list(range(pairs.height)), embed, 2 * dim)
    return both[:, :dim], both[:, dim:]


def device_of(model: MedST) -> torch.device:
    """Where a model's weights are."""
    return next(model.parameters()).device


def _in_batches(items: list[T], embed: Callable[[list[T]], Tensor], dim: int) -> Float32[np.ndarray, "item dim"]:
    found = np.empty((len(items), dim), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(items), BATCH):
            found[start : start + BATCH] = embed(items[start : start + BATCH]).float().cpu().numpy()
    return found
