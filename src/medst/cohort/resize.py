"""Resize an image into the square that a cohort stores, exactly as the released preprocessing does."""

from functools import lru_cache

import cv2
import numpy as np

SIDE = 256
"""Side of the stored square, in pixels."""


def resize(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Scale the longer side to `side` by area averaging, the other in proportion, and pad with zeros to a square.

    The shorter side is rounded down in double precision, as released, so that 49 x 49 becomes 256 x 255 and a black column.
    Very narrow images, on which the released code crashes, keep one pixel.

    Args:
        image: uint8 (height, width).
        side: of the square, in pixels.

    Returns:
        uint8 (side, side).
    """
    height, width = image.shape
    rows, columns = fit(height, width, side)
    return _pad(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), side)


def fit(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Rows and columns of the square that an image fills."""
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(float(shorter) * (side / float(longer))))
    return (side, short) if height >= width else (short, side)


def _pad(small: np.ndarray, side: int) -> np.ndarray:
    rows, columns = small.shape
    top, left = (side - rows) // 2, (side - columns) // 2
    return np.pad(small, ((top, side - rows - top), (left, side - columns - left)))


def resize_reduced(reduced: np.ndarray, part: int, size: tuple[int, int]) -> np.ndarray:
    """Like `resize`, for an image that was decoded at 1/part of its size.

    If the size is not a multiple of `part`, the last reduced row or column covers fewer pixels than the others. OpenCV's
    resizing takes all for alike and would shift the image by up to a pixel, so the rows are weighted by what they cover.

    Args:
        reduced: uint8 (ceil(height / part), ceil(width / part)).
        part: 2, 4 or 8.
        size: height and width of the full image.

    Returns:
        uint8 (256, 256).
    """
    rows, columns = fit(*size)
    if not (size[0] % part or size[1] % part):
        return _pad(cv2.resize(reduced, (columns, rows), interpolation=cv2.INTER_AREA), SIDE)
    across, down = _shares(size[0], part, rows), _shares(size[1], part, columns)
    return _pad(np.rint(across @ reduced.astype(np.float32) @ down.T).astype(np.uint8), SIDE)


@lru_cache(maxsize=64)
def _shares(length: int, part: int, target: int) -> np.ndarray:
    """Share of each reduced row in each row of the target, by the pixels that both cover; float32 (target, reduced)."""
    reduced = np.minimum(np.arange(-(-length // part) + 1) * part, length)
    edges = np.linspace(0, length, target + 1)
    cover = np.minimum(edges[1:, None], reduced[1:]) - np.maximum(edges[:-1, None], reduced[:-1])
    cover = np.clip(cover, 0, None)
    return (cover / cover.sum(1, keepdims=True)).astype(np.float32)
