import errno
import struct
import tempfile
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.cohort.test_resize import frame, noise, smooth

from medst.cohort.images import Reading, read_grey, read_guarded, read_square
from medst.cohort.resize import SIDE
from medst.cohort.unreadable import UnreadableImage


def jpeg(image: np.ndarray, **options: bool) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def several_frames() -> bytes:
    buffer = BytesIO()
    frames = [Image.fromarray(noise(30, 30, low)) for low in (1, 2, 3)]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG with a size and without content."""

    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size) + part(b"IDAT", b"") + part(b"IEND", b"")


@pytest.mark.parametrize("turned", [1, 3, 6])
def test_reading_is_what_opencv_reads(tmp_path: Path, turned: int) -> None:
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(noise(40, 60)).save(path, exif=exif)
    np.testing.assert_array_equal(read_grey(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert read_grey(path).shape == ((60, 40) if turned == 6 else (40, 60))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_truncated_anywhere_is_rejected_although_opencv_decodes_it(tmp_path: Path, progressive: bool) -> None:
    whole = jpeg(noise(48, 64), progressive=progressive)
    path = tmp_path / "image.jpg"
    taken = 0
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableImage):
            read_grey(path)
        taken += cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) is not None
    assert taken > 100


@pytest.mark.parametrize("tail", [b"\0" * 100, b"trailing bytes", b"\n"])
def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(noise(20, 20)) + tail)
    assert read_grey(path).shape == (20, 20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"a page that says log in", "not a picture"),
        (jpeg(np.zeros((30, 30), np.uint8)), "all pixels have the same value (0)"),
        (jpeg(noise(1, 1)), "1 x 1 pixels: too small"),
        (jpeg(noise(300, 4)), "4 x 300 pixels: too small"),
        (png_header(12000, 9000), "12000 x 9000 pixels: too large"),
        (png_header(20000, 10000), "too large"),
        (encoded(Image.fromarray(noise(30, 30).astype(np.uint16) * 200), "PNG"), "more than 8 bits per pixel"),
        (
            bytes(cv2.imencode(".png", np.dstack([noise(30, 30).astype(np.uint16) * 200] * 3))[1]),
            "more than 8 bits per pixel",
        ),
        (encoded(Image.fromarray(noise(30, 30).astype(np.float32)), "TIFF"), "more than 8 bits per pixel"),
        (encoded(Image.fromarray(noise(30, 30)).convert("CMYK"), "JPEG"), "CMYK colours instead of grey or RGB"),
        (several_frames(), "3 frames instead of one"),
    ],
)
def test_a_rejected_image_has_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    for decode in ("exact", "fast"):
        with pytest.raises(UnreadableImage) as caught:
            read_square(path, Reading(decode=decode))
        assert str(caught.value).startswith(reason)


def test_a_missing_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in (
        ("none", "no such file"),
        ("file/below", "no such file"),
        (".", "a folder, not a regular file"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_grey(tmp_path / path)


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (errno.EIO, UnreadableImage, r"^can't be read \(made up\)$"),
        (errno.ESTALE, UnreadableImage, r"^can't be read \(made up\)$"),
        (errno.EMFILE, OSError, "made up: '.*image'"),
    ],
)
def test_one_bad_file_costs_one_file_and_a_failing_machine_stops_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "made up")

    (tmp_path / "image").write_bytes(b"content")
    monkeypatch.setattr("medst.files.os.open", fail)
    for read in (read_grey, read_guarded):
        with pytest.raises(error, match=said):
            read(tmp_path / "image")


@given(st.integers(200, 2300), st.integers(200, 2300))
@settings(deadline=None, max_examples=15)
def test_fast_pictures_are_framed_as_exact_ones_and_nearly_the_same(height: int, width: int) -> None:
    path = Path(tempfile.mkdtemp()) / "image.jpg"
    path.write_bytes(jpeg(smooth(height, width)))
    exact, size = read_square(path)
    fast, same_size = read_square(path, Reading(decode="fast"))
    assert size == same_size == (height, width)
    place = frame(height, width)
    outside = np.ones((SIDE, SIDE), dtype=bool)
    outside[place] = False
    assert not fast[outside].any()
    assert np.abs(exact.astype(int) - fast).mean() < 1


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
def test_fast_pictures_are_turned_as_exact_ones(tmp_path: Path, turned: int) -> None:
    path = tmp_path / "image.jpg"
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(smooth(1100, 800)).save(path, exif=exif)
    (exact, size), (fast, same_size) = read_square(path), read_square(path, Reading(decode="fast"))
    assert size == same_size == ((800, 1100) if turned > 4 else (1100, 800))
    assert np.abs(exact.astype(int) - fast).mean() < 1


def test_what_is_not_jpeg_or_small_is_the_same_fast_and_exact(tmp_path: Path) -> None:
    for name, content in (
        ("a.png", bytes(cv2.imencode(".png", smooth(900, 700))[1])),
        ("b.jpg", jpeg(smooth(500, 300))),
    ):
        (tmp_path / name).write_bytes(content)
        exact, _ = read_square(tmp_path / name)
        np.testing.assert_array_equal(read_square(tmp_path / name, Reading(decode="fast"))[0], exact)
