"""Files and folders: whole or absent, checked when read, and written by one process at a time.

Everything is written beside its final name, with the suffix `.part`, and renamed when complete, so a reader sees the old
file or the new one and never half of one. Whatever carries the suffix `.part` or `.lock` is a leftover and never blocks.
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
"""Bytes; a disk with fewer free ones is full."""
LEFTOVERS = (".part", ".lock", ".new")
"""Suffixes of what a killed process may leave behind; `.new` is how medst 0.1 named its own."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; rename it to `path` if the block succeeds, remove it if not.

    Args:
        path: final name of the file; missing parent folders are made.

    Raises:
        MedstError: `path` is a folder.
        OSError: as the block or the file system raises it, the full disk included; `path` is then as it was.
    """
    if path.is_dir():
        raise MedstError(f"{path} is a folder; give the name of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps a worker that outlives its killed parent from writing into a later worker's file.
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
    """Raise OSError where the disk of `path` is full; libraries raise RuntimeError, or an OSError without a number."""
    try:
        yield
    except MedstError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            raise
        said = any(words in str(error) for words in ("No space left", "quota exceeded"))
        place = next(parent for parent in Path(os.path.abspath(path)).parents if parent.is_dir())
        if not said and shutil.disk_usage(place).free >= LITTLE:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a whole file, or leave the old one."""
    with atomic(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file in UTF-8, or leave the old one."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int = 1) -> None:
    """Write a whole JSON file, or leave the old one."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: Path, remedy: str, kind: Form = dict) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        remedy: what to do if it is missing or damaged; ends the sentence, without a full stop.
        kind: form that the content must have, see `misfit`.

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
    """What in a JSON value does not have the form; empty if it fits.

    A form is a type, a tuple of types, a list with the form of every item, or a dictionary with the forms of the keys that
    must be there. In such a dictionary the key `str` gives the form of all other values.

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
    """A file that can't be read though the disk is well.

    Attributes:
        reason: why, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} is {reason}.")
        self.reason = reason


REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EISDIR: "a folder, not a regular file",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ENAMETOOLONG: "its name is too long",
    errno.ELOOP: "a link that leads back to itself",
}
"""What is wrong with one file, in words of our own; any other error is told in the system's words."""
WIDER = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTCONN)
"""Errors that every other file would meet as well: no free descriptor, no memory, a server that is gone."""


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file; a pipe or device is refused without being opened.

    Args:
        path: the file, or a link to it.
        most: bytes that it may have; None reads any size.

    Raises:
        UnusableFile: it is not a regular file, its name is impossible, or it is larger than `most`.
        OSError: it is missing or can't be read.
    """
    with open_regular(path) as file:
        if most is None:
            return file.read()
        # Files of /proc have no size before they are read, and some no end.
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise UnusableFile(path, f"larger than the {most / 1e6:.0f} MB that are read")
    return content


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading; raises as `read_regular`."""
    try:
        # Opening a device can set it off, and opening a pipe that nobody writes to waits for ever.
        _check_regular(path, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:  # a NUL byte, or a letter that no file name can have
        raise UnusableFile(path, "impossible as a file name") from None
    try:
        _check_regular(path, os.fstat(descriptor))  # it may be another one by now
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


def read_or_why(path: Path, most: int) -> bytes | str:
    """As `read_regular`, but what is wrong with this one file is returned in a few words.

    Raises:
        OSError: every other file would fail as well, see `WIDER`; it names this one.
    """
    try:
        return read_regular(path, most)
    except UnusableFile as error:
        return error.reason
    except OSError as error:
        if error.errno in WIDER:
            raise OSError(error.errno, error.strerror, str(path)) from error  # reading, unlike opening, names no file
        return REASONS.get(error.errno or 0, f"can't be read ({error.strerror or error})")


def sha256(source: Path | bytes | memoryview) -> str:
    """Hexadecimal digest of bytes, or of a file, which is read in pieces; raises as `read_regular`."""
    if not isinstance(source, Path):
        return hashlib.sha256(source).hexdigest()
    with open_regular(source) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged, or the first free NAME.damaged-2, -3 and so on; the new path."""
    names = (f"{path.name}.damaged" + (f"-{number}" if number > 1 else "") for number in count(1))
    aside = next(place for name in names if not (place := path.with_name(name)).exists())
    return path.rename(aside)


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_leftover(path: Path) -> bool:
    """Whether a killed process may have left this behind; it never counts as content."""
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
    """Hold an output, file or folder, for as long as the block runs; a second process is refused.

    The claim is a lock on `.NAME.lock` beside the output. It ends with the process, however that ends. The lock file goes
    with it, except after a kill, or where the file system knows only files that stand for locks.

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
        with suppress(OSError):  # who holds it is a convenience, and the disk may be full
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
    """Where a folder grows before it gets its final name."""
    path = Path(os.path.abspath(path))  # "." has no name to add to
    return path.with_name(path.name + ".part")


def old_of(path: Path) -> Path:
    """Where the previous folder of this name is while it is being replaced."""
    path = Path(os.path.abspath(path))
    return path.with_name(path.name + ".old")


def replace_folder(path: Path) -> None:
    """Give the complete folder `part_of(path)` its final name in place of the one that has it now.

    A kill between the two renames leaves the complete new folder and the complete old one; `recover_folder` finishes, and
    `find_folder` reads the right one until then.
    """
    path = Path(os.path.abspath(path))  # "." can't be renamed
    part, old = part_of(path), old_of(path)
    if path.exists():
        if old.exists():
            shutil.rmtree(old)
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path, is_complete: Callable[[Path], bool]) -> None:
    """Finish a `replace_folder` that a kill interrupted; only the process that writes `path` may call this.

    Args:
        path: the folder's final name.
        is_complete: whether a folder is whole; a `.part` that isn't is left for the writer to begin anew.
    """
    if not path.exists():
        for candidate in (part_of(path), old_of(path)):
            if candidate.is_dir() and is_complete(candidate):
                candidate.rename(path)
                break
    if path.exists():
        shutil.rmtree(old_of(path), ignore_errors=True)


def find_folder(path: Path, is_complete: Callable[[Path], bool]) -> Path:
    """The folder to read for `path`: itself, or what an interrupted `replace_folder` left; changes nothing."""
    if path.exists():
        return path
    candidates = (part_of(path), old_of(path))
    return next((place for place in candidates if place.is_dir() and is_complete(place)), path)
