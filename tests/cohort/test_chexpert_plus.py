import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import polars as pl
import pytest
from tests.cohort.conftest import picture
from tests.cohort.dicoms import dicom

from medst.cohort.chexpert_plus import COLUMNS, LABEL_FILE, TABLE
from medst.cohort.images import Reading, read_square
from medst.cohort.options import Options
from medst.cohort.pairs import LABELS
from medst.cohort.prepare import prepare
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError

Rejections = Callable[[Path], list[tuple[str, str, str]]]


class Release:
    """A table, and its images as PNG, DICOM or both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []  # type: tuple[Path, list[dict[str, Any]]]

    def add(self, patient: int = 1, study: int = 1, view: str = "Frontal", number: int = 1, **fields: Any) -> str:
        stem = f"train/patient{patient:05d}/study{study}/view{number}_{view.lower()}"
        image = picture(patient * 100 + study * 10 + number)
        for path in (self.folder / "PNG" / f"{stem}.png", self.folder / "DICOM" / f"{stem}.dcm"):
            path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self.folder / "PNG" / f"{stem}.png"), image)
        (self.folder / "DICOM" / f"{stem}.dcm").write_bytes(dicom(image.astype("uint16") * 16))
        row = {
            "path_to_image": f"{stem}.jpg",
            "path_to_dcm": f"{stem}.dcm",
            "frontal_lateral": view,
            "ap_pa": "AP" if view == "Frontal" else None,
            "deid_patient_id": f"patient{patient:05d}",
            "patient_report_date_order": str(study),
            "section_findings": f"Heart of size {study} now.",
            "section_impression": "1. No\nchange.",
            "split": "train",
        }
        self.rows.append(row | fields)
        return stem

    def write(self) -> Path:
        pl.DataFrame(self.rows, infer_schema_length=None).write_csv(self.folder / TABLE)
        return self.folder

    def cohort(self, name: str = "cohort", options: Options | None = None, max_rejected: float = 1.0) -> Cohort:
        raw = self.write()
        prepare("chexpert-plus", raw, raw.parent / name, options, workers=1, max_rejected=max_rejected)
        return open_cohort(raw.parent / name)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "chexpert")


def test_time_is_the_order_of_a_patients_reports(release: Release) -> None:
    later = release.add(study=10)
    side = release.add(study=10, view="Lateral", number=2)
    first = release.add(study=9)
    other = release.add(patient=2, split="valid")
    cohort = release.cohort(max_rejected=0)
    assert cohort.pairs is not None
    ids = cohort.image_table["image_id"].to_list()
    found = [
        (ids[frontal], None if lateral is None else ids[lateral], split)
        for frontal, lateral, split in cohort.pairs.select("frontal", "lateral", "split").iter_rows()
    ]
    assert found == [(first, None, "train"), (later, side, "train"), (other, None, "valid")]
    assert cohort.pairs["time"].to_list() == [datetime(2000, 1, day) for day in (10, 11, 2)]
    assert cohort.meta["time"] == "order"
    assert cohort.meta["dataset_version"] == "240401"
    assert cohort.pairs["report"][0] == "no change heart of size 9 now"
    assert cohort.pairs["study_id"].to_list() == ["patient00001/study9", "patient00001/study10", "patient00002/study1"]
    assert cohort.pairs["labels"].is_null().all()


def test_png_is_preferred_to_dicom_and_dicom_is_enough(release: Release) -> None:
    stem = release.add()
    png = release.cohort("png", max_rejected=0)
    assert png.image_table["path"].to_list() == [f"{stem}.png"]
    (release.folder / "PNG").rename(release.folder / "else")
    reading = Reading(intensity="window")
    found = release.cohort("dicom", Options(intensity="window"), max_rejected=0)
    assert found.image_table["path"].to_list() == [f"{stem}.dcm"]
    expected, _ = read_square(release.folder / "DICOM" / f"{stem}.dcm", reading)
    assert (found.images[0] == expected).all()
    moved = release.cohort("moved", Options(images=release.folder / "else"), max_rejected=0)
    assert (moved.images[0] == png.images[0]).all()


def test_labels_are_those_of_the_report(release: Release) -> None:
    stem = release.add()
    lines = [
        {"path_to_image": f"{stem}.jpg"} | dict.fromkeys(LABELS) | {"Edema": 1.0, "Pneumonia": -1.0, "Fracture": 0.0}
    ]
    (release.folder / LABEL_FILE).parent.mkdir()
    (release.folder / LABEL_FILE).write_text("\n".join(map(json.dumps, lines)) + "\n")
    pairs = release.cohort(max_rejected=0).pairs
    assert pairs is not None
    labels = pairs["labels"][0]
    assert {name: value for name, value in labels.items() if value is not None} == {
        "Edema": 1.0, "Pneumonia": -1.0, "Fracture": 0.0
    }  # fmt: skip
    (release.folder / LABEL_FILE).write_text("{broken\n")
    with pytest.raises(MedstError, match="can't be read as JSON lines"):
        release.cohort("other")


def test_unusable_rows_and_reports_are_rejected_by_name(release: Release, rejections: Rejections) -> None:
    release.add(study=1)
    again = release.add(study=1)
    side = release.add(study=2, frontal_lateral="Oblique")
    held = release.add(study=3, split="holdout")
    lost = release.add(study=4, patient_report_date_order="first")
    release.add(study=5, section_findings=None, section_impression=None)
    release.add(study=6, deid_patient_id=None)
    cohort = release.cohort()
    assert rejections(cohort.path) == [
        ("row", "train/patient00001/study6/view1_frontal", "an id or path is missing"),
        ("row", again, "more than once in the table; its first row counts"),
        ("row", side, "neither Frontal nor Lateral"),
        ("row", held, "its split is not train, valid or test"),
        ("row", lost, "patient_report_date_order is not a number"),
        ("text", "patient00001/study5", "the report has neither findings nor an impression"),
    ]
    assert cohort.meta["counts"]["pairs"] == 1


def test_what_is_missing_is_named(release: Release, tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=f"chexpert: no such folder; give the one that holds {TABLE}"):
        prepare("chexpert-plus", release.folder, tmp_path / "x")
    stem = release.add()
    (release.folder / "PNG" / f"{stem}.png").unlink()
    (release.folder / "DICOM" / f"{stem}.dcm").unlink()
    with pytest.raises(MedstError, match=r"No picture found \(looked for train/patient00001.*download PNG.zip"):
        release.cohort()
    for column in COLUMNS:
        table = pl.read_csv(release.folder / TABLE, infer_schema=False)
        table.drop(column).write_csv(release.folder / TABLE)
        with pytest.raises(MedstError, match=f"has no column {column}"):
            prepare("chexpert-plus", release.folder, tmp_path / "x")
        table.write_csv(release.folder / TABLE)


def test_reports_that_lose_letters_are_counted(release: Release) -> None:
    release.add(study=1, section_findings="El corazón es normal.")
    release.add(study=2)
    assert release.cohort("cohort").meta["counts"]["reports_losing_letters"] == 1
    assert "reports_losing_letters" not in release.cohort("whole", Options(text="whole")).meta["counts"]
