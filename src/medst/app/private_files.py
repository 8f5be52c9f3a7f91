"""The folder of visitors' files: only its owner can read it, and nothing stays in it."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

PREFIX = "medst-app-"
"""Start of the folder's name; the number of its process follows."""
LOCK = ".lock"
"""Held in the folder while its page is up."""
KEPT_SECONDS = 3600
"""Age at which a visitor's own files and pictures are forgotten."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder, removed when the context ends."""
    remove_left_behind()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        lock = FileLock(folder / LOCK, blocking=False)
        try:
            lock.acquire()
            break
        except (Timeout, FileNotFoundError):  # another page that starts now took the folder for one left behind
            continue
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_left_behind() -> None:
    """Remove the folders of pages that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        with suppress(OSError, Timeout):
            if (folder / LOCK).exists():  # held while a page is up; the number of its process may have been reused
                with FileLock(folder / LOCK, blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)
            elif not _is_running(folder.name.removeprefix(PREFIX).partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: str) -> bool:
    return not process.isdigit() or psutil.pid_exists(int(process))


def bytes_used(folder: Path) -> int:
    """Bytes of the files in the folder, after removing those older than `KEPT_SECONDS`."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode) or file.name == LOCK:
                continue
            if time.time() - status.st_mtime > KEPT_SECONDS:
                file.unlink()
            else:
                total += status.st_size
    return total


def remove_unfinished(folder: Path) -> None:
    """Remove uploads that broke off; gradio moves complete ones to folders of their own."""
    for file in folder.glob("tmp*"):
        with suppress(OSError):
            file.unlink()
