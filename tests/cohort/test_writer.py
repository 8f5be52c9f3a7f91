"""After stops, kills and full disks a cohort is the same, and finished work is not repeated."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from medst.cohort import writer
from medst.cohort.images import AS_RELEASED
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.files import part_of

Bytes = Callable[[Path], dict[str, str]]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BLOCK", 8)


@pytest.fixture
def undisturbed(raw: Path, tmp_path: Path, bytes_of: Bytes) -> dict[str, str]:
    prepare("mimic-cxr", raw, tmp_path / "undisturbed", workers=1)
    return bytes_of(tmp_path / "undisturbed")


class Stopped(Exception):
    pass


def stop_after(images: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= images:
            raise Stopped

    return progress


def seen(calls: list[tuple[int, int]]) -> Callable[[int, int], None]:
    return lambda done, total: calls.append((done, total))


def test_the_number_of_workers_changes_no_byte(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str]
) -> None:
    for workers in (2, 3):
        prepare("mimic-cxr", raw, tmp_path / str(workers), workers=workers)
        assert bytes_of(tmp_path / str(workers)) == undisturbed
    assert set(undisturbed) == {"cohort.json", "images.npy", "images.parquet", "pairs.parquet", "rejected.csv"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_preparation_resumes_where_it_was(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str], workers: int
) -> None:
    cohort = tmp_path / "cohort"
    with pytest.raises(Stopped):
        prepare("mimic-cxr", raw, cohort, workers=workers, progress=stop_after(17))
    assert not cohort.exists()
    with pytest.raises(MedstError, match="not finished"):
        open_cohort(cohort)
    calls: list[tuple[int, int]] = []
    prepare("mimic-cxr", raw, cohort, workers=workers, progress=seen(calls))
    assert calls[0][0] >= 16
    assert calls[-1][0] == calls[-1][1] == len(open_cohort(cohort).images)
    assert bytes_of(cohort) == undisturbed
    assert not part_of(cohort).exists()


PROGRAM = """
import sys, time
from pathlib import Path
from medst.cohort import writer
from medst.cohort.prepare import prepare
writer.BLOCK = 8
def progress(done, total):
    print(done, flush=True)
    time.sleep(0.02)
