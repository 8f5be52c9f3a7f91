"""Calls in worker processes."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.guarded import (
    die,
    square,
)

from medst.errors import MedstError
from medst.jobs import Workers


def test_only_cores_that_this_process_may_use_are_counted() -> None:
    sources = Path(sys.modules["medst"].__path__[0]).rglob("*.py")
    assert not [path.name for path in sources if "os.cpu_count" in path.read_text()]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    with Workers(workers).run(square, [(number,) for number in range(20)]) as results:
        assert sorted(results) == [number * number for number in range(20)]


def test_calls_not_begun_are_dropped_when_the_block_is_left() -> None:
    begun: list[int] = []

    class Calls(list[tuple[int]]):
        def __iter__(self) -> Iterator[tuple[int]]:
            for number in range(len(self)):
                begun.append(number)
                yield self[number]

    with Workers(2).run(square, Calls((number,) for number in range(10_000))) as results:
        assert next(results) in {number * number for number in range(10_000)}
    assert len(begun) < 10_000


def test_a_killed_worker_is_reported_with_what_to_do() -> None:
    def run() -> None:
        with Workers(2).run(die, [(signal.SIGKILL,)] * 4) as results:
            list(results)

    with pytest.raises(MedstError, match="run the same command again with fewer --workers"):
        run()


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ("dask:tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("dask", "give the scheduler's address as well"),
        ("slurm", "--cluster slurm: give dask:ADDRESS"),
    ],
)
def test_an_unreachable_cluster_is_reported(monkeypatch: pytest.MonkeyPatch, cluster: str, sentence: str) -> None:
    monkeypatch.setattr("medst.jobs.SECONDS_TO_CONNECT", 0.3)
    with pytest.raises(MedstError, match=sentence), Workers(cluster=cluster).run(square, [(1,)] * 5):
        pass


@pytest.mark.parametrize(("cluster", "module", "extra"), [("dask:x", "distributed", "dask"), ("ray", "ray", "ray")])
def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, cluster: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(MedstError, match=rf'pip install "medst\[{extra}\]"'),
        Workers(cluster=cluster).run(square, [(1,)] * 5),
    ):
        pass
