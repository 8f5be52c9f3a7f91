"""Resize an image into the square that a cohort stores, exactly as the released preprocessing does."""

from functools import lru_cache

import cv2
import numpy as np

SIDE = 256
"""Side of the stored square, in pixels."""


def resize(image: np.ndarray, part: int = 1, size: tuple[int, int] | None = None) -> np.ndarray:
    """Scale the longer side to `SIDE` by area averaging, the other in proportion, and pad with zeros to a square.

    If a reduced image is not an exact fraction, its last row or column covers fewer pixels than the others. OpenCV treats
    all alike, which would shift the image by up to a pixel, so rows and columns are then weighted by what they cover.

    Args:
        image: uint8 (ceil(height / part), ceil(width / part)).
        part: 1, or 2, 4 or 8 for an image that was decoded at 1/part of its size.
        size: height and width of the full image, if `part` is not 1.

    Returns:
        uint8 (256, 256).
    """
    height, width = size or image.shape
    rows, columns = fit(height, width)
    if height % part or width % part:
        across, down = _shares(height, part, rows), _shares(width, part, columns)
        small = np.rint(across @ image.astype(np.float32) @ down.T).astype(np.uint8)
    else:
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    return np.pad(small, ((top, SIDE - rows - top), (left, SIDE - columns - left)))


def fit(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the square that an image fills.

    The shorter side is rounded down in double precision, as released, so that 49 x 49 becomes 256 x 255 and a black column.
    Very narrow images, on which the released code crashes, keep one pixel.
    """
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(float(shorter) * (SIDE / float(longer))))
    return (SIDE, short) if height >= width else (short, SIDE)


@lru_cache(maxsize=64)
def _shares(length: int, part: int, target: int) -> np.ndarray:
    """Share of each reduced row in each row of the target, by the pixels that both cover; float32 (target, reduced)."""
    reduced = np.minimum(np.arange(-(-length // part) + 1) * part, length)
    edges = np.linspace(0, length, target + 1)
    cover = np.minimum(edges[1:, None], reduced[1:]) - np.maximum(edges[:-1, None], reduced[:-1])
    cover = np.clip(cover, 0, None)
    return (cover / cover.sum(1, keepdims=True)).astype(np.float32)
