"""Pictures to 256 x 256 grey pixels, exactly as the released preprocessing makes them, or a reason why not."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medst.errors import MedstError

SIDE = 256
SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000


class UnreadableImage(MedstError):
    """A picture that can't be used; the message says why, in a few words."""


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit grey picture.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: missing, empty, truncated, no picture, too small, too large or without any contrast.
        OSError: the disk fails.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    if not data:
        raise UnreadableImage("the file is empty")
    _guard(data)
    with np.errstate(all="ignore"):
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise UnreadableImage("OpenCV can't decode it")
    if picture.min() == picture.max():
        raise UnreadableImage("all pixels are alike")
    return picture


def _guard(data: bytes) -> None:
    """Refuse by the header what must not be decoded, and what OpenCV would decode without a word though it is cut off."""
    try:
        with Image.open(BytesIO(data)) as header:
            width, height = header.size
            if min(width, height) < SMALLEST_SIDE:
                raise UnreadableImage(f"{width} x {height} pixels: too small")
            if width * height > MOST_PIXELS:
                raise UnreadableImage(f"{width} x {height} pixels: too large")
            complete = header.format == "JPEG" and data.rstrip(b"\0").endswith(b"\xff\xd9")
            if not complete:
                header.load()
    except UnidentifiedImageError:
        raise UnreadableImage("not a picture") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("too large") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"truncated or damaged ({error})") from None


def resize(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The longer side to `side` by area, the other in proportion and cut to whole pixels; zeros around to a square.

    The product is rounded down in double precision as released, so that 49 x 49 becomes 256 x 255 and a black column. Very
    narrow pictures, on which the released code crashes, keep one pixel.

    Args:
        picture: uint8 (height, width).
        side: of the square.

    Returns:
        uint8 (side, side).
    """
    height, width = picture.shape
    tall = height >= width
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(float(shorter) * (side / float(longer))))
    shape = (short, side) if tall else (side, short)  # OpenCV's order: width, height
    small = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    before = (side - short) // 2
    padding = (before, side - short - before)
    return np.pad(small, ((0, 0), padding) if tall else (padding, (0, 0)))
