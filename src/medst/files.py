"""Files and folders: complete or absent, checked when read, and written by one process at a time.

Everything is written beside its final name, with the suffix `.part`, and renamed when complete, so a reader sees the old
file or the new one, never half of one. Files with the suffix `.part` or `.lock` are leftovers and never block.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, UnixFileLock

from medst.errors import MedstError

Form = type | tuple[type, ...] | list[Any] | Mapping[Any, Any]
LITTLE = 65536
"""Bytes; a disk with less free space counts as full."""
LEFTOVERS = (".part", ".lock", ".new")
"""Suffixes of what a killed process may leave behind; `.new` is from medst 0.1."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; rename it to `path` if the block succeeds, remove it if not.

    Args:
        path: final name of the file; missing parent folders are made.

    Raises:
        MedstError: `path` is a folder.
        OSError: from the block or the file system, also if the disk is full; `path` is then unchanged.
    """
    if path.is_dir():
        raise MedstError(f"{path} is a folder; give the name of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # With the process id, a worker that outlives its killed parent never writes into a later worker's file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with disk_errors(path):
            yield part
            os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise OSError if the disk of `path` is full; libraries raise RuntimeError then, or an OSError without a number."""
    try:
        yield
    except MedstError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise
        mentioned = any(words in str(error) for words in ("No space left", "quota exceeded"))
        place = next(parent for parent in Path(os.path.abspath(path)).parents if parent.is_dir())
        if not mentioned and shutil.disk_usage(place).free >= LITTLE:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a complete file, or leave the old one."""
    with atomic(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a complete text file in UTF-8, or leave the old one."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int = 1) -> None:
    """Write a complete JSON file, or leave the old one."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: Path, remedy: str, kind: Form = dict) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        remedy: what to do if it is missing or damaged; ends the sentence, without a full stop.
        kind: form of the content, see `misfit`.

    Raises:
        MedstError: the file is missing, not a regular file, damaged, or its content does not have that form.
    """
    try:
        found = json.loads(read_regular(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise MedstError(f"{path}: no such file; {remedy}.") from None
    except UnusableFile as error:
        raise MedstError(f"{path} is {error.reason}; {remedy}.") from None
    except (ValueError, RecursionError) as error:
        raise MedstError(f"{path} is damaged ({str(error).splitlines()[0]}); {remedy}.") from None
    wrong = misfit(found, kind)
    if wrong:
        raise MedstError(f"{path} is damaged ({wrong}); {remedy}.")
    return found


def misfit(value: Any, form: Form, where: str = "") -> str:
    """Describe where a JSON value does not have a form; empty if it fits.

    A form is a type, a tuple of types, a list with the form of every item, or a dictionary with the forms of the required
    keys. In such a dictionary the key `str` gives the form of all other values.

    >>> misfit({"rows": [1, None], "more": 0}, {"rows": [(int, type(None))]})
    ''
    >>> misfit({"rows": [1, "2"]}, {"rows": [int]})
    'rows[1] is a str, not an int'
    """
    name = where or "it"
    kinds: Any = dict if isinstance(form, Mapping) else list if isinstance(form, list) else form
    if not isinstance(value, kinds):
        words = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
        wanted = f"{'an' if words[0][0] in 'aeiou' else 'a'} {' or '.join(words)}"
        return f"{name} is a {type(value).__name__}, not {wanted}"
    parts: Iterable[tuple[Any, Form, str]] = ()
    if isinstance(form, list):
        parts = ((item, form[0], f"{where}[{place}]") for place, item in enumerate(value))
    elif isinstance(form, Mapping):
        missing = [key for key in form if key is not str and key not in value]
        if missing:
            return f"{name} has no {missing[0]!r}"
        parts = (
            (item, form.get(key, form.get(str, object)), f"{where}.{key}".lstrip(".")) for key, item in value.items()
        )
    return next((wrong for part in parts if (wrong := misfit(*part))), "")


class UnusableFile(MedstError):
    """A file that can't be read, and is itself the reason.

    Attributes:
        reason: why, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} is {reason}.")
        self.reason = reason


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Read a regular file; a pipe or a device is refused without being opened.

    Args:
        path: the file, or a link to it.
        most: largest size in bytes; None reads any size.

    Raises:
        UnusableFile: it is not a regular file, its name is impossible, or it is larger than `most`.
        OSError: it is missing or can't be read.
    """
    with open_regular(path) as file:
        if most is None:
            return file.read()
        # Files of /proc have no size before they are read, and some are endless.
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise UnusableFile(path, f"larger than the {most / 1e6:.0f} MB that are read")
    return content


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; raises as `read_regular`."""
    try:
        # Opening a device can have effects, and opening a pipe that nobody writes to blocks for ever.
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a NUL byte, or a character that no file name can have
        raise UnusableFile(path, "impossible as a file name") from None
    try:
        _check_regular(path, os.fstat(descriptor))  # it may have been replaced
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnusableFile(path, "a folder, not a regular file")
    if not stat.S_ISREG(status.st_mode):
        raise UnusableFile(path, "not a regular file")


