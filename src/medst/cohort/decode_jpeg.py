"""Decode JPEG, PNG and other formats that OpenCV reads, or say why a file is rejected.

OpenCV fills the lost part of a truncated JPEG with grey and returns it without an error, so files are checked before they
are decoded. Damage in the middle of a JPEG whose end is there goes unnoticed.
"""

import warnings
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from medst.cohort.resize import SIDE
from medst.cohort.unreadable import UnreadableImage, check_contrast, check_size

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = b"\xff\xda"
END_OF_JPEG = b"\xff\xd9"
MOST_SCANS = 24
"""Most scans of a JPEG that is decoded unguarded: each costs a pass over the image, and a small file can have thousands."""
GREY_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr")
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "SUN", "TIFF", "WEBP")
"""Formats that Pillow may try: those that OpenCV reads. Others would start Ghostscript, for one."""
ORIENTATION, UPRIGHT, TURNED = 0x0112, 1, (5, 6, 7, 8)  # Exif tag and values
REDUCED = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}


def decode(data: bytes, fast: bool = False) -> tuple[np.ndarray, int, tuple[int, int]]:
    """Decode a file to the pixels that `cv2.imread` gives, or if `fast`, a JPEG at a fraction of its size.

    Returns:
        uint8 (ceil(height / part), ceil(width / part)); part: 1, or if `fast` the largest of 8, 4, 2 and 1 that leaves the
        longer side no smaller than the stored size; height and width of the full image.

    Raises:
        UnreadableImage: see `check_header`; or OpenCV can't decode it, or it has no contrast.
    """
    jpeg, size = check_header(data)
    part = next((part for part in REDUCED if fast and jpeg and max(size) >= part * SIDE), 1)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), REDUCED.get(part, cv2.IMREAD_GRAYSCALE))
    except cv2.error:
        image = None
    if image is None:
        raise UnreadableImage("OpenCV can't decode it")
    return check_contrast(image), part, size if part > 1 else (image.shape[0], image.shape[1])


def check_header(data: bytes) -> tuple[bool, tuple[int, int]]:
    """Reject, from the header alone, files that must not be decoded or that OpenCV would silently decode wrongly.

    Only a file that does not end as a JPEG does is decoded, by Pillow, which notices missing data.

    Returns:
        Whether it is a JPEG; height and width of the upright image.

    Raises:
        UnreadableImage: not a picture, truncated, too small or large, not 8-bit grey or RGB, or with several frames.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` has its own limit
            header = Image.open(BytesIO(data), formats=FORMATS)
        with header:
            width, height = header.size
            check_size(width, height)
            if header.mode.startswith(("I", "F")) or (data.startswith(PNG) and data[24] == 16):
                raise UnreadableImage("more than 8 bits per pixel, so its range is unknown; save it with 8 bits")
            if header.mode not in GREY_MODES:
                raise UnreadableImage(f"{header.mode} colours instead of grey or RGB")
            if (frames := getattr(header, "n_frames", 1)) > 1:
                raise UnreadableImage(f"{frames} frames instead of one")
            jpeg = header.format == "JPEG"
            if not (jpeg and data.rstrip(b"\0").endswith(END_OF_JPEG)):
                header.load()
            turned = jpeg and int(header.getexif().get(ORIENTATION) or UPRIGHT) in TURNED
            return jpeg, (width, height) if turned else (height, width)
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
