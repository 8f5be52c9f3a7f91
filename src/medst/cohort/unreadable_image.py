"""The error for an image that can't be used, and the limits that every image must meet, whatever its format."""

from pathlib import Path

import numpy as np

from medst.errors import MedstError
from medst.files import read_or_why

SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000
MOST_BYTES = 2**29
"""Largest file, and most that a deflated one may inflate to: `MOST_PIXELS` of 32 bits, and as much again for the rest."""


class UnreadableImage(MedstError):
    """An image that can't be used; the message gives the reason in a few words, as in rejected.csv."""


def read_bytes(path: Path) -> bytes:
    """Read an image file.

    Raises:
        UnreadableImage: it is missing, empty, too large or not a regular file.
        OSError: every other image would fail as well, see `medst.files.read_or_why`.
    """
    data = read_or_why(path, MOST_BYTES)
    if not data:
        raise UnreadableImage("the file is empty")
    if isinstance(data, str):
        raise UnreadableImage(data)
    return data


def check_size(width: int, height: int) -> None:
    """Reject an image that is too small or too large, given its size in pixels.

    Raises:
        UnreadableImage: a side is below `SMALLEST_SIDE`, or there are more than `MOST_PIXELS`.
    """
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableImage(f"{width} x {height} pixels: too small")
    if width * height > MOST_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels: too large")


def check_contrast(image: np.ndarray) -> np.ndarray:
    """Return the image (height, width), unless all its pixels have one value.

    Raises:
        UnreadableImage: they have.
    """
    if image.min() == image.max():
        raise UnreadableImage(f"all pixels are alike ({image[0, 0]})")
    return image
