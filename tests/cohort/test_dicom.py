import logging
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from tests.cohort.dicoms import DEADLY, by_gdcm, bytes_of, dataset_of, dicom, fuzzed, ramp

from medst.cohort.dicom import BAND, read_dicom, read_element
from medst.cohort.images import Reading, guarded, read_grey, read_guarded, read_square
from medst.cohort.unreadable import UnreadableImage
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


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_gives_the_very_pixels(bits: int) -> None:
    pixels = ramp(bits)
    whole = dicom(pixels, bits)
    np.testing.assert_array_equal(read_dicom(by_gdcm(whole, "JPEGLosslessProcess14_1")), read_dicom(whole))


def test_a_file_on_which_gdcm_ends_the_process_costs_one_file(tmp_path: Path) -> None:
    whole = by_gdcm(WHOLE, "JPEGLSLossless")
    good, bad = tmp_path / "good.dcm", tmp_path / "bad.dcm"
    good.write_bytes(whole)
    for seed in DEADLY[:1]:
        bad.write_bytes(fuzzed(whole, seed))
        with pytest.raises(UnreadableImage, match=r"its decoder crashed \(SIG|its pixels can't be decoded"):
            read_guarded(bad)
        square, size = read_guarded(good)
        np.testing.assert_array_equal(square, read_square(good)[0])
        assert size == (64, 64)


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
    """Invalid data with a compression; pydicom can't write an unknown one, so its name is replaced afterwards."""
    dataset = dataset_of(ramp())
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\1" * 50])
    dataset["PixelData"].is_undefined_length = True
    known = pydicom.uid.UID(uid) in pydicom.uid.AllTransferSyntaxes
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid if known else JPEGLSLossless)
    return bytes_of(dataset).replace(JPEGLSLossless.encode(), uid.encode()) if not known else bytes_of(dataset)


WHOLE = dicom(ramp())
BAD: dict[str, tuple[bytes, str]] = {
    "pixels missing": (dicom(ramp(), PixelData=None), "DICOM without pixels"),
    "frames": (dicom(np.stack([ramp()] * 3), NumberOfFrames=3), "DICOM with 3 frames instead of one"),
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
    "even": (dicom(np.full((30, 30), 7, np.uint16)), "all pixels have the same value (255)"),
    "truncated": (WHOLE[: len(WHOLE) // 2], "its pixels can't be decoded"),
    "head only": (WHOLE[:140], "DICOM"),
    "unknown": (
        _with_syntax("1.2.840.10008.1.2.4.99"),
        "compression 1.2.840.10008.1.2.4.99 is unknown or not supported",
    ),
    "private": (
        _with_syntax("1.3.6.1.4.1.9999.9.9.9"),
        "compression 1.3.6.1.4.1.9999.9.9.9 is unknown or not supported",
    ),
    "video": (_with_syntax("1.2.840.10008.1.2.4.100"), "compression MPEG2"),
    "rubbish": (_with_syntax(str(JPEGLSLossless)), "its pixels can't be decoded"),
    "bits stored": (dicom(ramp(), BitsStored=17), "its pixels can't be decoded"),
    "bits allocated": (dicom(ramp(), BitsAllocated=24), "its pixels can't be decoded"),
    "rows": (dicom(ramp(), Rows=65_535, Columns=65_535), "65535 x 65535 pixels: too large"),
    "rows missing": (dicom(ramp(), Rows=None), "64 x 0 pixels: too small"),
    "several rows": (dicom(ramp(), Rows=[64, 64]), "its pixels can't be decoded"),
    "more rows": (dicom(ramp(), Rows=128), "its pixels can't be decoded"),
    "not DICOM": (b"\x89PNG" + b"\0" * 300, "not a DICOM file"),
}


@pytest.mark.parametrize("name", list(BAD))
@pytest.mark.parametrize("intensity", ["maximum", "window"])
def test_a_rejected_dicom_file_has_a_reason_that_names_no_patient(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, intensity: Any
) -> None:
    data, reason = BAD[name]
    if name == "black" and intensity == "window":
        reason = "all pixels have the same value (0)"
    if name == "even" and intensity == "window":
        reason = "all pixels have the same value (0)"
    path = tmp_path / "x.dcm"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        read_grey(path, Reading(intensity=intensity))
    assert reason in str(caught.value)
    said = str(caught.value) + "".join(capfd.readouterr())
    assert "SECRET" not in said
    assert "\n" not in str(caught.value)


def table_of(kind: str, descriptor: list[int], data: bytes | None) -> bytes:
    """A file with this lookup table."""
    table = pydicom.Dataset()
    table.LUTDescriptor = descriptor
    if data is not None:
        table.LUTData = data
    if kind == "ModalityLUTSequence":
        table.ModalityLUTType = "US"
    return dicom(ramp(), **{kind: [table]})


LINE = np.arange(4096, dtype=np.uint16)


@pytest.mark.parametrize(("kind", "bits", "most"), [("VOILUTSequence", 12, 4095), ("ModalityLUTSequence", 16, 4094)])
def test_a_lookup_table_is_used(kind: str, bits: int, most: int) -> None:
    shown = read_dicom(table_of(kind, [4096, 0, bits], LINE[::-1].tobytes()), "window")
    assert np.abs(shown - (4095.0 - ramp()) / most * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        *(
            (content, "its window or lookup table is broken")
            for kind in ("VOILUTSequence", "ModalityLUTSequence")
            for content in (
                table_of(kind, [4096, 0, 12], None),
                table_of(kind, [4096, 0, 12], b"\1\0"),
                dicom(ramp(), **{kind: [pydicom.Dataset()]}),
            )
        ),
        (table_of("VOILUTSequence", [4096, 0, 0], LINE.tobytes()), "a lookup table with 0 bits"),
        (table_of("VOILUTSequence", [4096, 0, 200], LINE.tobytes()), "a lookup table with 200 bits"),
        (dicom(ramp(), WindowCenter=1, WindowWidth=-1), "a window of width -1"),
        # pydicom writes none of these.
        (dicom(ramp(), WindowCenter="9999", WindowWidth=1).replace(b"9999", b"nan "), "WindowCenter is nan"),
        (dicom(ramp(), WindowCenter=1, WindowWidth="9999").replace(b"9999", b"inf "), "WindowWidth is inf"),
        (dicom(ramp(), WindowCenter="9999", WindowWidth=1).replace(b"9999", b"abcd"), "its window or lookup table is"),
        (dicom(ramp(), RescaleSlope="9999", RescaleIntercept=0).replace(b"9999", b"nan "), "RescaleSlope is nan"),
        (dicom(ramp(), RescaleSlope="999999", RescaleIntercept=0).replace(b"999999", b"1e+308"), "RescaleSlope is 1e"),
        (dicom(ramp(), RescaleSlope=1, RescaleIntercept="9999").replace(b"9999", b"-inf"), "RescaleIntercept is -inf"),
    ],
)
def test_a_broken_window_or_table_is_named_where_it_counts(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason):
        read_dicom(data, "window")
    np.testing.assert_array_equal(read_dicom(data), read_dicom(WHOLE))


def test_no_row_of_a_large_picture_is_shown_otherwise() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (3 * BAND + 7, 40)).astype(np.uint16)
    for elements in ({}, {"WindowCenter": 2048, "WindowWidth": 1024}, {"RescaleSlope": -2, "RescaleIntercept": 9}):
        whole = read_dicom(dicom(pixels, **elements), "window")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("medst.cohort.dicom.BAND", len(pixels))
            np.testing.assert_array_equal(read_dicom(dicom(pixels, **elements), "window"), whole)


