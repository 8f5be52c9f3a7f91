"""From the model's patches back to the pixels of the original picture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from medst.cohort.resize import SIDE, fit


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in its 256 x 256 square: scaled in proportion and centred on black.

    Attributes:
        height: of the original, in pixels.
        width: of the original, in pixels.
    """

    height: int
    width: int

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of the square that the picture fills."""
        return fit(self.height, self.width)

    @property
    def corner(self) -> tuple[int, int]:
        """Row and column of the square where the picture starts."""
        rows, columns = self.inner
        return (SIDE - rows) // 2, (SIDE - columns) // 2

    def at(self, longest: int) -> "Geometry":
        """The size of the picture scaled down so that its longer side is at most `longest` pixels."""
        scale = min(1.0, longest / max(self.height, self.width))
        return Geometry(max(1, round(self.height * scale)), max(1, round(self.width * scale)))


def unfold(
    grid: Float32[np.ndarray, "row column"], geometry: Geometry, crop: int, size: Geometry | None = None
) -> Float32[np.ndarray, "height width"]:
    """Interpolate values of patches bilinearly between their centres, on the pixels of the picture or of a smaller `size`.

    The patches cover the middle `crop` x `crop` pixels of the square. Pixels outside of it, which the model did not see,
    are NaN.
    """
    drawn = size or geometry
    rows, columns = geometry.inner
    top, left = geometry.corner
    vertical = _weights(drawn.height, rows, top, crop, grid.shape[0])
    horizontal = _weights(drawn.width, columns, left, crop, grid.shape[1])
    return (vertical @ grid.astype(np.float64) @ horizontal.T).astype(np.float32)


def _weights(pixels: int, inner: int, start: int, crop: int, patches: int) -> Float64[np.ndarray, "pixel patch"]:
    """Weight of each patch in each pixel along one side; NaN for a pixel outside of the crop."""
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
