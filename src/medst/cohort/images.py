"""Read an image file of any supported format, as grey pixels or as the square that a cohort stores.

Untrusted files are decoded in a guarded child process, so that one that crashes, hangs or eats the memory costs one file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from medst.child import ChildError, GuardedProcess
from medst.cohort.decode_jpeg import JPEG, MOST_SCANS, PNG, START_OF_SCAN, decode
from medst.cohort.dicom import read_dicom, read_element
from medst.cohort.resize import resize
from medst.cohort.unreadable import UnreadableImage, check_contrast, read_bytes
from medst.errors import MedstError


@dataclass(frozen=True)
class Reading:
    """How files become pixels.

    Attributes:
        decode: exact: the pixels of `cv2.imread`; fast: JPEGs are decoded at 1/8, 1/4, 1/2 or all of their size, the
            smallest that is not below the stored size.
        intensity: for DICOM files, see `medst.cohort.dicom`.
    """

    decode: Literal["exact", "fast"] = "exact"
    intensity: Literal["maximum", "window"] = "maximum"


AS_RELEASED = Reading()


def read_grey(path: Path, reading: Reading = AS_RELEASED) -> np.ndarray:
    """Read an image at full size, as 8-bit grey; `reading.decode` is ignored.

    Returns:
        uint8 (height, width); the pixels of `cv2.imread`, or of `medst.cohort.dicom` for a DICOM file.

    Raises:
        UnreadableImage: missing, not a regular file, empty, truncated, not a picture, not grey in 8 bits, too small, too
            large or without contrast.
        OSError: every other image would fail as well, see `medst.cohort.unreadable.read_or_reason`.
        MedstError: it is DICOM, and the packages for that are missing.
    """
    data = read_bytes(path)
    return check_contrast(read_dicom(data, reading.intensity)) if is_dicom(path, data) else decode(data)[0]


def read_square(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as the square that a cohort stores.

    Returns:
        uint8 (256, 256), see `resize`; height and width of the image in the file.

    Raises:
        UnreadableImage, OSError, MedstError: as `read_grey`.
    """
    return _to_square(path, read_bytes(path), reading)


def _to_square(path: Path, data: bytes, reading: Reading) -> tuple[np.ndarray, tuple[int, int]]:
    cv2.setNumThreads(1)  # the worker processes are the parallelism
    if is_dicom(path, data):
        image = check_contrast(read_dicom(data, reading.intensity))
        return resize(image), (image.shape[0], image.shape[1])
    image, part, size = decode(data, fast=reading.decode == "fast")
    return resize(image, part, size), size


def read_guarded(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """`read_square`, but anything other than a plain JPEG or PNG is decoded in the child process.

    Raises:
        UnreadableImage: also if the child died, or took too much time or memory.
        OSError, MedstError: as `read_grey`.
    """
    data = read_bytes(path)
    plain = data.startswith((JPEG, PNG)) and not is_dicom(path, data)
    if plain and data.count(START_OF_SCAN) <= MOST_SCANS:
        return _to_square(path, data, reading)
    square, (height, width) = guarded(read_square, path.absolute(), reading)
    return square, (height, width)


def guarded(read: Callable[..., Any], *args: Any) -> Any:
    """Call `read(*args)` in the child process, which the first call starts; see `medst.child.GuardedProcess`.

    Args:
        read: a function of a module, for instance `read_grey`.
        args: picklable.

    Raises:
        UnreadableImage: as `read`; or the child died, or took too much time or memory.
        OSError, MedstError: as `read`.
    """
    try:
        return _child()(read, *args)
    except ChildError as error:
        raise UnreadableImage(str(error)) from None


@lru_cache(maxsize=1)
def _child() -> GuardedProcess:
    return GuardedProcess(refused=(UnreadableImage, OSError))


def read_grey_and_date(path: Path) -> tuple[np.ndarray, str]:
    """`read_grey`, and the study date of a DICOM file as YYYY-MM-DD; the date is empty if there is none."""
    image = read_grey(path)
    try:
        date = datetime.strptime(read_element(path, "StudyDate"), "%Y%m%d").date().isoformat()
    except (ValueError, MedstError):  # without pydicom, it is not DICOM
        date = ""
    return image, date


def is_dicom(path: Path, data: bytes) -> bool:
    """Whether a file is DICOM, by its first 132 bytes or its suffix."""
    return data[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")
