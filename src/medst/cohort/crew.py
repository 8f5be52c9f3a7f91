"""Who does the work: processes of this machine, or a Dask or Ray cluster. One code path, joblib's, at every size."""

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from medst.cohort.store import Progress
from medst.errors import MedstError

Job = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
SECONDS_TO_CONNECT = 10.0
ROUND = 256


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        workers: processes of this machine; 0: one a core.
        cluster: None: this machine. `dask:ADDRESS` of a running scheduler, `ray` or `ray:ADDRESS`: that cluster, whose
            machines must see the same raw folder and the same cohort folder under the same paths.
        progress: called with (images done, all images).
    """

    workers: int = 0
    cluster: str | None = None
    progress: Progress | None = None

    def report(self, done: int, total: int) -> None:
        """Tell how far the work is."""
        if self.progress is not None:
            self.progress(done, total)

    @contextmanager
    def run(self, jobs: Iterable[Job], count: int) -> Iterator[Iterator[Any]]:
        """Results of `count` jobs (made by `joblib.delayed`) as they end; jobs not yet begun are dropped on leaving early.

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
            except BrokenProcessPool as error:
                raise MedstError(
                    "A worker process died, most likely for want of memory; run the same command again with fewer "
                    "--workers, it goes on from there."
                ) from error
            finally:
                with warnings.catch_warnings(), _quiet_executor():
                    warnings.simplefilter("ignore", UserWarning)  # that work was given up is what the reader wanted
                    results.close()

    @contextmanager
    def _backend(self, count: int) -> Iterator[None]:
        if self.cluster is None:
            alone = count <= 1  # starting processes costs more than one job
            jobs = 1 if alone else self.workers or -1
            with joblib.parallel_config("loky", n_jobs=jobs, initializer=_watch, initargs=(os.getpid(),)):
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
    """Ray's backend gives results only when all are there: so many at a time, so that progress is seen."""
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


def _watch(parent: int) -> None:
    """End this worker soon after the process that began it, which a SIGKILL gives no time to end its workers."""

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
        raise MedstError(f"No Dask scheduler answers at {address} ({error}); start one, or mend --cluster.") from error
    with client, joblib.parallel_config("dask", n_jobs=-1):
        yield


@contextmanager
def _ray(address: str) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise MedstError('A Ray cluster needs a package that is missing: pip install "medst[ray]".') from error
    began = not ray.is_initialized()
    try:
        if began:
            ray.init(address=address or None, log_to_driver=False)
    except (OSError, ConnectionError, ValueError) as error:
        raise MedstError(f"No Ray cluster answers at '{address}' ({error}); start one, or mend --cluster.") from error
    register_ray()
    try:
        with joblib.parallel_config("ray", n_jobs=-1):
            yield
    finally:
        if began:
            ray.shutdown()
