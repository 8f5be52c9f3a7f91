"""A guarded child process: if it dies, hangs or takes too much memory, only the current call is lost.

The child imports this file before its first answer, so it imports little more than NumPy.
"""

import atexit
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from medst.errors import MedstError

MEMORY = 3 * 2**30
"""Bytes that a call may take, beyond those of the child when it begins."""
SECONDS = 60.0
"""How long a call may take."""
READY = b"ready"
"""The child's first message, which a child that can't start does not send."""
ARRAY = {"array": None}
"""Stands for an array in an answer's JSON."""


class ChildError(Exception):
    """The call ended its child process, took too long or too much memory; the message says which."""


class _DiedError(Exception):
    """The child is gone; the message says how."""


class GuardedProcess:
    """A child process that runs one call at a time, is reused, and is started again after it died.

    The child answers in JSON and arrays, never in pickles, so a hostile file that takes over a decoder can't run code in the
    caller. The functions that it calls come from the caller and are trusted. If a reused child dies in a call, the call is
    repeated once in a new child, because an earlier call may have damaged the old one.

    Args:
        seconds: how long a call may take.
        memory: bytes that a call may take, beyond those of the child when it begins; limited on Linux only.
        refused: types of exceptions that the caller gets as they are raised.

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
        self._connection: Connection | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """Compute `function(*args)` in the child.

        Args:
            function: at the top level of a module, so that it can be pickled; returns an array, plain JSON values, or a list
                of such.
            args: picklable.

        Returns:
            The result of `function`, with lists for tuples; arrays are writable.

        Raises:
            ChildError: the child died, took too long or too much memory, or `function` raised an exception not in `refused`.
            MedstError: `function` raised it, or no child can be started.
            Exception: one of `refused`, as `function` raised it.
        """
        if self._owner != os.getpid():  # after a fork the child and the lock belong to the other process
            GuardedProcess.__init__(self, **self._options())
        call = sorted(self._refused), self.seconds, self.memory, pickle.dumps((function, args))
        with self._lock:
            for last in (False, True):
                reused = self._child is not None
                try:
                    kind, value = self._ask(call)
                except _DiedError as error:
                    if reused and not last:
                        continue
                    raise ChildError(str(error)) from error
                if kind != "memory" or last or not reused:
                    break
                self._end()
        if kind == "value":
            return value
        if kind == "memory":
            raise ChildError("it takes more memory than a file may")
        if kind == "broken":
            raise MedstError(f"A child process can't run {function.__name__} ({value}); check the installation.")
        if kind in self._refused:
            raise self._refused[kind](value)
        raise ChildError(f"its decoder failed ({value})")

    def _ask(self, call: tuple[Any, ...]) -> tuple[str, Any]:
        late = f"it takes longer than {self.seconds:g} seconds"
        try:
            connection = self._connection or self._start()
            connection.send(call)
            if not connection.poll(self.seconds):
                raise ChildError(late)
            # A child that stops in the middle of its answer is ended by its own alarm.
            answer = connection.recv_bytes(self.memory)
            try:
                return unpack(answer)
            except Exception as error:  # `pack` did not write this
                raise EOFError from error
        except (OSError, EOFError):
            code = self._end()
            end_name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            if end_name == "SIGALRM":
                raise ChildError(late) from None
            if end_name == "SIGKILL":
                raise _DiedError("the system ended its decoder, most likely because memory ran out") from None
            raise _DiedError(f"its decoder crashed ({end_name})") from None
        except BaseException:
            # A child in the middle of a call, after Ctrl-C as well, would give its answer to the next one.
            if self._child is not None:
                self._child.kill()
            self._end()
            raise

    def _start(self) -> Connection:
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        ours, theirs = Pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-c", f"from medst.child import serve; serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,  # Ctrl-C is the caller's to handle
            )
        except OSError as error:
            raise MedstError(
                f"A child process can't be started: {error}; free memory, or use fewer workers."
            ) from error
        finally:
            theirs.close()
        self._connection = ours
        atexit.register(self.close)
        with suppress(EOFError, OSError):
            if ours.recv_bytes(len(READY)) == READY:
                return ours
        code = self._end()
        raise MedstError(f"A child process ended before its first call (exit code {code}); check the installation.")

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._owner == os.getpid():
            self._end()

    def _end(self) -> int:
        """End the child; its exit code, negative for a signal, its own if it was already dying."""
        child, connection, self._child, self._connection = self._child, self._connection, None, None
        atexit.unregister(self.close)
        if connection is not None:
            connection.close()
        if child is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)  # an idle or dying child ends by itself, a busy one doesn't
        child.kill()
        return child.wait()

    def __enter__(self) -> "GuardedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(GuardedProcess, **self._options()), ()

    def _options(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "memory": self.memory, "refused": tuple(self._refused.values())}


# ------------------------------------------------------------------------------------------------- inside the child


def serve(descriptor: int) -> None:
    """Answer calls until the caller is gone, or until decoders have leaked half of the memory that a call may take.

    Args:
        descriptor: the child's end of the connection.
    """
    connection = Connection(descriptor)
    connection.send_bytes(READY)
    first = 0
    while True:
        try:
            refused, seconds, memory, call = connection.recv()
        except EOFError:
            return
        if hasattr(signal, "alarm"):
            # Ends the child even inside native code, in case the caller was killed and can't.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(seconds) + 5)
        taken = _limit_memory(memory)
        first = first or taken
        connection.send_bytes(_answer(call, refused))
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
        # The text of an unforeseen error may quote the file, a patient's name included.
        return pack(kind, str(error) if kind else type(error).__name__)


def _limit_memory(beyond: int) -> int:
    """Limit this process to its current memory and `beyond` bytes; returns the former, 0 if the system doesn't tell it."""
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
    """Write an answer as a line of JSON, then its arrays in NumPy's format.

    Args:
        kind: `value`, `memory`, `broken`, the name of an exception, or empty for an unforeseen one.
        value: an array, plain JSON values, or a list of such.
    """
    arrays: list[np.ndarray] = []

    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            arrays.append(item)
            return ARRAY
        return [plain(part) for part in item] if isinstance(item, list | tuple) else item

    message = BytesIO()
    message.write(json.dumps([kind, plain(value)]).encode() + b"\n")
    for array in arrays:
        np.lib.format.write_array(message, np.asarray(array, order="C"), allow_pickle=False)
    return message.getvalue()


def unpack(message: bytes) -> tuple[str, Any]:
    """Read what `pack` wrote, tuples as lists; raises an exception of any type if something else did."""
    stream = BytesIO(message)
    kind, value = json.loads(stream.readline())

    def restore(item: Any) -> Any:
        if item == ARRAY:
            return np.lib.format.read_array(stream, allow_pickle=False)
        return [restore(part) for part in item] if isinstance(item, list) else item

    return kind, restore(value)
