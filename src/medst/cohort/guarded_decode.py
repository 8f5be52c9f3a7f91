"""Decode untrusted files in a guarded child process, so that one that crashes, hangs or eats the memory costs one file."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medst.child import ChildError, GuardedProcess
from medst.cohort.decode_jpeg import JPEG, MOST_SCANS, PNG, START_OF_SCAN
from medst.cohort.images import AS_RELEASED, Reading, is_dicom, read_square_on_one_thread, to_square
from medst.cohort.unreadable import UnreadableImage, read_bytes
from medst.files import UnusableFile, open_regular

HEAD = 132
"""Bytes that tell the format."""


def read_guarded(path: Path, reading: Reading = AS_RELEASED) -> tuple[np.ndarray, tuple[int, int]]:
    """`read_square`, but anything other than a plain JPEG or PNG is decoded in the child process.

    Raises:
        UnreadableImage: also if the child died, or took too much time or memory.
        OSError, MedstError: as `medst.cohort.images.read_grey`.
    """
    if _is_plain(path):
        data = read_bytes(path)
        if data.count(START_OF_SCAN) <= MOST_SCANS:
            return to_square(path, data, reading)
    square, (height, width) = guarded(read_square_on_one_thread, path.absolute(), reading)
    return square, (height, width)


def _is_plain(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            head = file.peek(HEAD)[:HEAD]
    except (OSError, UnusableFile):
        return True  # reading it gives the reason
    return not head or (head.startswith((JPEG, PNG)) and not is_dicom(path, head))


def guarded(read: Callable[..., Any], *args: Any) -> Any:
    """Call `read(*args)` in the child process, which the first call starts; see `medst.child.GuardedProcess`.

    Args:
        read: a function of a module, for instance `medst.cohort.images.read_grey`.
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
