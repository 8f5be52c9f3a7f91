import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from tests.cohort.dicoms import bytes_of, dataset_of, dicom, ramp

from medst.cohort.dicom import read_dicom, read_element
from medst.cohort.images import Reading, UnreadableImage, read_grey, read_square
from medst.errors import MedstError


def test_reading_is_pixel_exact_with_the_recorded_one(recorded: Path) -> None:
    expected = cv2.imread(str(recorded / "mono1_12_256.png"), cv2.IMREAD_GRAYSCALE)
    for decode in ("exact", "fast"):
        square, size = read_square(recorded / "mono1_12.dcm", Reading(decode=decode))
        np.testing.assert_array_equal(square, expected)
        assert size == (300, 180)


@given(st.sampled_from([8, 10, 12, 16]), st.booleans(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_by_maximum_the_largest_value_is_white_whatever_the_file_says_of_windows(
    bits: int, dark: bool, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 2**bits, (20, 30)).astype(np.uint16)
    kind = "MONOCHROME1" if dark else "MONOCHROME2"
    found = read_dicom(
        dicom(pixels, bits, PhotometricInterpretation=kind, WindowCenter=5, WindowWidth=3, RescaleSlope=2)
    )
    expected = np.rint(pixels * (255.0 / pixels.max())).astype(int)
    assert np.abs(found.astype(int) - (255 - expected if dark else expected)).max() <= 1
    assert found.dtype == np.uint8
    assert (found.min() if dark else found.max()) == (0 if dark else 255)


def test_the_window_is_the_one_of_the_standard() -> None:
    pixels = ramp()
    shown = read_dicom(dicom(pixels, WindowCenter=[2048, 9], WindowWidth=[1024, 9]), "window")
    low, high = 2048 - 0.5 - 1023 / 2, 2048 - 0.5 + 1023 / 2
    expected = np.clip((pixels - low) / (high - low), 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.51
    exact = read_dicom(dicom(pixels, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="LINEAR_EXACT"), "window")
    assert np.abs(exact - np.clip((pixels - 2048.0) / 1024 + 0.5, 0, 1) * 255).max() <= 0.51
    sigmoid = read_dicom(dicom(pixels, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID"), "window")
    assert np.abs(sigmoid - 255 / (1 + np.exp(-4 * (pixels - 2048.0) / 1024))).max() <= 0.51


def test_the_window_is_of_rescaled_values_and_monochrome1_is_inverted_after_it() -> None:
    pixels = ramp()
    plain = read_dicom(dicom(pixels, WindowCenter=2048, WindowWidth=1024), "window")
    scaled = dicom(pixels, WindowCenter=2048 * 2 - 1000, WindowWidth=2047, RescaleSlope=2, RescaleIntercept=-1000)
    assert np.abs(read_dicom(scaled, "window").astype(int) - plain).max() <= 1
    dark = dicom(pixels, WindowCenter=2048, WindowWidth=1024, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_dicom(dark, "window"), 255 - plain)


def test_without_a_window_it_is_from_the_smallest_to_the_largest_value() -> None:
    pixels = (ramp() // 4 + 700).astype(np.uint16)
    shown = read_dicom(dicom(pixels), "window")
    assert (shown.min(), shown.max()) == (0, 255)


def test_values_with_a_sign_are_read() -> None:
    pixels = (ramp().astype(np.int16) - 2048).astype(np.int16)
    assert read_dicom(dicom(pixels, 12), "window").max() == 255
    assert read_dicom(dicom(pixels, 12)).max() == 255


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_lossless_compressions_give_the_very_pixels(syntax: Any) -> None:
    dataset = dataset_of(ramp())
    expected = read_dicom(bytes_of(dataset))
    dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_dicom(bytes_of(dataset)), expected)


def lossless_jpeg(pixels: np.ndarray, bits: int) -> bytes:
    """The file re-written by GDCM with JPEG Lossless, Selection Value 1."""
    import gdcm

    source = dicom(pixels, bits)
    reader = gdcm.ImageReader()
    reader.SetFileName(_kept(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    path = _kept(b"")
    writer.SetFileName(path)
    assert writer.Write()
    return Path(path).read_bytes()


def _kept(data: bytes) -> str:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".dcm", delete=False) as file:
        file.write(data)
    return file.name


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_gives_the_very_pixels(bits: int) -> None:
    pixels = ramp(bits)
    np.testing.assert_array_equal(read_dicom(lossless_jpeg(pixels, bits)), read_dicom(dicom(pixels, bits)))


def test_baseline_jpeg_is_read() -> None:
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 5), dtype=np.uint8), (64, 64))
    dataset = dataset_of(pixels, 8)
    jpeg = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
    dataset.PixelData = pydicom.encaps.encapsulate([jpeg])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    found = read_dicom(bytes_of(dataset)).astype(int)
    assert np.abs(found - np.rint(pixels * (255.0 / pixels.max()))).max() <= 8


def _with_syntax(uid: str) -> bytes:
    """Rubbish of a compression; pydicom writes no unknown one, so that its name is put in after."""
    dataset = dataset_of(ramp())
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\1" * 50])
    dataset["PixelData"].is_undefined_length = True
    known = pydicom.uid.UID(uid) in pydicom.uid.AllTransferSyntaxes
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid if known else JPEGLSLossless)
    return bytes_of(dataset).replace(JPEGLSLossless.encode(), uid.encode()) if not known else bytes_of(dataset)


WHOLE = dicom(ramp())
BAD: dict[str, tuple[bytes, str]] = {
    "pixels missing": (dicom(ramp(), PixelData=None), "DICOM without pixels"),
    "frames": (dicom(np.stack([ramp()] * 3), NumberOfFrames=3), "DICOM of 3 frames; a picture has one"),
    "colours": (
        dicom(ramp(), PhotometricInterpretation="RGB"),
        "photometric interpretation RGB, not MONOCHROME1 or MONOCHROME2",
    ),
    "samples": (
        dicom(np.zeros((20, 60), np.uint8), 8, SamplesPerPixel=3),
        "photometric interpretation MONOCHROME2, not",
    ),
    "photometric": (dicom(ramp(), PhotometricInterpretation=None), "photometric interpretation none"),
    "tiny": (dicom(np.ones((1, 1), np.uint16)), "1 x 1 pixels: too small"),
    "bomb": (dicom(ramp(), Rows=20000, Columns=10000), "10000 x 20000 pixels: too large"),
    "black": (dicom(np.zeros((30, 30), np.uint16)), "no pixel is above 0"),
    "even": (dicom(np.full((30, 30), 7, np.uint16)), "all pixels are alike (255)"),
    "truncated": (WHOLE[: len(WHOLE) // 2], "its pixels can't be decoded"),
    "head only": (WHOLE[:140], "DICOM"),
    "unknown": (_with_syntax("1.2.840.10008.1.2.4.99"), "compression 1.2.840.10008.1.2.4.99 is unknown"),
    "private": (_with_syntax("1.3.6.1.4.1.9999.9.9.9"), "compression 1.3.6.1.4.1.9999.9.9.9 is unknown"),
    "video": (_with_syntax("1.2.840.10008.1.2.4.100"), "compression MPEG2"),
    "rubbish": (_with_syntax(str(JPEGLSLossless)), "its pixels can't be decoded"),
    "not DICOM": (b"\x89PNG" + b"\0" * 300, "not a DICOM file"),
}


@pytest.mark.parametrize("name", list(BAD))
@pytest.mark.parametrize("intensity", ["maximum", "window"])
def test_what_is_no_use_says_why_and_names_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, intensity: Any
) -> None:
    data, reason = BAD[name]
    if name == "black" and intensity == "window":
        reason = "all pixels are alike (0)"
    if name == "even" and intensity == "window":
        reason = "all pixels are alike (0)"
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_grey(path, Reading(intensity=intensity))
    assert reason in str(caught.value)
    said = str(caught.value) + "".join(capfd.readouterr())
    assert "SECRET" not in said
    assert "\n" not in str(caught.value)


def test_a_file_without_the_ending_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(WHOLE)
    np.testing.assert_array_equal(read_grey(path), read_dicom(WHOLE))


def test_a_missing_package_is_one_sentence_and_no_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    path = tmp_path / "x.dcm"
    path.write_bytes(WHOLE)
    for call in (lambda: read_grey(path), lambda: read_element(path, "ViewPosition")):
        with pytest.raises(MedstError, match=re.escape('pip install "medst[dicom]"')) as caught:
            call()
        assert not isinstance(caught.value, UnreadableImage)


def test_one_element_is_read_and_none_of_what_is_no_dicom(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom(ramp(), ViewPosition="PA"))
    assert read_element(path, "ViewPosition") == "PA"
    assert read_element(path, "BodyPartExamined") == ""
    path.write_bytes(b"nothing")
    assert read_element(path, "ViewPosition") == ""