def sha256(source: Path | bytes | memoryview | Iterable[bytes]) -> str:
    """Hexadecimal digest of bytes, of chunks of bytes, or of a file, which is read in pieces; raises as `read_regular`."""
    if isinstance(source, Path):
        with open_regular(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for chunk in [source] if isinstance(source, bytes | memoryview) else source:
        digest.update(chunk)
    return digest.hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged, or the first free NAME.damaged-2, -3 and so on; the new path."""
    names = (f"{path.name}.damaged" + (f"-{number}" if number > 1 else "") for number in count(1))
    aside = next(place for name in names if not (place := path.with_name(name)).exists())
    return path.rename(aside)


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's quota, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_leftover(path: Path) -> bool:
    """Whether a killed process may have left this behind; leftovers never count as content."""
    return path.name.endswith(LEFTOVERS)


def is_free(path: Path) -> bool:
    """Whether `path` is missing, or a folder with nothing in it but leftovers.

    Raises:
        OSError: the folder can't be listed.
    """
    if not path.exists() and not path.is_symlink():
        return True
    return path.is_dir() and all(is_leftover(entry) for entry in path.iterdir())


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Hold an output, file or folder, while the block runs; a second process is refused.

    The claim is a lock on `.NAME.lock` beside the output. It ends with the process, even a killed one. The lock file is then
    removed, except after a kill, or on file systems without real locks.

    Args:
        path: the output's final name; missing parent folders are made.

    Raises:
        MedstError: another process holds it, or nothing can be written beside it.
    """
    path = Path(os.path.abspath(path))
    place = path.with_name(f".{path.name}.lock")
    lock = FileLock(place, blocking=False, thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise MedstError(
            f"{path} is being written by another process{_holder(place)}; wait until it ends, or give another output."
        ) from None
    except (FileExistsError, NotADirectoryError) as error:
        raise MedstError(f"{error.filename or path.parent} is a file, so {path} cannot be written there.") from None
    except OSError as error:
        if is_full(error):
            raise
        raise MedstError(
            f"{path} cannot be written: {error.strerror or error} in {path.parent}; give an output in another folder."
        ) from None
    try:
        with suppress(OSError):  # naming the holder is a convenience, and the disk may be full
            place.write_text(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        # Safe only while the lock is held, and because filelock from version 4 gives up a lock whose file is gone.
        if isinstance(lock, UnixFileLock):
            with suppress(OSError):
                place.unlink()
        lock.release()


def _holder(place: Path) -> str:
    try:
        process, _, host = place.read_text().partition(" ")
        return f" (process {int(process)} on {host})" if host else ""
    except (OSError, ValueError):
        return ""


def part_of(path: Path) -> Path:
    """Path of a folder while it is being written."""
    return Path(os.path.abspath(path) + ".part")  # "." has no name to add to


def old_of(path: Path) -> Path:
    """Path of the previous folder while it is being replaced."""
    return Path(os.path.abspath(path) + ".old")


def replace_folder(path: Path) -> None:
    """Give the complete folder `part_of(path)` its final name, in place of a folder that has it now.

    A kill between the two renames leaves the complete new folder and the complete old one; `recover_folder` finishes then,
    and `find_folder` reads the right one until it does.
    """
    path = Path(os.path.abspath(path))  # "." can't be renamed
    part, old = part_of(path), old_of(path)
    if path.exists():
        if old.exists():
            shutil.rmtree(old)
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def find_folder(path: Path, is_complete: Callable[[Path], bool]) -> Path:
    """The folder to read for `path`: itself, or what an interrupted `replace_folder` left; changes nothing.

    Args:
        path: the folder's final name.
        is_complete: whether a folder is complete.
    """
    candidates = () if path.exists() else (part_of(path), old_of(path))
    return next((place for place in candidates if place.is_dir() and is_complete(place)), path)


def recover_folder(path: Path, is_complete: Callable[[Path], bool]) -> None:
    """Finish a `replace_folder` that a kill interrupted; arguments as `find_folder`.

    Only the process that writes `path` may call this. An incomplete `.part` is left for it to start again.
    """
    found = find_folder(path, is_complete)
    if found != path:
        found.rename(path)
    if path.exists():
        shutil.rmtree(old_of(path), ignore_errors=True)
