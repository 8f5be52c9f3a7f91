"""Everything that can be wrong with an image, in one table: it is rejected by name, counted and reported at the end."""

import os
import socket
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests import guarded
from tests.cohort.conftest import jpeg, picture
from tests.cohort.dicoms import dicom, ramp
from tests.cohort.test_decode_jpeg import png_header
from tests.cohort.test_dicom import BAD

from medst.cli import main
from medst.cohort import images
from medst.cohort.prepare import prepare
from medst.cohort.store import open_cohort
from medst.cohort.unreadable import UnreadableImage
from medst.errors import MedstError
from medst.use import read_picture

WHOLE = jpeg(picture(1))


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


PICTURES = {
    "truncated.jpg": (WHOLE[: len(WHOLE) // 2], "truncated or damaged"),
    "empty.jpg": (b"", "the file is empty"),
    "deep.png": (bytes(cv2.imencode(".png", picture(2).astype(np.uint16) * 200)[1]), "more than 8 bits per pixel"),
    "cmyk.jpg": (encoded(Image.fromarray(picture(3)).convert("CMYK"), "JPEG"), "CMYK colours instead of grey or RGB"),
    "pixel.png": (bytes(cv2.imencode(".png", np.ones((1, 1), np.uint8))[1]), "1 x 1 pixels: too small"),
    "black.jpg": (jpeg(np.zeros((40, 40), np.uint8)), "all pixels have the same value (0)"),
    "bomb.png": (png_header(20_000, 10_000), "too large"),
    "page.jpg": (b"<html>log in</html>", "not a picture"),
    "zeros.png": (b"\x89PNG\r\n\x1a\n" + zlib.compress(b""), "not a picture"),
}


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_bad_images_are_rejected_by_name_and_the_others_are_prepared(
    tmp_path: Path, decode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = PICTURES | {f"{name.replace(' ', '-')}.dcm": entry for name, entry in BAD.items()}
    good = [f"good{number}.jpg" for number in range(4)]
    for number, name in enumerate(good):
        (tmp_path / name).write_bytes(jpeg(picture(number)))
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    names = [*good, *bad, "missing.jpg"]
    table = pl.DataFrame(
        {
            "patient": [f"p{i}" for i in range(len(names))],
            "study": [f"s{i}" for i in range(len(names))],
            "time": "2100-01-01",
            "frontal": names,
            "report": "No change is seen.",
        }
    )
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbf" + table.write_csv().encode())
    arguments = ["prepare", "table", str(tmp_path / "table.csv"), str(tmp_path / "cohort"), "--decode", decode]
    with pytest.raises(SystemExit, match="1"):
        main(arguments)
    assert f"{len(bad) + 1} of {len(names)} images were left out (see rejected.csv)" in capsys.readouterr().err
    main([*arguments, "--max-rejected", "1"])
    said = capsys.readouterr().out
    assert f"{len(bad) + 1} rejected images" in said
    assert "rejected.csv" in said
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.pairs is not None
    assert cohort.pairs["patient_id"].to_list() == ["p0", "p1", "p2", "p3"]
    assert cohort.meta["counts"]["rejected_images"] == len(bad) + 1
    rejected = {row[1]: row[3] for row in pl.read_csv(tmp_path / "cohort" / "rejected.csv").iter_rows()}
    assert set(rejected) == {*bad, "missing.jpg"}
    for name, (_, reason) in bad.items():
        assert reason in rejected[name], name
    assert "SECRET" not in (tmp_path / "cohort" / "rejected.csv").read_text()


def special(folder: Path) -> dict[str, str]:
    """Things other than a file in place of an image, and the reason for each."""
    target = folder / "fifo.jpg"
    os.mkfifo(target)
    for name, path in (
        ("zeros.dcm", "/dev/zero"),
        ("terminal.png", "/dev/tty"),
        ("to-fifo.jpg", target),
        ("loop.jpg", folder / "pool.jpg"),
        ("pool.jpg", folder / "loop.jpg"),
        ("nowhere.jpg", folder / "gone"),
    ):
        (folder / name).symlink_to(path)
    (folder / "folder.jpg").mkdir()
    (folder / "locked.jpg").write_bytes(WHOLE)
    (folder / "locked.jpg").chmod(0)
    with (folder / "vast.dcm").open("wb") as file:
        file.truncate(2**40)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "socket.jpg"))
    found = {
        "fifo.jpg": "not a regular file",
        "zeros.dcm": "not a regular file",
        "terminal.png": "not a regular file",
        "to-fifo.jpg": "not a regular file",
        "socket.jpg": "not a regular file",
        "/dev/zero": "not a regular file",
        "/dev/null": "not a regular file",
        "/proc/self/pagemap": "",
        "loop.jpg": "can't be read (too many levels of symbolic links)",
        "pool.jpg": "can't be read (too many levels of symbolic links)",
        "nowhere.jpg": "no such file",
        "folder.jpg": "a folder, not a regular file",
        "locked.jpg": "can't be read (permission denied)",
        "vast.dcm": "larger than the 537 MB that are read",
        "nul\0.jpg": "impossible as a file name",
        f"{'n' * 300}.jpg": "can't be read (file name too long)",
        "a/" * 5000: "can't be read (file name too long)",
        "folder.jpg/x.jpg": "no such file",
        "fifo.jpg/x.jpg": "no such file",
    }
    if os.access(folder / "locked.jpg", os.R_OK):  # the superuser may read everything
        del found["locked.jpg"]
    if not Path("/proc/self/pagemap").exists():
        del found["/proc/self/pagemap"]
    return found


def prepared(folder: Path, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Patients that `medst prepare table` keeps with these images, and the reason for each rejected image."""
    numbers = range(len(names))
    table = pl.DataFrame(
        {"patient": numbers, "study": numbers, "time": "2100-01-01", "frontal": names, "report": "No change is seen."}
    )
    table.write_parquet(folder / "table.parquet")
    prepare("table", folder / "table.parquet", folder / "cohort", workers=1, max_rejected=1)
    cohort = open_cohort(folder / "cohort")
    assert cohort.pairs is not None
    rejected = pl.read_csv(folder / "cohort" / "rejected.csv", infer_schema=False)
    return cohort.pairs["patient_id"].to_list(), dict(rejected.select("id", "reason").iter_rows())


def test_things_that_are_not_regular_files_are_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(WHOLE)
    expected = special(tmp_path)
    kept, rejected = prepared(tmp_path, ["good.jpg", *expected])
    assert kept == ["0"]
    assert set(rejected) == set(expected)
    for name, reason in expected.items():
        assert reason in rejected[name], name
        with pytest.raises(MedstError) as caught:
            read_picture(tmp_path / name)
        assert reason in str(caught.value), name


def test_a_decoder_that_dies_hangs_or_uses_all_memory_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "read_square", guarded.decode_badly)
    names = ["good-1.dcm", "abort.dcm", "crash.tif", "good-2.dcm", "hang.dcm", "greedy.dcm", "new.dcm", "good-3.dcm"]
    for name in names:
        (tmp_path / name).write_bytes(dicom(ramp()))
    kept, rejected = prepared(tmp_path, names)
    assert [names[int(patient)] for patient in kept] == ["good-1.dcm", "good-2.dcm", "good-3.dcm"]
    assert rejected == {
        "abort.dcm": "its decoder crashed (SIGABRT)",
        "crash.tif": "its decoder crashed (SIGSEGV)",
        "hang.dcm": "it takes longer than 60 seconds",
        "greedy.dcm": "it takes more memory than a file may",
        "new.dcm": "its decoder failed (Unforeseen)",
    }


def test_a_jpeg_of_many_scans_is_not_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "read_square", guarded.decode_badly)
    whole = encoded(Image.fromarray(picture(1)), "JPEG")
    start = whole.index(b"\xff\xda")
    (tmp_path / "abort.jpg").write_bytes(whole)
    assert images.read_guarded(tmp_path / "abort.jpg")[1] == picture(1).shape
    (tmp_path / "abort.jpg").write_bytes(whole[:start] + whole[start:-2] * 30 + whole[-2:])
    with pytest.raises(UnreadableImage, match="its decoder crashed"):
        images.read_guarded(tmp_path / "abort.jpg")
