"""The only way from pictures, texts or rows of a cohort to features: batching, precision and device are decided here.

A picture is encoded as the middle of its stored square, `crop` pixels wide. The features of a picture or a text don't depend
on the rest of its batch, up to rounding. Repeated rows and texts are encoded once. Memory does not grow with the number of
rows, and the same request gives the same bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, UInt8
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from medst import NUMERICS
from medst.batch import centre, tokenize
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.files import atomic, sha256
from medst.model.medst import MedST

Precision = Literal["fp32", "bf16"]
Square = UInt8[np.ndarray, "side side"]
"""A picture as a cohort stores it, 256 x 256."""
BATCH = 64
"""Most pictures or texts per forward pass."""
CACHED = 5 * 2**20
"""Bytes of a forward pass's tokens that stay in a CPU's cache; larger ones take 15 % longer (`benchmarks/features.py`)."""


class Encoder(Protocol):
    """The parts of a `medst.Model` that are needed here."""

    model: MedST
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str

    @property
    def crop(self) -> int:
        """Side of the square that the image encoder sees, in pixels of the stored 256 x 256."""

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""


@dataclass(frozen=True)
class Encoded:
    """A batch of pairs of pictures, or of texts, on the model's device and without gradients.

    Attributes:
        embedding: rows of unit length.
        feature: the global feature, input of the projection head.
        tokens: embeddings of patches (frontal ones before lateral ones) or words, of unit length; zero where there is none.
        mask: True where there is a patch or a word.
    """

    embedding: Float[Tensor, "row dim"]
    feature: Float[Tensor, "row width"]
    tokens: Float[Tensor, "row token dim"]
    mask: Bool[Tensor, "row token"]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of images, one row each, float32.

    Attributes:
        embedding: rows of unit length.
        feature: the global feature, input of the projection head.
        patches: the mean of the patches' embeddings.
    """

    embedding: Float32[np.ndarray, "image dim"]
    feature: Float32[np.ndarray, "image width"]
    patches: Float32[np.ndarray, "image dim"]

    def select(self, tokens: str) -> Float32[np.ndarray, "image dim"]:
        """The embedding (`global`), the mean of the patches' embeddings (`patches`), or both side by side."""
        if tokens == "both":
            return np.concatenate([self.embedding, self.patches], axis=1)
        return self.patches if tokens == "patches" else self.embedding


