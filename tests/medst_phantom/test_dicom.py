from pathlib import Path

import numpy as np
import pydicom
import pytest

from medst_phantom.dicom import JPEG, SYNTAXES, Style, deepen, style_of, write_dicom

PICTURE = np.random.default_rng(0).integers(0, 256, (38, 53), dtype=np.uint8)


def test_every_syntax_comes_with_every_depth_inversion_and_window() -> None:
    styles = [style_of(number) for number in range(len(SYNTAXES) * 12)]
    for syntax in SYNTAXES:
        own = [style for style in styles if style.syntax == syntax]
        assert {style.bits for style in own} == ({8} if syntax == JPEG else {8, 10, 12, 16})
        assert {style.inverted for style in own} == {True, False}
        assert {style.windows for style in own} == {0, 1, 2}
        assert {style.rescaled for style in own} == {True, False}


def test_deeper_pictures_are_the_same_above_their_low_bits() -> None:
    for bits in (8, 10, 12, 16):
        deep = deepen(PICTURE, bits, np.random.default_rng(1))
        np.testing.assert_array_equal(deep >> (bits - 8), PICTURE)
        assert deep.max() < 2**bits


@pytest.mark.parametrize("number", range(len(SYNTAXES) * 4))
def test_what_is_written_is_read_back(tmp_path: Path, number: int) -> None:
    style = style_of(number)
    pixels = deepen(PICTURE, style.bits, np.random.default_rng(number))
    for name in ("one.dcm", "two.dcm"):
        write_dicom(tmp_path / name, pixels, style, number=number, view="PA")
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()
    dataset = pydicom.dcmread(tmp_path / "one.dcm")
    assert dataset.file_meta.TransferSyntaxUID == style.syntax
    assert dataset.PhotometricInterpretation == ("MONOCHROME1" if style.inverted else "MONOCHROME2")
    assert (dataset.BitsStored, dataset.ViewPosition) == (style.bits, "PA")
    assert ("WindowCenter" in dataset) == (style.windows > 0)
    assert float(dataset.get("RescaleSlope", 1)) == (2 if style.rescaled else 1)
    stored = 2**style.bits - 1 - pixels if style.inverted else pixels
    apart = np.abs(dataset.pixel_array.astype(int) - stored)
    assert apart.max() <= (60 if style.syntax == JPEG else 0)


def test_a_style_of_ones_own_is_written(tmp_path: Path) -> None:
    write_dicom(tmp_path / "x.dcm", PICTURE, Style(bits=8, windows=2), number=1, view="LL")
    assert list(pydicom.dcmread(tmp_path / "x.dcm").WindowWidth)[1] > 0