prepare("mimic-cxr", Path(sys.argv[1]), Path(sys.argv[2]), workers=1, progress=progress)
"""


def test_a_preparation_killed_again_and_again_ends_the_same(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str]
) -> None:
    cohort = tmp_path / "cohort"
    begun = []
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(raw), str(cohort)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            begun.append(int(process.stdout.readline()))
            process.stdout.readline()
            time.sleep(0.005 * len(begun))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not cohort.exists()
    assert begun[0] == 0
    assert begun == sorted(begun)
    assert begun[-1] > 0
    prepare("mimic-cxr", raw, cohort, workers=1)
    assert bytes_of(cohort) == undisturbed


def test_a_stop_between_any_two_changes_of_the_disk_can_be_resumed(
    raw: Path,
    tmp_path: Path,
    bytes_of: Bytes,
    undisturbed: dict[str, str],
    killing: Callable[[int], AbstractContextManager[list[str]]],
) -> None:
    for killed_after in range(200):
        cohort = tmp_path / str(killed_after)
        with killing(killed_after) as asked:
            prepare("mimic-cxr", raw, cohort, workers=1)
        if len(asked) <= killed_after:
            break
        prepare("mimic-cxr", raw, cohort, workers=1)
        assert bytes_of(cohort) == undisturbed, killed_after
        assert not part_of(cohort).exists()
    assert killed_after > 20


@pytest.mark.parametrize("damage", [b"", b"{", b'{"sizes": [], "reasons": [], "sha256": ""}'])
def test_a_block_whose_record_is_damaged_is_read_again(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str], damage: bytes
) -> None:
    cohort = tmp_path / "cohort"
    with pytest.raises(Stopped):
        prepare("mimic-cxr", raw, cohort, workers=1, progress=stop_after(17))
    next(part_of(cohort).glob("blocks-*/*.json")).write_bytes(damage)
    prepare("mimic-cxr", raw, cohort, workers=1)
    assert bytes_of(cohort) == undisturbed


@pytest.mark.parametrize("name", ["header.json.part", "header.json.7.part", "header.json.new"])
def test_leftovers_of_a_first_write_do_not_block(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str], name: str
) -> None:
    for place in (tmp_path / "cohort", part_of(tmp_path / "cohort")):
        place.mkdir()
        (place / name).touch()
    prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    assert bytes_of(tmp_path / "cohort") == undisturbed


def test_blocks_of_other_images_are_not_taken_over(
    tree: Any, tmp_path: Path, bytes_of: Bytes, rejections: Callable[[Path], list[tuple[str, str, str]]]
) -> None:
    tree.add_many(12)
    raw = tree.write()
    report = raw / tree.studies[0].report_path
    text = report.read_bytes()
    report.unlink()
    with pytest.raises(Stopped):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1, progress=stop_after(17))
    report.write_bytes(text)  # every row of images.npy now holds another image than before
    prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    prepare("mimic-cxr", raw, tmp_path / "undisturbed", workers=1)
    assert bytes_of(tmp_path / "cohort") == bytes_of(tmp_path / "undisturbed")
    assert rejections(tmp_path / "cohort") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("target", [(writer, "_write_block"), (Path, "write_bytes")])
def test_a_full_disk_is_one_sentence_and_what_is_written_stays(
    raw: Path,
    tmp_path: Path,
    bytes_of: Bytes,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    target: tuple[Any, str],
    code: int,
) -> None:
    real, calls = getattr(*target), 0

    def full(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(code, os.strerror(code))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(MedstError, match=r"The disk of .*cohort\.part is full; make room and run the same command"):
            prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    begun: list[tuple[int, int]] = []
    prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1, progress=seen(begun))
    assert begun[0][0] > 0
    assert bytes_of(tmp_path / "cohort") == undisturbed


def test_a_failing_disk_is_not_reported_as_full(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer, "_write_block", broken)
    with pytest.raises(OSError, match="Input/output error"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)


def test_a_worker_that_dies_is_one_sentence(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*args: Any) -> None:
        raise TerminatedWorkerError("a worker process managed by the executor was unexpectedly terminated")

    monkeypatch.setattr(writer, "_read_block", dies)
    with pytest.raises(MedstError, match=r"A worker process died.*fewer --workers"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)


@pytest.mark.parametrize("place", ["cohort", "cohort.part"])
def test_a_folder_with_other_files_is_refused_and_unchanged(raw: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir()
    (tmp_path / place / "thesis.tex").touch()
    with pytest.raises(MedstError, match=r"is not empty and not (a|an unfinished) cohort"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    assert [path.name for path in (tmp_path / place).iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_cohort_is_left_alone(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").write_text("notes")
    with pytest.raises(MedstError, match="give a new folder"):
        prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    assert (tmp_path / "cohort").read_text() == "notes"


def test_an_empty_folder_may_become_the_cohort(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    prepare("mimic-cxr", raw, tmp_path / "cohort", workers=1)
    assert open_cohort(tmp_path / "cohort").pairs is not None


def test_a_worker_that_outlived_its_parent_can_t_write_into_what_was_begun_for_other_images(
    raw: Path, tmp_path: Path
) -> None:
    old = writer.Writer(tmp_path / "cohort", {"dataset": "mimic-cxr", "options": {}, "source": {}})
    old.start()
    target, blocks = old._make_room(["one.jpg", "two.jpg"])
    new_target, new_blocks = old._make_room(["two.jpg", "one.jpg"])
    before = new_target.read_bytes()
    with pytest.raises(FileNotFoundError):
        writer._read_block(target, blocks, 0, raw, ["one.jpg", "two.jpg"], AS_RELEASED)
    assert new_target.read_bytes() == before
    assert list(new_blocks.iterdir()) == []
    assert old._make_room(["two.jpg", "one.jpg"]) == (new_target, new_blocks)


WORKERS_PROGRAM = PROGRAM.replace("workers=1", "workers=2").replace("time.sleep(0.02)", "time.sleep(0.05)")


def test_a_preparation_killed_at_20_random_moments_ends_the_same_and_redoes_nothing(
    raw: Path, tmp_path: Path, bytes_of: Bytes, undisturbed: dict[str, str]
) -> None:
    """SIGKILL at any moment, with workers left behind: finished work is not repeated."""
    cohort = tmp_path / "cohort"
    kills, begun, seconds = 0, 0, 3.0
    moments = np.random.default_rng(20)
    for attempt in itertools.count():
        if kills == 20:
            break
        started, log = time.monotonic(), tmp_path / f"log{attempt}"
        # Into a file: a worker left behind would keep a pipe open.
        with (
            log.open("w") as out,
            subprocess.Popen([sys.executable, "-c", WORKERS_PROGRAM, str(raw), str(cohort)], stdout=out) as process,
        ):
            try:
                process.wait(moments.uniform(0.2, 1.1) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
        reported = [int(line) for line in log.read_text().split()]
        if process.returncode == 0:
            seconds = time.monotonic() - started
            assert bytes_of(cohort) == undisturbed
            shutil.rmtree(cohort)
            begun = 0
        elif cohort.exists():  # killed after the end
            assert bytes_of(cohort) == undisturbed
            shutil.rmtree(cohort)
            begun = 0
        elif reported:
            assert reported[0] >= begun, "finished work was done again"
            begun = reported[0]
    prepare("mimic-cxr", raw, cohort, workers=1)
    assert bytes_of(cohort) == undisturbed
