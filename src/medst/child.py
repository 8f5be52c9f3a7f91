"""The inside of a `medst.jobs.GuardedProcess`, and the messages that both sides exchange.

A file of its own because the child imports it before its first answer: it needs little beyond NumPy.
"""

import json
import os
import pickle
import signal
import struct
from typing import IO, Any

import numpy as np

LENGTH = struct.Struct("<Q")
READY = b"ready"
"""The child's first message; a child that can't start doesn't send it."""


def serve() -> None:
    """Answer calls until the caller is gone, or until decoders have leaked half of the memory that a call may take."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a decoder prints must not end up among the answers, nor what it reads be a call.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    send(answers, READY)
    first = 0
    while True:
        try:
            refused, seconds, memory, call = pickle.loads(receive(calls))
        except EOFError:
            return
        if hasattr(signal, "alarm"):
            # Ends the child even inside of native code, if the caller was killed and can't do it.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(seconds) + 5)
        taken = _limit_memory(memory)
        first = first or taken
        send(answers, _answer(call, refused))
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        if taken - first > memory // 2:
            return


def _answer(call: bytes, refused: list[str]) -> bytes:
    try:
        function, args = pickle.loads(call)
    except Exception as error:
        return pack("broken", f"{type(error).__name__}: {error}")
    try:
        return pack("value", function(*args))
    except MemoryError:
        return pack("memory", "")
    except Exception as error:
        kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in refused), "")
        # The text of an error that nobody foresaw may quote the file, a patient's name included.
        return pack(kind, str(error) if kind else type(error).__name__)


def _limit_memory(beyond: int) -> int:
    """Limit this process to what it has now and `beyond` bytes; what it has now, 0 if the system doesn't say."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = taken + beyond
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
        # A crash is expected here, and a core file would hold patients' pictures.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        return taken
    except (ImportError, OSError, ValueError):
        return 0


def pack(kind: str, value: Any) -> bytes:
    """An answer as JSON with the shapes of its arrays, then their bytes.

    Args:
        kind: `value`, `memory`, `broken`, the name of an exception, or empty for one that nobody foresaw.
        value: an array, plain JSON values, or a list of such.
    """
    arrays: list[np.ndarray] = []

    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            arrays.append(np.ascontiguousarray(item))
            return {"array": len(arrays) - 1, "dtype": item.dtype.str, "shape": list(item.shape)}
        return [plain(part) for part in item] if isinstance(item, (list, tuple)) else item

    head = json.dumps([kind, plain(value)]).encode()
    return b"".join((LENGTH.pack(len(head)), head, *(array.data.cast("B") for array in arrays if array.size)))


def unpack(message: bytearray) -> tuple[str, Any]:
    """What `pack` was given, tuples as lists.

    Raises:
        ValueError, TypeError, KeyError, struct.error: it isn't what `pack` makes.
    """
    start = LENGTH.size + LENGTH.unpack_from(message)[0]
    kind, value = json.loads(message[LENGTH.size : start])
    place = start

    def whole(item: Any) -> Any:
        nonlocal place
        if isinstance(item, dict) and item.keys() == {"array", "dtype", "shape"}:
            dtype, count = np.dtype(item["dtype"]), int(np.prod(item["shape"], dtype=np.int64))
            if not count:
                return np.empty(item["shape"], dtype)
            array = np.frombuffer(message, dtype, count, place).reshape(item["shape"])
            place += array.nbytes
            return array
        return [whole(part) for part in item] if isinstance(item, list) else item

    return kind, whole(value)


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message."""
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes], most: int | None = None) -> bytearray:
    """Read a message.

    Raises:
        EOFError: the other side is gone, or announces more than `most` bytes.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    if most is not None and length > most:
        raise EOFError
    message = bytearray(length)
    if stream.readinto(message) < length:  # type: ignore[attr-defined]
        raise EOFError
    return message