def test_what_a_deflated_file_inflates_to_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = dataset_of(ramp(), ViewPosition="PA")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    deflated, path = bytes_of(dataset), tmp_path / "x.dcm"
    path.write_bytes(deflated)
    np.testing.assert_array_equal(read_dicom(deflated), read_dicom(WHOLE))
    assert read_element(path, "ViewPosition") == "PA"
    monkeypatch.setattr("medst.cohort.dicom.MOST_BYTES", 8000)  # its pixels alone have 8192
    with pytest.raises(UnreadableImage, match="inflates to more than"):
        read_dicom(deflated)
    assert read_element(path, "ViewPosition") == ""


def test_pydicom_is_silent_for_the_read_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    (tmp_path / "x.dcm").write_bytes(WHOLE)
    for level in (logging.DEBUG, logging.NOTSET):
        logger.setLevel(level)
        read_dicom(WHOLE)
        read_element(tmp_path / "x.dcm", "ViewPosition")
        with pytest.raises(UnreadableImage):
            read_dicom(WHOLE[:150])
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(read_dicom, [WHOLE] * 40))
        assert logger.level == level
    assert not [record for record in caplog.records if record.name.startswith("pydicom")]


def test_a_dicom_file_without_suffix_is_recognised_by_its_content(tmp_path: Path) -> None:
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


def test_one_element_is_read_and_none_from_a_file_that_is_not_dicom(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom(ramp(), ViewPosition="PA"))
    assert read_element(path, "ViewPosition") == "PA"
    assert read_element(path, "BodyPartExamined") == ""
    assert guarded(read_element, path, "ViewPosition") == "PA"
    for damage in (b"nothing", dicom(ramp(), ViewPosition="PA")[:150], b"\0" * 128 + b"DICM" + b"\xff" * 999):
        path.write_bytes(damage)
        assert read_element(path, "ViewPosition") == ""
    path.unlink()
    os.mkfifo(path)
    assert read_element(path, "ViewPosition") == ""
