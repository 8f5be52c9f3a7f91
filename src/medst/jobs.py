"""Pools of worker processes, on this machine or on a cluster. If a worker dies, the job stops."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

import joblib

from medst.errors import MedstError

SECONDS_TO_CONNECT = 10.0
ROUND = 256
"""Jobs that a Ray cluster is given at a time."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Workers:
    """A pool of worker processes, through joblib at every size.

    Attributes:
        workers: processes of this machine; 0: one per core that this process may use.
        cluster: None: this machine. `dask:ADDRESS` of a running scheduler, `ray` or `ray:ADDRESS`: that cluster, whose
            machines must see the raw folder and the cohort folder under the same paths.
        progress: called with (jobs or images done, all of them).
    """

    workers: int = 0
    cluster: str | None = None
    progress: Callable[[int, int], None] | None = None

    def report(self, done: int, total: int) -> None:
        """Report progress."""
        if self.progress is not None:
            self.progress(done, total)

    @contextmanager
    def run(self, function: Callable[..., R], calls: Sequence[tuple[Any, ...]]) -> Iterator[Iterator[R]]:
        """Call a function with each tuple of arguments; yield the results as they are ready.

        Leaving the block early drops the calls that have not begun.

        Raises:
            MedstError: the cluster can't be reached or its package is missing, or a worker process died.
        """
        jobs = (joblib.delayed(function)(*call) for call in calls)
        with self._backend(len(calls)):
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
                    warnings.simplefilter("ignore", UserWarning)  # giving up the rest was intended
                    results.close()

    def _backend(self, count: int) -> AbstractContextManager[Any]:
        kind, _, address = (self.cluster or "").partition(":")
        if kind == "dask":
            return _dask(address)
        if kind == "ray":
            return _ray(address)
        if kind:
            raise MedstError(f"--cluster {self.cluster}: give dask:ADDRESS of a running scheduler, ray or ray:ADDRESS.")
        processes = 1 if count <= 1 else self.workers or -1  # starting processes costs more than one job
        return joblib.parallel_config("loky", n_jobs=processes, initializer=end_with, initargs=(os.getpid(),))


def _in_rounds(jobs: Iterator[Any]) -> Iterator[Any]:
    """Run jobs in rounds: Ray's backend returns results only when all are ready, so there would be no progress."""
    while some := list(islice(jobs, ROUND)):
        yield from joblib.Parallel()(some)


def run_until_done(
    function: Callable[[T], R], items: Collection[T], processes: int
) -> Generator[tuple[T, R], None, None]:
    """Call a function with each item in new processes; yield item and result as they are ready.

    Unlike joblib, which kills its workers at Ctrl-C, this waits for the calls that have begun. Close the generator for that.

    Raises:
        MedstError: a process was killed.
    """
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with, (os.getpid(),)) as pool:
        running = {pool.submit(function, item): item for item in items}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise MedstError(
                "A process was killed, most likely because memory ran out; the same command resumes, with fewer --jobs."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """Number of cores that this process may use."""
    return int(joblib.cpu_count())


@contextmanager
def _quiet_executor() -> Iterator[None]:
    """Suppress the traceback of loky's manager thread, which may fail on a job that is given up at that very moment."""
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
    """End this worker soon after the process that started it, even if that was killed and could not end its workers."""

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
