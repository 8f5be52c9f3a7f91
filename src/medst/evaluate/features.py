"""Frozen embeddings of a cohort's images and of texts, as NumPy rows.

Unusual here: a row of the cohort, or a text, that is asked for twice is embedded once. Batches have a fixed size, so memory
does not grow with the number of rows, and the same request gives the same bits.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32
from numpy.typing import ArrayLike
from torch import Tensor

from medst.batch import centre, tokenize
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.model.medst import MedST
from medst.weights import Loaded

T = TypeVar("T")

BATCH = 64
"""Images or texts a forward pass."""


def embed_images(loaded: Loaded, cohort: Cohort, rows: ArrayLike) -> Float32[np.ndarray, "image dim"]:
    """Embed images of a cohort, each alone and as a frontal view.

    Args:
        loaded: the model, which stays as it is; its recipe says how much of the stored picture is cut out.
        cohort: holds the pictures.
        rows: rows of the cohort's images, in any order and as often as wanted.

    Returns:
        A row of unit length for each of `rows`, float32.

    Raises:
        MedstError: the cohort has no such row.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(cohort.images):
        raise MedstError(
            f"{cohort.path}: a table names row {wanted.max()} of the images, but there are {len(cohort.images)}; "
            "prepare the cohort again."
        )
    crop, size, device = loaded.recipe.data.crop, loaded.model.settings.vision.image_size, device_of(loaded.model)

    def embed(batch: list[int]) -> Tensor:
        pictures = torch.from_numpy(np.asarray(cohort.images[batch])).to(device)
        return loaded.model.embed_frontal(centre(pictures, crop, size))

    unique, place = np.unique(wanted, return_inverse=True)
    return _in_batches(unique.tolist(), embed, loaded.model.settings.embedding)[place]


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
