"""Write files that are complete or absent, and let one process at a time write an output folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, UnixFileLock

from medst.errors import MedstError

LEFTOVERS = (".part", ".lock", ".new")
"""Suffixes of files that a killed process may leave behind; `.new` is from version 0.1."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` if the block succeeds, remove it if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the process id, a worker that outlives its killed parent never writes into a later worker's file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a complete file, or leave the old one."""
    with atomic(path) as part:
        part.write_bytes(data)


def is_leftover(path: Path) -> bool:
    """Whether a killed process may have left this file behind."""
    return path.name.endswith(LEFTOVERS)


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs.

    The lock file is beside the folder. The claim ends with the process, even a killed one.

    Raises:
        MedstError: another process holds the folder, or the lock file can't be written.
    """
    folder = Path(os.path.abspath(folder))
    place = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(place, blocking=False, thread_local=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise MedstError(
            f"{folder} is being written by another process; wait until it ends, or name another."
        ) from None
    except (FileExistsError, NotADirectoryError) as error:
        raise MedstError(f"{error.filename or folder.parent} is a file, so {folder} cannot be written there.") from None
    try:
        yield
    finally:
        # Safe only while the lock is held, and because filelock from version 4 gives up a lock whose file is gone.
        if isinstance(lock, UnixFileLock):
            with suppress(OSError):
                place.unlink()
        lock.release()
