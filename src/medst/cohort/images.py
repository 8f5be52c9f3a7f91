"""Pictures to 256 x 256 grey pixels, exactly as the released preprocessing makes them, or a reason why not.

`cv2.imread` fills the lost part of a cut-off JPEG with grey and returns it, so whether a file is whole is seen to before it
is decoded. What can't be seen here is damage in the middle of a file whose end is there.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medst.cohort.eighth import read_eighth
from medst.errors import MedstError
from medst.files import UnusableFile, open_regular, read_or_why

if TYPE_CHECKING:
    from medst.jobs import GuardedProcess

SIDE = 256
SMALLEST_SIDE = 16
MOST_PIXELS = 100_000_000
MOST_BYTES = 2**29
"""Size of a file, and of what a deflated one inflates to: `MOST_PIXELS` in 32 bits and as much again for the rest."""
MOST_SCANS, HEAD = 24, 132
"""Scans of a JPEG that counts as plain: each costs a pass over the whole picture, and a small file can have thousands."""
JPEG = b"\xff\xd8\xff"
START_OF_SCAN = b"\xff\xda"
END_OF_JPEG = b"\xff\xd9"
GREY_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr")
PNG = b"\x89PNG\r\n\x1a\n"
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "SUN", "TIFF", "WEBP")
"""What Pillow may try: formats that OpenCV reads. Others would start Ghostscript, for one."""
ORIENTATION, UPRIGHT, TURNED = 0x0112, 1, (5, 6, 7, 8)
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


def read_guarded(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """As `read_square`, with anything but plain JPEG and PNG decoded in a guarded child process.

    Raises:
        UnreadableImage: also where the child died, took too long or too much memory.
        OSError, MedstError: as `read_grey`.
    """
    if _seems_plain(path):
        data = _read_bytes(path)
        if data.count(START_OF_SCAN) <= MOST_SCANS:
            return _square(path, data, reading)
    square, (height, width) = guarded(_read_square_alone, path.absolute(), reading)
    return square, (height, width)


def _seems_plain(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            head = file.peek(HEAD)[:HEAD]
    except (OSError, UnusableFile):
        return True  # reading it says what is wrong
    return not head or (head.startswith((JPEG, PNG)) and not _is_dicom(path, head))


def guarded(read: Callable[..., Any], *args: Any) -> Any:
    """`read(*args)` in this process's guarded child, which is started at the first call; see `medst.jobs.GuardedProcess`.

    Args:
        read: of a module, for instance `read_grey`.
        args: picklable.

    Raises:
        UnreadableImage: as `read`; or the child died, took too long or too much memory.
        OSError, MedstError: as `read`.
    """
    from medst.jobs import ChildError  # not in the child, which has no use for it

    try:
        return _child()(read, *args)
    except ChildError as error:
        raise UnreadableImage(str(error)) from None


@lru_cache(maxsize=1)
def _child() -> "GuardedProcess":
    from medst.jobs import GuardedProcess

    return GuardedProcess(refused=(UnreadableImage, OSError))


def _read_square_alone(path: Path, reading: Reading) -> tuple[np.ndarray, tuple[int, int]]:
    cv2.setNumThreads(1)  # the workers are the parallelism
    return read_square(path, reading)


def read_square(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture as it is stored, decoded in this process.

    Args:
        path: a JPEG, PNG or other picture that OpenCV reads, or a DICOM file; told apart by content.
        reading: exact or fast.

    Returns:
        uint8 (256, 256), as `resize` makes it; height and width of the picture in the file.

    Raises:
        UnreadableImage, OSError, MedstError: as `read_grey`.
    """
    return _square(path, _read_bytes(path), reading)


def _square(path: Path, data: bytes, reading: Reading) -> tuple[np.ndarray, tuple[int, int]]:
    if not _is_dicom(path, data) and reading.decode == "fast":
        header = _guard(data)
        size = (header.width, header.height) if header.turned else (header.height, header.width)
        part = _reduction(header)
        if part > 1:
            return shrink(_reduced(data, header, part), part, size), size
        picture = _decode(data, 1)
    else:
        picture = _grey(path, data, reading)
        size = (picture.shape[0], picture.shape[1])
    return resize(picture), size


def read_grey(path: Path, reading: Reading = AS_RELEASED) -> np.ndarray:
    """An 8-bit grey picture in full size, as `cv2.imread` reads it; DICOM as `medst.cohort.dicom` reads it.

    It is decoded in this process; `guarded(read_grey, path)` decodes it in another.

    Returns:
        uint8 (height, width).

    Raises:
        UnreadableImage: missing, not a regular file, empty, truncated, not a picture, not grey in 8 bits, too small, too
            large or without contrast.
        OSError: every other picture would fail as well, see `medst.files.read_or_why`.
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
    data = read_or_why(path, MOST_BYTES)
    if not data:
        raise UnreadableImage("the file is empty")
    if isinstance(data, str):
        raise UnreadableImage(data)
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
    orientation: int

    @property
    def turned(self) -> bool:
        return self.orientation in TURNED


def _reduced(data: bytes, header: _Header, part: int) -> np.ndarray:
    if part == 8 and header.orientation == UPRIGHT:
        picture = read_eighth(data, header.height, header.width)
        if picture is not None:
            return _with_contrast(picture)
    return _decode(data, part)


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
            header = Image.open(BytesIO(data), formats=FORMATS)
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
            return _Header(jpeg, width, height, int(header.getexif().get(ORIENTATION) or UPRIGHT) if jpeg else UPRIGHT)
    except UnidentifiedImageError:
        raise UnreadableImage("not a picture") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("too large") from None
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # each format raises errors of its own
        raise UnreadableImage(
            f"truncated or damaged ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None


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
    rows, columns = fit(height, width, side)
    return _pad(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA), side)


def fit(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Rows and columns that a picture has in its square."""
    longer, shorter = max(height, width), min(height, width)
    short = max(1, int(float(shorter) * (side / float(longer))))
    return (side, short) if height >= width else (short, side)


def _pad(small: np.ndarray, side: int) -> np.ndarray:
    rows, columns = small.shape
    top, left = (side - rows) // 2, (side - columns) // 2
    return np.pad(small, ((top, side - rows - top), (left, side - columns - left)))


def shrink(reduced: np.ndarray, part: int, size: tuple[int, int]) -> np.ndarray:
    """As `resize`, from a picture decoded at 1/part of its size.

    Where the size is no multiple of `part`, the last reduced row or column stands for less than the others, and OpenCV's
    resizing, which takes all for alike, would shift the picture by up to a pixel.

    Args:
        reduced: uint8 (ceil(height / part), ceil(width / part)).
        part: 2, 4 or 8.
        size: height and width of the picture in the file.

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
