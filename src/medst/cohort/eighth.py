"""JPEGs at an eighth of their size, by the C code beside this file; OpenCV's scaled decoding gives the same more slowly."""

import ctypes
from functools import lru_cache
from pathlib import Path

import numpy as np

LIBRARY = "_jpeg_eighth.so"
DONE = 0


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The compiled code; None where the package was built without a compiler."""
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name(LIBRARY)))
    except OSError:
        return None
    library.medst_jpeg_eighth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_void_p,
    )
    library.medst_jpeg_eighth.restype = ctypes.c_int
    return library


def compiled() -> bool:
    """Whether the compiled code is there."""
    return _library() is not None


def read_eighth(data: bytes, height: int, width: int) -> np.ndarray | None:
    """The mean of every 8 x 8 block of a grey baseline JPEG, rounded as libjpeg does.

    Args:
        data: the file's content.
        height, width: as its header says.

    Returns:
        uint8 (ceil(height / 8), ceil(width / 8)), the very pixels of `cv2.IMREAD_REDUCED_GRAYSCALE_8` for an unturned
        picture; None where the file is of another kind or damaged, or nothing was compiled.
    """
    library = _library()
    if library is None:
        return None
    out = np.empty(((height + 7) // 8, (width + 7) // 8), dtype=np.uint8)
    result = library.medst_jpeg_eighth(data, len(data), height, width, out.ctypes.data)
    return out if result == DONE else None
