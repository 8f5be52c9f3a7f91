"""Work in other processes: a pool of workers, here or on a cluster, and a guarded child for calls that may die.

A worker that dies ends the work; a guarded child that dies, hangs or eats the memory costs one call.
"""

import atexit
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from medst.child import READY, receive, send, unpack
from medst.errors import MedstError

MEMORY = 3 * 2**30
"""Bytes that a call may take beyond what the child has when it begins."""
SECONDS = 60.0
"""How long a call may take."""
SECONDS_TO_CONNECT = 10.0
ROUND = 256
Job = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ChildError(Exception):
    """The call ended its child process, took too long or too much memory; the message says which."""


class _DiedError(Exception):
    """The child is gone; the message says how."""


class GuardedProcess:
    """A child process that runs one call at a time, is reused, and is started again after it died.

    The child answers in JSON and raw arrays, never in pickles: what a decoder makes of a hostile file can't become code
    in the caller. The functions that it calls come from the caller and are trusted. A call on which a reused child dies
    is repeated once in a new one, because an earlier call may have damaged the old one.

    Args:
        seconds: how long a call may take.
        memory: bytes that a call may take beyond what the child has when the call begins; limited on Linux only.
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
            function: of a module, so that it can be pickled; returns an array, plain JSON values, or a list of such.
            args: picklable.

        Returns:
            What `function` returned, tuples as lists; arrays can be written to.

        Raises:
            ChildError: the child died, took too long or too much memory, or `function` raised what isn't `refused`.
            MedstError: `function` raised it, or no child can be started.
            Exception: one of `refused`, as `function` raised it.
        """
        if self._owner != os.getpid():  # after a fork the child and the lock belong to the other process
            self.__setstate__(self.__getstate__())
        call = pickle.dumps((sorted(self._refused), self.seconds, self.memory, pickle.dumps((function, args))))
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

    def _ask(self, call: bytes) -> tuple[str, Any]:
        late = f"it takes longer than {self.seconds:g} seconds"
        try:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            send(child.stdin, call)
            answer = select.poll()
            answer.register(child.stdout, select.POLLIN)
            if not answer.poll(self.seconds * 1000):
                raise ChildError(late)
            # A child that stops in the middle of its answer is ended by its own alarm.
            return unpack(receive(child.stdout, most=self.memory))
        except (OSError, EOFError, ValueError, TypeError, KeyError, struct.error):
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

    def _start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        try:
            child = subprocess.Popen(
                [sys.executable, "-c", "from medst.child import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C is the caller's to handle
            )
        except OSError as error:
            raise MedstError(
                f"A child process can't be started: {error}; free memory, or use fewer workers."
            ) from error
        self._child = child
        atexit.register(self.close)
        assert child.stdout is not None
        try:
            if receive(child.stdout, most=len(READY)) == READY:
                return child
        except EOFError:
            pass
        code = self._end()
        raise MedstError(f"A child process ended before its first call (exit code {code}); check the installation.")

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self._owner == os.getpid():
            self._end()

    def _end(self) -> int:
        """End the child; its exit code, negative for a signal, its own if it was already dying."""
        child, self._child = self._child, None
        atexit.unregister(self.close)
        if child is None:
            return 0
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):  # what was not yet flushed to the dead child
                    stream.close()
        with suppress(subprocess.TimeoutExpired):
            child.wait(1)  # an idle or dying child ends by itself, a busy one doesn't
        child.kill()
        return child.wait()

    def __enter__(self) -> "GuardedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "memory": self.memory, "_refused": self._refused}

    def __setstate__(self, state: dict[str, Any]) -> None:
        refused = tuple(state["_refused"].values())
        GuardedProcess.__init__(self, seconds=state["seconds"], memory=state["memory"], refused=refused)


