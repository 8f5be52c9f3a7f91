"""Write an output folder so that an interrupted run resumes, to the same bytes whatever the number of workers.

A patient is the unit of work and of randomness. Each has its own generator, and a small record under OUT/.parts is written
when all of the patient's files are in place. A run that is started again draws only patients without a record.
`phantom.json` is written last, so its existence means that the folder is complete.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import cv2

from medst.errors import MedstError
from medst.files import claim, is_full, is_leftover, read_json, write_bytes
from medst.jobs import Workers, cores
from medst_phantom import OTHER_TREES

PARTS, DONE = ".parts", "phantom.json"

_BLOCK = 8  # patients a task: long enough to hide the cost of a task, short enough for a smooth progress bar

Write = Callable[[list[int]], None]
"""Writes the patients of these indices, each with its record; must be picklable."""


def open_tree(out: Path, options: dict) -> dict | None:
    """Prepare `out` for writing; return the counts if it is already complete, else None.

    Raises:
        MedstError: it holds something else, or was begun with other options or by another version.
    """
    if out.exists() and not out.is_dir():
        raise MedstError(f"{out} is a file: name a new or empty folder for the phantom cohort.")
    done, begun = out / DONE, out / PARTS / "options.json"
    mark = done if done.exists() else begun
    if mark.exists():
        found = _read_mark(mark)
        _check_same(out, found["options"], options)
        if mark == done:
            return found["counts"]
        _check_same(out, {"medst version": found["medst_version"]}, {"medst version": version("medst")})
        return None
    known = (PARTS, *OTHER_TREES)
    if out.is_dir() and not all(path.name in known or is_leftover(path) for path in out.iterdir()):
        raise MedstError(f"{out} is not empty and holds no phantom cohort: name a new or empty folder.")
    write_bytes(begun, to_json({"options": options, "medst_version": version("medst")}))
    return None


def _read_mark(mark: Path) -> dict:
    found = read_json(mark, f"empty {mark.parent} and run the command again", {"options": dict})
    return {"medst_version": "", "counts": {}, **found}


def _check_same(out: Path, found: dict, asked: dict) -> None:
    names = [name for name in asked if found.get(name) != asked[name]]
    if names:
        differences = ", ".join(f"{name} {found.get(name)} there and {asked[name]} here" for name in names)
        raise MedstError(
            f"{out} was begun with other options ({differences}): use the same ones, or name another folder."
        )


def write_all(out: Path, total: int, workers: int, progress: Callable[[int, int], None] | None, write: Write) -> None:
    """Write every patient without a record, in `workers` processes; 0 means one per core that this process may use.

    Raises:
        MedstError: a worker died.
    """
    workers = workers or cores()
    missing = [index for index in range(total) if not _is_recorded(record_path(out, index))]
    done = total - len(missing)
    if progress:
        progress(done, total)
    size = min(_BLOCK, max(1, len(missing) // (4 * workers)))
    calls = [(write, missing[start : start + size]) for start in range(0, len(missing), size)]
    with Workers(workers).run(_write_block, calls) as results:
        for count in results:
            done += count
            if progress:
                progress(done, total)


def _is_recorded(record: Path) -> bool:
    """Whether a patient is complete; one whose record is damaged is drawn again."""
    try:
        return bool(read_json(record, ""))
    except MedstError:
        return False


def _write_block(write: Write, block: list[int]) -> int:
    with _one_thread():
        write(block)
    return len(block)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run OpenCV on one thread, because the processes already use every core."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def record_path(out: Path, index: int) -> Path:
    """Path of a patient's record."""
    return out / PARTS / f"{index:07d}.json"


def finish_tree(out: Path, options: dict, counts: dict) -> dict:
    """Remove leftovers of killed workers and write `phantom.json`."""
    for place in out.iterdir():
        if place.is_dir() and place.name not in OTHER_TREES:
            for leftover in place.rglob("*.part"):
                leftover.unlink(missing_ok=True)
    write_bytes(out / DONE, to_json({"options": options, "medst_version": version("medst"), "counts": counts}))
    return counts


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Claim the folder while it is written; remove the records on success.

    Raises:
        MedstError: instead of an OSError, the disk being full for instance.
    """
    try:
        with claim(out):
            yield
            shutil.rmtree(out / PARTS, ignore_errors=True)
    except OSError as error:
        reason = "the disk is full" if is_full(error) else (error.strerror or str(error))
        raise MedstError(
            f"Cannot write the phantom cohort to {out}: {reason}. What was written is kept: resolve this and run the same "
            "command again to resume."
        ) from error


def to_json(content: dict) -> bytes:
    """Encode as JSON, in bytes that depend on nothing but the content."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
