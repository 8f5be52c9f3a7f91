"""Pictures to 256 x 256 grey pixels, exactly as the released preprocessing makes them, or a reason why not.

`cv2.imread` fills the lost part of a cut-off JPEG with grey and returns it, so whether a file is whole is seen to before it
is decoded. What can't be seen here is damage in the middle of a file whose end is there.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medst.errors import MedstError

SIDE = 256
SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000
END_OF_JPEG = b"\xff\xd9"
GREY_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr")
PNG = b"\x89PNG\r\n\x1a\n"
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
REDUCED = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}


class UnreadableImage(MedstError):
    """A picture that can't be used; the message says why, in a few words."""


@dataclass(frozen=True)
class Reading:
    """How files become pixels.

    Attributes:
        decode: exact, to the pixel as `cv2.imread`; fast, JPEGs at the smallest of 1/8, 1/4, 1/2 and 1 of their size that is
            not below what is stored.
        intensity: of DICOM files, see `medst.cohort.dicom`.
    """

    decode: Literal["exact", "fast"] = "exact"
    intensity: Literal["maximum", "window"] = "maximum"


AS_RELEASED = Reading()


def read_square(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture as it is stored.

    Args:
        path: a JPEG, PNG or other picture that OpenCV reads, or a DICOM file; told apart by content.
        reading: exact or fast.

    Returns:
        uint8 (256, 256), as `resize` makes it; height and width of the picture in the file.

    Raises:
        UnreadableImage, OSError, MedstError: as `read_grey`.
    """
    data = _read_bytes(path)
    if not _is_dicom(path, data) and reading.decode == "fast":
        header = _guard(data)
        picture = _decode(data, _reduction(header))
        size = (header.width, header.height) if header.turned else (header.height, header.width)
    else:
        picture = _grey(path, data, reading)
        size = (picture.shape[0], picture.shape[1])
    return resize(picture, size=size), size


def read_grey(path: Path, reading: Reading = AS_RELEASED) -> np.ndarray:
    """An 8-bit grey picture in full size, as `cv2.imread` reads it; DICOM as `medst.cohort.dicom` reads it.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: missing, not to be opened, empty, truncated, no picture, not grey in 8 bits, too small, too large or
            without contrast.
        OSError: the disk fails, which another picture would meet as well.
        MedstError: it is DICOM, and the packages for that are missing.
    """
    return _grey(path, _read_bytes(path), reading)


def _grey(path: Path, data: bytes, reading: Reading) -> np.ndarray:
    if _is_dicom(path, data):
        from medst.cohort.dicom import read_dicom  # pydicom is an extra

        return _with_contrast(read_dicom(data, reading.intensity))
    _guard(data)
    return _decode(data, 1)


def _read_bytes(path: Path) -> bytes:
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
    return data


def _is_dicom(path: Path, data: bytes) -> bool:
    return data[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")


def _decode(data: bytes, reduction: int) -> np.ndarray:
    flag = REDUCED[reduction] if reduction > 1 else cv2.IMREAD_GRAYSCALE
    try:
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag)
    except cv2.error:
        picture = None
    if picture is None:
        raise UnreadableImage("OpenCV can't decode it")
    return _with_contrast(picture)


def _with_contrast(picture: np.ndarray) -> np.ndarray:
    if picture.min() == picture.max():
        raise UnreadableImage(f"all pixels are alike ({picture[0, 0]})")
    return picture


@dataclass(frozen=True)
class _Header:
    jpeg: bool
    width: int
    height: int
    turned: bool


def _reduction(header: _Header) -> int:
    """The largest fraction that leaves the longer side no smaller than what is stored; JPEGs alone can be read so."""
    if not header.jpeg:
        return 1
    return next((part for part in REDUCED if max(header.width, header.height) >= part * SIDE), 1)


def _guard(data: bytes) -> _Header:
    """Refuse by the header what must not be decoded, and what OpenCV would decode without a word though it is wrong."""
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
            if header.mode.startswith(("I", "F")) or (data.startswith(PNG) and data[24] == 16):
                raise UnreadableImage("more than 8 bits a pixel, of unknown range; save it with 8 bits")
            if header.mode not in GREY_MODES:
                raise UnreadableImage(f"{header.mode} colours, not grey or RGB")
            if (frames := getattr(header, "n_frames", 1)) > 1:
                raise UnreadableImage(f"{frames} frames; a picture has one")
            jpeg = header.format == "JPEG"
            if not (jpeg and data.rstrip(b"\0").endswith(END_OF_JPEG)):
                header.load()
            return _Header(jpeg, width, height, jpeg and header.getexif().get(ORIENTATION) in TURNED)
    except UnidentifiedImageError:
        raise UnreadableImage("not a picture") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("too large") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableImage(f"truncated or damaged ({error})") from None


def resize(picture: np.ndarray, side: int = SIDE, size: tuple[int, int] | None = None) -> np.ndarray:
    """The longer side to `side` by area, the other in proportion and cut to whole pixels; zeros around to a square.

    The product is rounded down in double precision as released, so that 49 x 49 becomes 256 x 255 and a black column. Very
    narrow pictures, on which the released code crashes, keep one pixel.

    Args:
        picture: uint8 (height, width).
        side: of the square, in pixels.
        size: height and width that the proportion is taken from, if `picture` was decoded at a fraction of them.

    Returns:
        uint8 (side, side).
    """
    height, width = size or picture.shape
    tall = height >= width
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(float(shorter) * (side / float(longer))))
    shape = (short, side) if tall else (side, short)  # OpenCV's order: width, height
    small = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
    before = (side - short) // 2
    padding = (before, side - short - before)
    return np.pad(small, ((0, 0), padding) if tall else (padding, (0, 0)))
