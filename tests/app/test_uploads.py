"""A visitor's files."""

from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from medst.app.uploads import read_upload, shrink, study_of_upload
from medst.errors import MedstError
from medst.use import Picture, read_picture

NOISE = np.random.default_rng(0).integers(0, 256, (60, 40), dtype=np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> str:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), NOISE)
    return str(file)


def test_a_study_of_files(png: str, dicom: Path) -> None:
    study = study_of_upload("2150-03-01", png, str(dicom), "  No  change. ", number=1)
    assert study.time == datetime(2150, 3, 1)
    assert study.report == "No change."
    assert study.lateral is not None
    assert study_of_upload("2150-03-01 10:30", png, None, "", number=1).time == datetime(2150, 3, 1, 10, 30)
    assert study_of_upload("", png, None, "", number=1).time is None
    assert study_of_upload("", str(dicom), None, "", number=1).time == datetime(2024, 2, 29)


def test_a_visitors_file_is_parsed_only_in_the_child_process(
    png: str, dicom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("parsed in the page's own process")

    for name in ("pydicom.dcmread", "cv2.imdecode", "PIL.Image.open"):
        monkeypatch.setattr(name, parsed)
    study = study_of_upload("", str(dicom), png, "", number=1)
    assert study.time == datetime(2024, 2, 29)
    assert study.lateral is not None


def test_long_texts_are_refused(png: str) -> None:
    with pytest.raises(MedstError, match="the report has 10,001 characters; at most 10,000 are allowed"):
        study_of_upload("", png, None, "a" * 10_001, number=1)
    with pytest.raises(MedstError, match="the date has 41 characters"):
        study_of_upload("1" * 41, png, None, "", number=1)


def test_only_pixels_and_date_of_a_dicom_file_are_kept(dicom: Path) -> None:
    study = study_of_upload("", str(dicom), None, "", number=1)
    assert "Doe" not in repr(study)
    assert "DOE" not in repr(study)


@pytest.mark.parametrize(
    ("date", "bad", "message"),
    [
        ("", None, "choose a frontal view first"),
        ("yesterday", "png", "'yesterday' is not a date; write it as YYYY-MM-DD"),
        ("", "garbage", r"the frontal view of study 2: not a picture\."),
        ("", "empty", r"the frontal view of study 2: the file is empty\."),
        ("", "bomb", r"the frontal view of study 2: .* too large\."),
    ],
)
def test_refusals(png: str, tmp_path: Path, date: str, bad: str | None, message: str) -> None:
    files = {"png": png, "garbage": tmp_path / "g.dcm", "empty": tmp_path / "e.png", "bomb": tmp_path / "b.png"}
    files_written = {"garbage": b"garbage" * 40, "empty": b""}
    for name, content in files_written.items():
        Path(files[name]).write_bytes(content)
    cv2.imwrite(str(files["bomb"]), np.zeros((11_000, 10_000), dtype=np.uint8))
    with pytest.raises(
        MedstError, match=message if bad != "garbage" else "the frontal view of study 2: not a DICOM file"
    ):
        study_of_upload(date, None if bad is None else str(files[bad]), None, "", number=2)


def test_shrinking_an_upload_does_not_change_what_the_model_sees(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    large = cv2.resize(NOISE, (1600, 2400))
    cv2.imwrite(str(file), large)
    picture, date = read_upload(file, "the frontal view")
    assert date is None
    assert picture.original.shape == (768, 512)
    assert np.array_equal(picture.square, read_picture(large).square)
    small = read_picture(NOISE)
    assert shrink(small, 768) is small
    assert isinstance(picture, Picture)


def test_a_message_names_the_view_and_not_the_file(tmp_path: Path) -> None:
    file = tmp_path / "DOE_JANE.png"
    file.write_bytes(b"garbage")
    with pytest.raises(MedstError) as caught:
        read_upload(file, "the frontal view of study 1")
    assert str(caught.value) == "the frontal view of study 1: not a picture."
