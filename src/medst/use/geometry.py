"""From the model's patches back to the pixels of a picture as it was."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from medst.cohort.resize import SIDE, fit


@dataclass(frozen=True)
class Geometry:
    """How a picture lies in its 256 x 256 square: in proportion, in the middle, black around it.

    Attributes:
        height: of the picture, in pixels.
        width: the same across.
    """

    height: int
    width: int

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of the square that the picture fills."""
        return fit(self.height, self.width)

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the square where the picture begins."""
        rows, columns = self.inner
        return (SIDE - rows) // 2, (SIDE - columns) // 2

    def at(self, longest: int) -> "Geometry":
        """The same picture, made smaller (never larger) until its longer side is `longest` pixels."""
        scale = min(1.0, longest / max(self.height, self.width))
        return Geometry(max(1, round(self.height * scale)), max(1, round(self.width * scale)))


def unfold(
    grid: Float32[np.ndarray, "row column"], geometry: Geometry, crop: int, size: Geometry | None = None
) -> Float32[np.ndarray, "height width"]:
    """Values of patches, interpolated bilinearly between their centres, on the pixels of the picture.

    Args:
        grid: a value a patch; the patches cover the middle `crop` x `crop` pixels of the square.
        geometry: of the picture.
        crop: in pixels of the 256 x 256 square.
        size: draw the result at this size instead of the picture's own.

    Returns:
        float32 (height, width); NaN on the pixels that the crop cuts off, of which the model says nothing.
    """
    drawn = size or geometry
    rows, columns = geometry.inner
    top, left = geometry.corner
    across = _weights(drawn.height, rows, top, crop, grid.shape[0])
    down = _weights(drawn.width, columns, left, crop, grid.shape[1])
    return (across @ grid.astype(np.float64) @ down.T).astype(np.float32)


def _weights(pixels: int, inner: int, start: int, crop: int, patches: int) -> Float64[np.ndarray, "pixel patch"]:
    """Share of each patch in each pixel along one side; a row of NaN for a pixel outside of the crop."""
    in_square = start + (np.arange(pixels) + 0.5) * inner / pixels
    in_crop = (in_square - (SIDE - crop) // 2) / crop
    place = np.clip(in_crop * patches - 0.5, 0, patches - 1)
    lower = np.minimum(place.astype(np.int64), max(patches - 2, 0))
    share = np.zeros((pixels, patches))
    rows = np.arange(pixels)
    share[rows, lower] = 1 - (place - lower)
    share[rows, np.minimum(lower + 1, patches - 1)] += place - lower
    share[(in_crop < 0) | (in_crop > 1)] = np.nan
    return share
