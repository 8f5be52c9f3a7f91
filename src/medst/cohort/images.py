"""Pictures to 256 x 256 grey pixels, exactly as the released preprocessing makes them, or a reason why not.

`cv2.imread` fills the lost part of a cut-off JPEG with grey and returns it, so whether a file is whole is seen to before it
is decoded. What can't be seen here is damage in the middle of a file whose end is there.
"""

import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medst.errors import MedstError

SIDE = 256
SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000
END_OF_JPEG = b"\xff\xd9"


class UnreadableImage(MedstError):
    """A picture that can't be used; the message says why, in a few words."""


def read_grey(path: Path) -> np.ndarray:
    """An 8-bit grey picture, as `cv2.imread` reads it.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: missing, not to be opened, empty, truncated, no picture, too small, too large or without contrast.
        OSError: the disk fails, which another picture would meet as well.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableImage("no such file") from None
    except IsADirectoryError:
        raise UnreadableImage("a folder, not a file") from None
    except PermissionError:
        raise UnreadableImage("no permission to read it") from None
    if not data:
        raise UnreadableImage("the file is empty")
    _guard(data)
    try:
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        picture = None
    if picture is None:
        raise UnreadableImage("OpenCV can't decode it")
    if picture.min() == picture.max():
        raise UnreadableImage(f"all pixels are alike ({picture[0, 0]})")
    return picture


def _guard(data: bytes) -> None:
    """Refuse by the header what must not be decoded, and what OpenCV would decode without a word though it is cut off."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is our own
            header = Image.open(BytesIO(data))
        with header:
            width, height = header.size
            if min(width, height) < SMALLEST_SIDE:
                raise UnreadableImage(f"{width} x {height} pixels: too small")
            if width * height > MOST_PIXELS:
                raise UnreadableImage(f"{width} x {height} pixels: too large")
            if not (header.format == "JPEG" and data.rstrip(b"\0").endswith(END_OF_JPEG)):
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
        side: of the square, in pixels.

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
