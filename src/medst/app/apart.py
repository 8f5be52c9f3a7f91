"""A visitor's file decoded in a process of its own: a decoder that dies or hangs on it takes no page with it.

GDCM ends the process on some damaged DICOM files (see `medst.cohort.dicom`), and anyone may have made an upload.
"""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medst.cohort.images import UnreadableImage, read_grey
from medst.errors import MedstError

PATIENCE = 60.0
"""Seconds that a file may take."""


def read_apart(
    file: Path, patience: float = PATIENCE, reader: Callable[[Path], np.ndarray] = read_grey
) -> UInt8[np.ndarray, "height width"]:
    """As `medst.cohort.images.read_grey`.

    Args:
        file: on the disk for now.
        patience: seconds that it may take.
        reader: decodes; a function of a module, not a nested one.

    Raises:
        UnreadableImage: as the reader; or the reader died or took too long.
        MedstError: the packages that read DICOM are missing, or the disk failed.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, file, reader), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(patience):
            raise UnreadableImage(f"decoding it takes longer than {patience:g} seconds")
        answer = receiver.recv()
    except EOFError:
        raise UnreadableImage("its decoder died on it; it is damaged") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, np.ndarray):
        return answer
    kind, message = answer
    raise (UnreadableImage if kind == "unreadable" else MedstError)(message)


def _answer(sender: Connection, file: Path, reader: Callable[[Path], np.ndarray]) -> None:
    try:
        sender.send(reader(file))
    except UnreadableImage as error:
        sender.send(("unreadable", str(error)))
    except MemoryError:
        sender.send(("unreadable", "too large for the memory"))
    except (MedstError, OSError) as error:
        sender.send(("failed", str(error)))
