"""Files decoded in a process of their own."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.app import pages

from medst.app.apart import read_apart
from medst.cohort.images import UnreadableImage, read_grey


def test_it_is_what_the_reader_says(tmp_path: Path, dicom: Path) -> None:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8))
    for each in (file, dicom):
        assert np.array_equal(read_apart(each), read_grey(each))
    with pytest.raises(UnreadableImage, match="no such file"):
        read_apart(tmp_path / "b.png")


def test_a_reader_that_dies(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="its decoder died on it"):
        read_apart(tmp_path, reader=pages.die)  # type: ignore[arg-type]


def test_a_reader_that_hangs(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UnreadableImage, match="takes longer than 3 seconds"):
        read_apart(tmp_path, patience=3, reader=pages.hang)  # type: ignore[arg-type]
    assert time.monotonic() - start < 30
