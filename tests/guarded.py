"""Functions that tests run in child processes; a separate module, so that a child imports little."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from medst.errors import MedstError


class Refusal(MedstError):
    """An expected error of a guarded function."""


class Unforeseen(Exception):
    """An error that is not listed."""


BEFORE: list[int] = []


def child(_: object = None) -> list[int]:
    """Process id and group of the child, and its number of calls."""
    BEFORE.append(0)
    return [os.getpid(), os.getpgid(0), len(BEFORE)]


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(code: int) -> None:
    os._exit(code)


def hang() -> None:
    time.sleep(600)


def hang_without_python() -> None:
    """Hang like native code, so that no signal handler of Python runs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    time.sleep(600)


def take(size: int) -> int:
    return len(b"x" * size)


def fail(kind: str) -> None:
    raise {"refusal": Refusal, "medst": MedstError, "disk": PermissionError, "unforeseen": Unforeseen}[kind]("SECRET")


def talk() -> list[Any]:
    """Print, and read the standard input, like a badly behaved library."""
    print("printed", flush=True)
    os.write(1, b"\0" * 64)
    os.write(2, b"to nobody")
    return [sys.stdin.read(), os.read(0, 10).decode()]


def several() -> tuple[np.ndarray, tuple[int, int], str]:
    return np.arange(6, dtype=np.uint16).reshape(2, 3), (2, 3), "text"


def damage() -> None:
    """Kill the next call, but not this one, whose `pack` is already looked up."""
    sys.modules["medst.child"].__dict__["pack"] = lambda *_: os.abort()


def count(path: Path) -> int:
    """Die in every child but the third; returns the number of calls."""
    with path.open("a") as file:
        file.write("x")
    if len(path.read_text()) < 3:
        os.abort()
    return len(path.read_text())


LEAKED: list[bytes] = []


def leak(size: int) -> list[int]:
    LEAKED.append(b"x" * size)
    return [os.getpid(), len(LEAKED)]


def garbage(seed: int) -> None:
    """Send a malformed answer, as a decoder that was taken over could, and die."""
    rng = np.random.default_rng(seed)
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, rng.bytes(int(rng.integers(1, 200))))
        except OSError:
            continue
    os._exit(0)


def square(number: int) -> int:
    return number * number


def decode_badly(path: Path, reading: Any) -> list[Any]:
    """Like `read_square`, except for files whose name says how their decoder fails."""
    from medst.cohort.images import read_square

    ends = {"abort": signal.SIGABRT, "crash": signal.SIGSEGV, "hang": signal.SIGALRM}  # how a hanging call ends
    if number := ends.get(path.stem):
        os.kill(os.getpid(), number)
    if path.stem == "greedy":
        return [len(bytes(2**33))]
    if path.stem == "new":
        raise Unforeseen("SECRET")
    return list(read_square(path, reading))


def abort(path: Path) -> None:
    """Abort, as polars does on some damaged Parquet files."""
    os.abort()
