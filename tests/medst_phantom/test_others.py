import csv
import hashlib
import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pydicom
import pytest

from medst.errors import MedstError
from medst_phantom import OTHER_TREES, others
from medst_phantom.chexpert_plus import COLUMNS
from medst_phantom.others import write_tree
from medst_phantom.rsna import find_boxes


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trees, of eighteen patients each."""
    out = tmp_path_factory.mktemp("trees")
    for name in OTHER_TREES:
        write_tree(name, out / name, patients=18, seed=3, workers=2)
    return out


@pytest.mark.parametrize("name", OTHER_TREES)
def test_workers_and_stops_change_no_byte(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        write_tree(name, tmp_path / name, patients=18, seed=3, workers=1, progress=stop)
    written = []
    once = others._write_patients
    monkeypatch.setattr(others, "_write_patients", lambda *args: (written.extend(args[-1]), once(*args))[1])
    write_tree(name, tmp_path / name, patients=18, seed=3, workers=1)
    assert 0 < len(written) <= 10
    assert digests(tmp_path / name) == digests(grown / name)
    counts = json.loads((grown / name / "phantom.json").read_text())["counts"]
    assert write_tree(name, tmp_path / name, patients=18, seed=3) == counts
    with pytest.raises(MedstError, match="other options"):
        write_tree(name, tmp_path / name, patients=19, seed=3)


def test_rsna_boxes_are_within_the_pictures_and_targets_follow_from_them(grown: Path) -> None:
    rows = rows_of(grown / "rsna" / "stage_2_train_labels.csv")
    names = {row["patientId"] for row in rows}
    assert {path.stem for path in (grown / "rsna" / "stage_2_train_images").iterdir()} == names
    assert len(names) == 18
    assert {row["Target"] for row in rows} == {"0", "1"}
    for row in rows:
        box = [row[name] for name in ("x", "y", "width", "height")]
        assert (row["Target"] == "1") == all(box)
        if row["Target"] == "1":
            header = pydicom.dcmread(
                grown / "rsna" / "stage_2_train_images" / f"{row['patientId']}.dcm", stop_before_pixels=True
            )
            x, y, width, height = map(float, box)
            assert 0 <= x < x + width <= header.Columns
            assert 0 <= y < y + height <= header.Rows
    details = {row["patientId"]: row["class"] for row in rows_of(grown / "rsna" / "stage_2_detailed_class_info.csv")}
    assert {row["patientId"] for row in rows if row["Target"] == "1"} == {
        name for name, kind in details.items() if kind == "Lung Opacity"
    }


def test_a_box_is_where_two_pictures_differ() -> None:
    without = np.full((200, 150), 90, np.uint8)
    picture = without.copy()
    picture[20:80, 30:90] += 60
    picture[120:160, 100:140] += 60
    picture[190:192, 3:5] += 60  # too small to be seen
    (large, small) = find_boxes(without, picture)
    for box, expected in ((large, (30, 20, 60, 60)), (small, (100, 120, 40, 40))):
        assert np.abs(np.subtract(box, expected)).max() <= 8
    assert find_boxes(without, without) == []


def test_covidx_lists_name_the_files_and_some_have_blanks(grown: Path) -> None:
    seen = []
    for part in ("train", "test"):
        lines = (grown / "covidx" / f"{part}.txt").read_text().splitlines()
        names = [line.split(" ", 1)[1].rsplit(" ", 2)[0] for line in lines]
        assert sorted(names) == sorted(path.name for path in (grown / "covidx" / part).iterdir())
        seen += [line.rsplit(" ", 2)[1] for line in lines]
        for name in names:
            assert cv2.imread(str(grown / "covidx" / part / name)) is not None
    assert set(seen) == {"normal", "pneumonia", "COVID-19"}
    assert any(" " in path.name for path in (grown / "covidx").rglob("*.*g"))


def test_chexpert_plus_has_one_row_per_image_in_both_forms(grown: Path) -> None:
    root = grown / "chexpert-plus"
    rows = rows_of(root / "df_chexpert_plus_240401.csv")
    assert list(rows[0]) == list(COLUMNS)
    for row in rows:
        png = root / "PNG" / row["path_to_image"].replace(".jpg", ".png")
        picture = cv2.imread(str(png), cv2.IMREAD_GRAYSCALE)
        deep = pydicom.dcmread(root / "DICOM" / row["path_to_dcm"]).pixel_array
        np.testing.assert_array_equal(deep >> 4, picture)
        assert row["split"] in row["path_to_image"]
        assert (row["frontal_lateral"] == "Lateral") == (row["ap_pa"] == "")
    studies: dict[str, list[int]] = {}
    for row in rows:
        studies.setdefault(row["deid_patient_id"], []).append(int(row["patient_report_date_order"]))
    assert all(sorted(set(orders)) == list(range(1, max(orders) + 1)) for orders in studies.values())
    labels = [json.loads(line) for line in (root / "chexbert_labels" / "report_fixed.json").read_text().splitlines()]
    assert [label["path_to_image"] for label in labels] == [row["path_to_image"] for row in rows]
    assert {value for label in labels for name, value in label.items() if name != "path_to_image"} <= {
        1.0,
        0.0,
        -1.0,
        None,
    }


def test_open_i_reports_name_their_images_and_the_table_knows_their_views(grown: Path) -> None:
    root = grown / "open-i"
    views = {row["filename"]: row["projection"] for row in rows_of(root / "indiana_projections.csv")}
    named = []
    for path in (root / "NLMCXR_reports" / "ecgen-radiology").iterdir():
        report = ElementTree.fromstring(path.read_bytes())
        assert report.find(".//uId").get("id") == f"CXR{path.stem}"  # type: ignore[union-attr]
        assert {node.get("Label") for node in report.iter("AbstractText")} >= {"FINDINGS", "IMPRESSION"}
        for image in report.iter("parentImage"):
            name = str(image.get("id"))
            bare = name.removeprefix("CXR")
            assert (root / "NLMCXR_png" / f"{name}.png").is_file()
            header = pydicom.dcmread(root / "NLMCXR_dcm" / path.stem / f"{bare}.dcm", stop_before_pixels=True)
            assert (header.ViewPosition == "LL") == (views[f"{bare}.dcm.png"] == "Lateral")
            named.append(f"{bare}.dcm.png")
    assert sorted(named) == sorted(views)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("padchest", {}, "'padchest' is not a data set that the phantom writes; choose one of rsna, covidx"),
        ("rsna", {"patients": 0}, "Give 1 to 100000 patients"),
        ("rsna", {"seed": -1}, "Give 1 to 100000 patients"),
    ],
)
def test_impossible_arguments(tmp_path: Path, name: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(MedstError, match=sentence):
        write_tree(name, tmp_path / "x", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
