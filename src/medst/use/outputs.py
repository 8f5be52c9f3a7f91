"""Results of a model's calls. Tensors are float32, on the CPU and without gradients."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from medst.use.geometry import Geometry, unfold
from medst.use.studies import Study

Direction = Literal["improving", "stable", "worsening"]


@dataclass(frozen=True, eq=False)
class ImageEmbeddings:
    """Embeddings of pairs.

    Attributes:
        embedding: (pair, dim), rows of unit length.
        patches: (pair, view, row, column, dim), unit vectors; view 0 is frontal, view 1 lateral (zero where none).
        frontal: geometry of each frontal view.
        lateral: geometry of each lateral view; None where there is none.
        crop: side of the square that the model saw, in pixels of the stored 256 x 256.
    """

    embedding: Float[Tensor, "pair dim"]
    patches: Float[Tensor, "pair view row column dim"] = field(repr=False)
    frontal: tuple[Geometry, ...]
    lateral: tuple[Geometry | None, ...]
    crop: int

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def has_lateral(self) -> Bool[Tensor, " pair"]:
        """Which pairs have a lateral view."""
        return torch.tensor([view is not None for view in self.lateral], dtype=torch.bool)

    def select(self, rows: Sequence[int]) -> "ImageEmbeddings":
        """Some of the pairs, in the order of `rows`."""
        chosen = list(rows)
        return ImageEmbeddings(
            self.embedding[chosen],
            self.patches[chosen],
            tuple(self.frontal[row] for row in rows),
            tuple(self.lateral[row] for row in rows),
            self.crop,
        )

    def join(self, other: "ImageEmbeddings") -> "ImageEmbeddings":
        """The pairs of both, embedded by the same model."""
        return ImageEmbeddings(
            torch.cat([self.embedding, other.embedding]),
            torch.cat([self.patches, other.patches]),
            self.frontal + other.frontal,
            self.lateral + other.lateral,
            self.crop,
        )


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Embeddings of texts.

    Attributes:
        texts: as they were given.
        embedding: (text, dim), rows of unit length.
        words: (text, word, dim), unit vectors, zero after a text's last word.
        word_mask: (text, word), True where a text has a word.
    """

    texts: tuple[str, ...]
    embedding: Float[Tensor, "text dim"]
    words: Float[Tensor, "text word dim"] = field(repr=False)
    word_mask: Bool[Tensor, "text word"] = field(repr=False)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How well a phrase matches each patch of one view.

    Attributes:
        grid: float32 (row, column), mean cosine of the phrase's words and the patch, from -1 to 1.
        geometry: of the picture.
        crop: side of the square that the model saw, in pixels of the stored 256 x 256.
    """

    grid: Float32[np.ndarray, "row column"]
    geometry: Geometry
    crop: int

    def pixels(self, longest: int | None = None) -> Float32[np.ndarray, "height width"]:
        """The map on the picture's own pixels, interpolated bilinearly.

        Args:
            longest: draw the map smaller, with this many pixels along the longer side.

        Returns:
            float32 (height, width) of the picture; NaN outside of the crop.
        """
        size = None if longest is None else self.geometry.at(longest)
        return unfold(self.grid, self.geometry, self.crop, size)

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the picture at the centre of the best patch, or of the part of it that lies on the picture."""
        patch = np.unravel_index(int(self.grid.argmax()), self.grid.shape)
        alone = np.zeros_like(self.grid)
        alone[patch] = 1
        row, column = np.unravel_index(int(np.nanargmax(unfold(alone, self.geometry, self.crop))), self.shape)
        return int(row), int(column)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        return self.geometry.height, self.geometry.width


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where a phrase is in a pair.

    Attributes:
        phrase: as it was given.
        frontal: heat map of the frontal view.
        lateral: heat map of the lateral view; None if there is none.
        similarity: cosine of the phrase and the whole pair, from -1 to 1.
    """

    phrase: str
    frontal: HeatMap
    lateral: HeatMap | None
    similarity: float


@dataclass(frozen=True)
class Progression:
    """How a finding changed between two studies.

    Attributes:
        finding: as it was given.
        improving, stable, worsening: shares that sum to 1; not calibrated probabilities.
        prior: presence of the finding in the earlier study, a difference of cosines from -2 to 2.
        current: presence in the later study.
        margin: a change below it is called stable.
        margin_is_own: whether the margin was chosen on the validation patients of the model's run; else it is a default.
    """

    finding: str
    improving: float
    stable: float
    worsening: float
    prior: float
    current: float
    margin: float
    margin_is_own: bool

    @property
    def change(self) -> float:
        """`current` - `prior`; above 0 if there is more of the finding."""
        return self.current - self.prior

    @property
    def most_likely(self) -> Direction:
        """The direction with the largest share."""
        directions: tuple[Direction, ...] = ("improving", "stable", "worsening")
        return max(directions, key=lambda name: getattr(self, name))


@dataclass(frozen=True, eq=False)
class Timeline:
    """Phrases over a patient's studies.

    Attributes:
        studies: in time order; in the given order if they have no time.
        phrases: as they were given.
        similarity: (study, phrase), cosines of each study's images and each phrase.
        images: the studies' embeddings, in the same order.
    """

    studies: tuple[Study, ...] = field(repr=False)
    phrases: tuple[str, ...]
    similarity: Float[Tensor, "study phrase"]
    images: ImageEmbeddings = field(repr=False)
