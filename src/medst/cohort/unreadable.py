"""Why a file of a raw data set is rejected: reasons for unreadable files, and the error and limits for all images."""

import errno
from pathlib import Path

import numpy as np

from medst.errors import MedstError
from medst.files import UnusableFile, read_regular

SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000
MOST_BYTES = 2**29
"""Largest file, and most that a deflated one may inflate to: `MOST_PIXELS` of 32 bits, and as much again for the rest."""
SYSTEM_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN)
"""Errors that every other file would meet as well: no free descriptor, no memory, an unreachable server."""


class UnreadableImage(MedstError):
    """An image that can't be used; the message gives the reason in a few words, as in rejected.csv."""


def read_or_reason(path: Path, most: int) -> bytes | str:
    """Read a regular file, or return the reason in a few words why this one can't be read.

    Raises:
        OSError: every other file would fail as well, see `SYSTEM_ERRORS`; the error names this one.
    """
    try:
        return read_regular(path, most)
    except UnusableFile as error:
        return error.reason
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except OSError as error:
        if error.errno in SYSTEM_ERRORS:
            raise OSError(error.errno, error.strerror, str(path)) from error  # reading, unlike opening, names no file
        return f"can't be read ({(error.strerror or str(error)).lower()})"


def read_bytes(path: Path) -> bytes:
    """Read an image file.

    Raises:
        UnreadableImage: it is missing, empty, too large or not a regular file.
        OSError: every other image would fail as well, see `read_or_reason`.
    """
    data = read_or_reason(path, MOST_BYTES)
    if not data:
        raise UnreadableImage("the file is empty")
    if isinstance(data, str):
        raise UnreadableImage(data)
    return data


def check_size(width: int, height: int) -> None:
    """Raise UnreadableImage if a side is below `SMALLEST_SIDE`, or there are more than `MOST_PIXELS`."""
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableImage(f"{width} x {height} pixels: too small")
    if width * height > MOST_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels: too large")


def check_contrast(image: np.ndarray) -> np.ndarray:
    """Return the image (height, width), or raise UnreadableImage if all its pixels have one value."""
    if image.min() == image.max():
        raise UnreadableImage(f"all pixels have the same value ({image[0, 0]})")
    return image
