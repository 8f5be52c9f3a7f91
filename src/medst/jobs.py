"""A guarded child process: calls that may die, hang or eat the memory, without taking the caller with them."""

import atexit
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np

from medst.errors import MedstError

LENGTH = struct.Struct("<Q")
MEMORY = 3 * 2**30
"""Bytes that a call may take beyond what the child has when it begins."""
SECONDS = 60.0
"""How long a call may take."""
Answer = np.ndarray | list | dict | str | int | float | bool | None
"""What a guarded function may return: an array, plain JSON values, or a list of such."""


class ChildError(Exception):
    """The call ended its child process, took too long or too much memory; the message says which."""


class GuardedProcess:
    """A child process that runs one call at a time, is reused, and is started again after it died.

    The child answers in JSON and raw arrays, never in pickles: what a decoder makes of a hostile file can't become code
    in the caller. The functions that it calls come from the caller and are trusted.

    Args:
        seconds: how long a call may take.
        memory: bytes that a call may take beyond what the child has when the call begins; not limited on macOS.
        refused: exception types whose message comes back as an exception of that type.

    Example:
        >>> from math import sqrt
        >>> with GuardedProcess() as child:
        ...     child(sqrt, 4.0)
        2.0
    """

    def __init__(
        self, *, seconds: float = SECONDS, memory: int = MEMORY, refused: tuple[type[Exception], ...] = ()
    ) -> None:
        self.seconds, self.memory = seconds, memory
        kinds: tuple[type[Exception], ...] = (MedstError, *refused)
        self._refused = {kind.__name__: kind for kind in kinds}
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, computed in the child.

        Args:
            function: of a module, so that it can be pickled.
            args: picklable.

        Raises:
            ChildError: the child died, took too long or too much memory.
            Exception: one of `refused`, or MedstError, as `function` raised it.
        """
        with self._lock:
            child = self._started()
            assert child.stdin is not None
            assert child.stdout is not None
            late = threading.Event()

            def end() -> None:
                late.set()
                child.kill()

            timer = threading.Timer(self.seconds, end)
            timer.daemon = True
            timer.start()
            try:
                _send(child.stdin, pickle.dumps((function, args, self.seconds, self.memory, sorted(self._refused))))
                kind, value = _unpacked(_receive(child.stdout))
            except (OSError, EOFError) as error:
                self._end()
                if late.is_set():
                    raise ChildError(f"it takes longer than {self.seconds:g} seconds") from None
                raise ChildError("its decoder crashed") from error
            except (
                BaseException
            ):  # Ctrl-C in the middle of an answer leaves a child whose next answer would be the wrong one
                self._end()
                raise
            finally:
                timer.cancel()
        if kind == "value":
            return value
        if kind == "memory":
            raise ChildError("it takes more memory than a file may")
        raise self._refused.get(kind, ChildError)(value)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():  # after a fork the child belongs to the other process
            self._child, self._owner = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
            environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
            self._child = subprocess.Popen(
                [sys.executable, "-c", "from medst.jobs import _serve; _serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is the caller's to handle
            )
            atexit.register(self.close)
        return self._child

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._child is not None and self._owner == os.getpid():
            self._end()
        atexit.unregister(self.close)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not yet flushed to the dead child
                    stream.close()

    def __enter__(self) -> "GuardedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "memory": self.memory, "_refused": self._refused}

    def __setstate__(self, state: dict[str, Any]) -> None:
        refused = tuple(state["_refused"].values())
        GuardedProcess.__init__(self, seconds=state["seconds"], memory=state["memory"], refused=refused)


def _serve() -> None:
    """Answer calls until the caller is gone; runs in the child."""
    calls, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not end up among the answers
    while True:
        try:
            function, args, seconds, memory, refused = pickle.loads(_receive(calls))
        except EOFError:
            return
        if hasattr(signal, "alarm"):
            # Ends the child even inside of native code, if the caller was killed and can't do it.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(seconds) + 5)
        _limit_memory(memory)
        try:
            answer = _packed("value", function(*args))
        except MemoryError:
            answer = _packed("memory", "")
        except Exception as error:
            kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in refused), "")
            answer = _packed(kind, str(error) if kind else f"{type(error).__name__}: {error}")
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        _send(answers, answer)


def _limit_memory(beyond: int) -> None:
    try:
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + beyond, resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):  # no such limit on this system
        return


def _packed(kind: str, value: Answer) -> bytes:
    """JSON with the shapes of the arrays, then their bytes."""
    arrays: list[np.ndarray] = []

    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            arrays.append(np.ascontiguousarray(item))
            return {"array": len(arrays) - 1, "dtype": item.dtype.str, "shape": list(item.shape)}
        return [plain(part) for part in item] if isinstance(item, (list, tuple)) else item

    head = json.dumps([kind, plain(value)]).encode()
    return b"".join((LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays)))


def _unpacked(message: bytes) -> tuple[str, Any]:
    start = LENGTH.size + LENGTH.unpack_from(message)[0]
    kind, value = json.loads(message[LENGTH.size : start])
    place = start

    def whole(item: Any) -> Any:
        nonlocal place
        if isinstance(item, dict) and item.keys() == {"array", "dtype", "shape"}:
            dtype, count = np.dtype(item["dtype"]), int(np.prod(item["shape"], dtype=np.int64))
            array = np.frombuffer(message, dtype, count, place).reshape(item["shape"])
            place += array.nbytes
            return array
        return [whole(part) for part in item] if isinstance(item, list) else item

    return kind, whole(value)


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    message = stream.read(length)
    if len(message) < length:
        raise EOFError
    return message
