"""Files are complete or absent, one process writes an output, and what is read is checked."""

import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from medst import files
from medst.errors import MedstError


def whole(folder: Path) -> bool:
    return (folder / "two").is_file()


def grow(folder: Path, text: str) -> None:
    """Write a folder as a writer does, after recovering what an earlier one left."""
    files.recover_folder(folder, whole)
    part = files.part_of(folder)
    part.mkdir(exist_ok=True)
    (part / "two").unlink(missing_ok=True)
    for name in ("one", "two"):
        files.write_text(part / name, text)
    files.replace_folder(folder)


def test_replacing_a_folder_survives_a_kill_at_any_point(
    tmp_path: Path, killing: Callable[[int], AbstractContextManager[list[str]]]
) -> None:
    folder = tmp_path / "best"
    for killed_after in range(100):
        grow(folder, "old")
        with killing(killed_after) as asked:
            grow(folder, "new")
        found = files.find_folder(folder, whole)
        assert {(found / name).read_text() for name in ("one", "two")} in ({"old"}, {"new"}), killed_after
        grow(folder, "newest")
        assert {path.name for path in tmp_path.iterdir()} == {"best"}
        assert {(folder / name).read_text() for name in ("one", "two")} == {"newest"}
        if len(asked) <= killed_after:
            break
    assert killed_after > 10


def test_the_working_directory_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files.part_of(Path()).mkdir()
    (files.part_of(Path()) / "one").touch()
    files.replace_folder(Path())
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "one"]


def _hold(path: Path, held: "multiprocessing.synchronize.Event", end: "multiprocessing.synchronize.Event") -> None:
    with files.claim(path):
        held.set()
        end.wait(60)


def test_an_output_is_claimed_by_one_process_and_free_after_its_kill(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "new" / "run", held, end))
    holder.start()
    assert held.wait(60)
    said = rf"run is being written by another process \(process {holder.pid} on .*wait"
    with pytest.raises(MedstError, match=said), files.claim(tmp_path / "new" / "run"):
        pass
    with files.claim(tmp_path / "new" / "other"):
        holder.kill()
        holder.join()
    with files.claim(tmp_path / "new" / "run"):
        pass
    assert not list((tmp_path / "new").iterdir())


def _contend(
    path: Path, start: "multiprocessing.synchronize.Event", times: int, failed: "multiprocessing.Queue"
) -> None:  # type: ignore[type-arg]
    start.wait(60)
    two, refused = 0, 0
    while times:
        try:
            with files.claim(path):
                inside = os.open(path, os.O_CREAT | os.O_EXCL)
                os.close(inside)
                path.unlink()
            times -= 1
        except FileExistsError:
            two, times = two + 1, times - 1
        except MedstError:
            refused += 1
    failed.put((two, refused))


def test_no_two_processes_hold_an_output_and_no_lock_remains(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    start, failed = context.Event(), context.Queue()
    everyone = [context.Process(target=_contend, args=(tmp_path / "out", start, 30, failed)) for _ in range(8)]
    for one in everyone:
        one.start()
    start.set()
    counted = [failed.get(timeout=120) for _ in everyone]
    for one in everyone:
        one.join(60)
    assert [two for two, _ in counted] == [0] * 8
    assert not list(tmp_path.iterdir())


def test_an_output_below_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    said = r"notes is a file, so .*run cannot be written there"
    with pytest.raises(MedstError, match=said), files.claim(tmp_path / "notes" / "run"):
        pass


FORM = {"rows": [{"name": str, "value": (int, float)}], "counts": {str: int}, "note": (str, type(None))}
FITTING = {"rows": [{"name": "a", "value": 1.5}], "counts": {"patients": 3}, "note": None, "more": [1]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [{"name": "a"}]}, r"rows\[0\] has no 'value'"),
        ({"rows": [{"name": "a", "value": "1"}]}, r"rows\[0\]\.value is a str, not an int or float"),
        ({"rows": {}}, "rows is a dict, not a list"),
        ({"counts": {"patients": None}}, "counts.patients is a NoneType, not an int"),
        ({"note": 3}, "note is a int, not a str or NoneType"),
    ],
)
def test_a_json_file_of_another_form_is_refused_by_place(change: dict[str, object], said: str, tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    files.write_json(file, FITTING)
    assert files.read_json(file, "make it again", FORM) == FITTING
    files.write_json(file, FITTING | change)
    with pytest.raises(MedstError, match=rf"some\.json is damaged \({said}\); make it again\.$"):
        files.read_json(file, "make it again", FORM)


def test_a_json_file_damaged_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    file, draw = tmp_path / "some.json", random.Random(4)
    whole_text = json.dumps(FITTING).encode()
    for _ in range(500):
        content = bytearray(whole_text)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        file.write_bytes(content[: draw.choice([len(content), draw.randrange(len(content))])])
        with suppress(MedstError):
            assert isinstance(files.read_json(file, "make it again", FORM), dict)
    for odd in (b"", b"[" * 100_000, b"\xff\xfe", b"1" * 100_000, b"\0" * 100, b"[]", b"null"):
        file.write_bytes(odd)
        with pytest.raises(MedstError, match="is damaged"):
            files.read_json(file, "make it again", FORM)
    for make in (os.mkfifo, os.mkdir):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        make(file)
        with pytest.raises(MedstError, match="not a regular file"):
            files.read_json(file, "make it again", FORM)


def test_a_file_cannot_replace_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), tmp_path):
        with pytest.raises(MedstError, match="is a folder; give the name of a file"):
            files.write_text(path, "text")