@dataclass(frozen=True)
class Workers:
    """A pool of processes that share out jobs, through joblib at every size.

    Attributes:
        workers: processes of this machine; 0: one per core that this process may use.
        cluster: None: this machine. `dask:ADDRESS` of a running scheduler, `ray` or `ray:ADDRESS`: that cluster, whose
            machines must see the same raw folder and the same cohort folder under the same paths.
        progress: called with (jobs or images done, all of them).
    """

    workers: int = 0
    cluster: str | None = None
    progress: Callable[[int, int], None] | None = None

    def report(self, done: int, total: int) -> None:
        """Tell how far the work is."""
        if self.progress is not None:
            self.progress(done, total)

    @contextmanager
    def run(self, jobs: Iterable[Job], count: int) -> Iterator[Iterator[Any]]:
        """Results of `count` jobs (made by `joblib.delayed`) as they end; leaving early drops jobs that have not begun.

        Raises:
            MedstError: the cluster can't be reached or its package is missing, or a worker process died.
        """
        with ExitStack() as stack:
            stack.enter_context(self._backend(count))
            if (self.cluster or "").startswith("ray"):
                yield _in_rounds(jobs)
                return
            results = joblib.Parallel(return_as="generator_unordered")(jobs)
            try:
                yield results
            except (BrokenProcessPool, MemoryError) as error:
                raise MedstError(
                    "A worker process died, most likely because memory ran out; run the same command again with fewer "
                    "--workers, and it resumes."
                ) from error
            finally:
                with warnings.catch_warnings(), _quiet_executor():
                    warnings.simplefilter("ignore", UserWarning)  # the reader wanted to give up the work
                    results.close()

    @contextmanager
    def _backend(self, count: int) -> Iterator[None]:
        if self.cluster is None:
            alone = count <= 1  # starting processes costs more than one job
            jobs = 1 if alone else self.workers or -1
            with joblib.parallel_config("loky", n_jobs=jobs, initializer=end_with, initargs=(os.getpid(),)):
                yield
            return
        kind, _, address = self.cluster.partition(":")
        if kind == "dask":
            with _dask(address):
                yield
        elif kind == "ray":
            with _ray(address):
                yield
        else:
            raise MedstError(f"--cluster {self.cluster}: give dask:ADDRESS of a running scheduler, ray or ray:ADDRESS.")


def _in_rounds(jobs: Iterable[Job]) -> Iterator[Any]:
    """Ray's backend gives results only when all are there: run it in rounds, so that progress is seen."""
    waiting = iter(jobs)
    while some := list(islice(waiting, ROUND)):
        yield from joblib.Parallel()(some)


@contextmanager
def _quiet_executor() -> Iterator[None]:
    """No traceback of loky's manager thread, which may trip over a job that was given up at that very moment."""
    usual = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        name = raised.thread.name if raised.thread else ""
        if not (raised.exc_type is KeyError and name.startswith("ExecutorManagerThread")):
            usual(raised)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


def end_with(parent: int) -> None:
    """End this worker soon after the process that started it, which a SIGKILL gives no time to end its workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _dask(address: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MedstError('A Dask cluster needs a package that is missing: pip install "medst[dask]".') from error
    if not address:
        raise MedstError("--cluster dask: give the scheduler's address as well, for instance dask:tcp://10.0.0.1:8786.")
    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, TimeoutError, ValueError) as error:
        raise MedstError(
            f"No Dask scheduler answers at {address} ({error}); start one, or correct --cluster."
        ) from error
    with client, joblib.parallel_config("dask", n_jobs=-1):
        yield


@contextmanager
def _ray(address: str) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise MedstError('A Ray cluster needs a package that is missing: pip install "medst[ray]".') from error
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address or None, log_to_driver=False)
    except (OSError, ConnectionError, ValueError) as error:
        raise MedstError(
            f"No Ray cluster answers at '{address}' ({error}); start one, or correct --cluster."
        ) from error
    register_ray()
    try:
        with joblib.parallel_config("ray", n_jobs=-1):
            yield
    finally:
        if started:
            ray.shutdown()
