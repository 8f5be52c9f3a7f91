import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest

from medst.cohort.crew import Crew
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.errors import MedstError


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    jobs = (joblib.delayed(square)(number) for number in range(20))
    with Crew(workers).run(jobs, 20) as results:
        assert sorted(results) == [number * number for number in range(20)]


def test_jobs_not_yet_begun_are_dropped_when_the_reader_leaves() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[object]:
        for number in range(10_000):
            begun.append(number)
            yield joblib.delayed(square)(number)

    with Crew(2).run(jobs(), 10_000) as results:  # type: ignore[arg-type]
        assert next(results) in {number * number for number in range(10_000)}
    assert len(begun) < 10_000


@pytest.mark.filterwarnings("ignore")  # the scheduler's own, on its way down
def test_a_dask_cluster_makes_the_same_cohort(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_of: Callable[[Path], dict[str, str]]
) -> None:
    from distributed import LocalCluster

    from medst.cohort import writer

    monkeypatch.setattr(writer, "BLOCK", 8)
    prepare("mimic-cxr", raw, tmp_path / "here", workers=1)
    seen: list[tuple[int, int]] = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        address = f"dask:{cluster.scheduler_address}"
        prepare(
            "mimic-cxr",
            raw,
            tmp_path / "there",
            cluster=address,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    total = len(open_cohort(tmp_path / "there").images)
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        ("dask:tcp://127.0.0.1:9", "No Dask scheduler answers at tcp://127.0.0.1:9"),
        ("dask", "give the scheduler's address as well"),
        ("slurm", "--cluster slurm: give dask:ADDRESS"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, cluster: str, sentence: str
) -> None:
    monkeypatch.setattr("medst.cohort.crew.SECONDS_TO_CONNECT", 0.3)
    with pytest.raises(MedstError, match=sentence), Crew(cluster=cluster).run(iter(()), 5):
        pass


@pytest.mark.parametrize(("cluster", "module", "extra"), [("dask:x", "distributed", "dask"), ("ray", "ray", "ray")])
def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, cluster: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MedstError, match=rf'pip install "medst\[{extra}\]"'), Crew(cluster=cluster).run(iter(()), 5):
        pass