def batch_size(encoder: Encoder) -> int:
    """Pictures per forward pass: `BATCH`, or on a CPU fewer where their tokens would not fit into its cache."""
    if encoder.device.type != "cpu":
        return BATCH
    tokens = 4 * encoder.model.settings.vision.width * (1 + encoder.model.vision.patches)
    return min(BATCH, max(1, CACHED // tokens))


def centre_crop(encoder: Encoder, squares: Sequence[Square] | np.ndarray) -> Float[Tensor, "picture 1 size size"]:
    """Cut out, scale and normalise pictures as the image encoder sees them outside of training; on its device."""
    stored = torch.from_numpy(np.asarray(squares)).to(encoder.device)
    return centre(stored, encoder.crop, encoder.model.settings.vision.image_size)


@torch.no_grad()
def encode_pictures(
    encoder: Encoder,
    frontal: Sequence[Square] | np.ndarray,
    lateral: Sequence[Square | None],
    precision: Precision = "fp32",
) -> Encoded:
    """Encode one batch of pairs of pictures; the heads compute in float32 whatever the precision of the encoder."""
    network, device = encoder.model, encoder.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        pictures = centre_crop(encoder, frontal)
        laterals = [square for square in lateral if square is not None]
        if laterals:
            lateral_of = torch.tensor([i for i, square in enumerate(lateral) if square is not None], device=device)
            feature, patches, mask = network.vision(pictures, centre_crop(encoder, laterals), lateral_of)
        else:
            tokens = network.vision.encode_view(pictures)
            feature, patches = tokens[:, 0], tokens[:, 1:]
            mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=device)
        embedded = network.image_local.tokens(patches, mask)
        return Encoded(network.image_global(feature), feature.float(), embedded, mask)


@torch.no_grad()
def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode one batch of texts; those longer than the model's `text.pieces` word pieces are cut."""
    network, device = encoder.model, encoder.device
    pieces, attention = tokenize(encoder.tokenizer, list(texts), network.settings.text.pieces)
    feature, words, mask = network.text(pieces.to(device), attention.to(device))
    return Encoded(network.text_global(feature), feature, network.text_local.tokens(words, mask), mask)


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
    """Embed texts, one row of unit length each, in their order."""
    unique = sorted(set(texts), key=lambda text: (len(text), text))  # by length: less padding in a batch
    place = {text: i for i, text in enumerate(unique)}
    found = np.empty((len(unique), encoder.model.settings.embedding), dtype=np.float32)
    for start in range(0, len(unique), BATCH):
        rows = slice(start, start + BATCH)
        found[rows] = encode_texts(encoder, unique[rows]).embedding.cpu().numpy()
    return found[[place[text] for text in texts]]


def embed_prompts(encoder: Encoder, prompts: Mapping[str, list[str]]) -> Float32[np.ndarray, "class dim"]:
    """One row of unit length per class: the mean of the text head's outputs before their normalisation, as released."""
    head = encoder.model.text_global.head
    with torch.no_grad():
        means = [head(encode_texts(encoder, texts).feature).mean(0) for texts in prompts.values()]
        return torch.stack([F.normalize(mean, dim=0) for mean in means]).cpu().numpy()


def image_features(
    encoder: Encoder,
    cohort: Cohort,
    rows: ArrayLike,
    *,
    laterals: ArrayLike | None = None,
    precision: Precision = "fp32",
    cache: Path | None = None,
) -> ImageFeatures:
    """Features of images of a cohort, each alone and as a frontal view, or with its lateral view.

    Args:
        rows: rows of the cohort's images, in any order and as often as wanted.
        laterals: for each of `rows` the row of its lateral view, -1 where there is none.
        cache: a folder. Features of the same rows are computed once, kept in a file there, and mapped from it.

    Raises:
        MedstError: the cohort has no such row.
    """
    wanted = np.asarray(rows, dtype=np.int64)
    lateral_rows = np.full_like(wanted, -1) if laterals is None else np.asarray(laterals, dtype=np.int64)
    pairs = np.stack([wanted, lateral_rows], axis=1)
    if len(pairs) and not (wanted.min() >= 0 and pairs.max() < len(cohort.images)):
        raise MedstError(
            f"{cohort.path}: a table names row {pairs.max()} of the images, but there are {len(cohort.images)}; "
            "prepare the cohort again."
        )
    unique, place = np.unique(pairs, axis=0, return_inverse=True)

    def encode(batch: np.ndarray) -> Float32[np.ndarray, "image column"]:
        frontal, lateral = cohort.images[batch[:, 0]], [cohort.images[i] if i >= 0 else None for i in batch[:, 1]]
        found = encode_pictures(encoder, frontal, lateral, precision)
        mean = found.tokens.sum(1) / found.mask.sum(1, keepdim=True)
        return torch.cat([found.embedding, found.feature, mean], dim=1).float().cpu().numpy()

    size = batch_size(encoder)
    batches = (encode(unique[start : start + size]) for start in range(0, len(unique), size))
    dim, width = encoder.model.settings.embedding, encoder.model.settings.vision.width
    shape = (len(unique), dim + width + dim)
    if cache is None or not len(unique):
        found = np.empty(shape, dtype=np.float32)
        for number, batch in enumerate(batches):
            found[number * size : (number + 1) * size] = batch
    else:
        key = f"{NUMERICS}-{encoder.fingerprint}-{cohort.fingerprint}-{precision}-{encoder.crop}".encode()
        name = sha256(key + unique.tobytes())[:32]
        found = _cached(cache / f"{name}.npy", shape, batches)
    columns = np.split(np.asarray(found), [dim, dim + width], axis=1)
    return ImageFeatures(*(column[place.ravel()] for column in columns))


def embed_pairs(
    encoder: Encoder, cohort: Cohort, pairs: pl.DataFrame
) -> tuple[Float32[np.ndarray, "pair dim"], Float32[np.ndarray, "pair dim"]]:
    """Embed pairs: the frontal view together with the lateral one where there is one, and the report.

    `pairs` has the columns frontal, lateral (rows of images, null where there is none) and report. Both results have rows
    of unit length in its order.
    """
    laterals = pairs["lateral"].cast(pl.Int64).fill_null(-1)
    images = image_features(encoder, cohort, pairs["frontal"], laterals=laterals)
    return images.embedding, embed_texts(encoder, pairs["report"].to_list())


def _cached(file: Path, shape: tuple[int, int], batches: Iterator[np.ndarray]) -> np.ndarray:
    """The features in a cache file, which is written first if it is missing or damaged."""
    try:
        found = np.load(file, mmap_mode="r")
        if isinstance(found, np.ndarray) and (found.shape, found.dtype) == (shape, np.dtype("<f4")):
            return found
    except Exception:  # NumPy raises half a dozen types on a damaged header
        pass
    # Written, not mapped: on a full disk a write fails, where touching a mapped page kills the process.
    with atomic(file) as part, part.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for batch in batches:
            out.write(batch.astype("<f4").tobytes())
    return np.load(file, mmap_mode="r")
