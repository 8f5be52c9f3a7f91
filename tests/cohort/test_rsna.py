import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cohort.dicoms import dicom

from medst.cohort.images import read_square
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.rsna import LABEL_FILE, read_patients, split_patients
from medst.cohort.store import open_cohort
from medst.cohort.writer import Writer
from medst.errors import MedstError

HEAD = "patientId,x,y,width,height,Target\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twenty patients, every third with one or two boxes."""
    folder = tmp_path / "rsna"
    (folder / "stage_2_train_images").mkdir(parents=True)
    lines = []
    for number in range(20):
        name = f"{number * 7919 % 1000:04d}-id"
        lines += (
            [f"{name},{n}.0,2.0,30.0,40.0,1" for n in range(1 + number % 2)] if number % 3 == 0 else [f"{name},,,,,0"]
        )
        pixels = np.random.default_rng(number).integers(0, 4096, (50, 40)).astype(np.uint16)
        (folder / "stage_2_train_images" / f"{name}.dcm").write_bytes(dicom(pixels, WindowCenter=900, WindowWidth=500))
    (folder / LABEL_FILE).write_text(HEAD + "\n".join(lines) + "\n")
    return folder


def test_the_split_is_the_recorded_one_in_its_order(recorded: Path) -> None:
    patients = split_patients(read_patients(Writer(Path("x"), {}), recorded / "rsna"))
    for ours, theirs in (("train", "train"), ("valid", "val"), ("test", "test")):
        part = patients.filter(split=ours)
        with (recorded / "rsna" / f"{theirs}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert part["patient_id"].to_list() == [row["patientId"] for row in rows]
        assert part["label"].to_list() == [int(row["Target"]) for row in rows]
        corners = [[[x, y, x + w, y + h] for x, y, w, h in boxes] for boxes in part["boxes"].to_list()]
        assert [str(boxes) if boxes else "" for boxes in corners] == [row["bbox"] for row in rows]


@given(st.integers(4, 300))
def test_every_patient_is_in_one_split(count: int) -> None:
    table = split_patients(pl.DataFrame({"patient_id": [f"{n:04d}" for n in range(count)]}))
    assert sorted(table["patient_id"]) == [f"{n:04d}" for n in range(count)]
    sizes = dict(table["split"].value_counts().iter_rows())
    assert abs(sizes["test"] - sizes["valid"]) <= 1
    assert sizes["test"] + sizes["valid"] == -(-count * 3 // 10)


def test_the_full_table_splits_into_the_published_sizes() -> None:
    table = split_patients(pl.DataFrame({"patient_id": [f"{n:05d}" for n in range(26_684)]}))
    assert dict(table["split"].value_counts().iter_rows()) == {"train": 18_678, "valid": 4_003, "test": 4_003}


def test_a_cohort_has_one_row_per_patient_with_label_and_boxes(tree: Path, tmp_path: Path) -> None:
    meta = prepare("rsna", tree, tmp_path / "cohort", workers=1)
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.labelled is not None
    assert meta["classes"] == ["no pneumonia", "pneumonia"]
    counts = meta["counts"]
    assert (counts["images"], counts["pneumonia_images"]) == (20, 7)
    assert (counts["train_images"], counts["valid_images"], counts["test_images"]) == (14, 3, 3)
    assert counts["patients_in_several_splits"] == 0
    for patient, image, label, boxes in cohort.labelled.select("patient_id", "image", "label", "boxes").iter_rows():
        square, _ = read_square(tree / "stage_2_train_images" / f"{patient}.dcm")
        np.testing.assert_array_equal(cohort.images[image], square)
        assert label == bool(boxes)
    assert max(len(boxes) for boxes in cohort.labelled["boxes"]) == 2
    window = prepare("rsna", tree, tmp_path / "window", Options(intensity="window"), workers=1)
    assert window["fingerprint"] != meta["fingerprint"]


def test_a_patient_without_a_file_is_named_and_the_split_of_the_others_stays(tree: Path, tmp_path: Path) -> None:
    whole = prepare("rsna", tree, tmp_path / "whole", workers=1)
    split = dict(open_cohort(tmp_path / "whole").labelled.select("patient_id", "split").iter_rows())  # type: ignore[union-attr]
    gone = next(iter(split))
    (tree / "stage_2_train_images" / f"{gone}.dcm").unlink()
    with pytest.raises(MedstError, match="1 of 20 images were left out"):
        prepare("rsna", tree, tmp_path / "cohort", workers=1)
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.labelled is not None
    assert dict(cohort.labelled.select("patient_id", "split").iter_rows()) == {
        name: part for name, part in split.items() if name != gone
    }
    rejected = pl.read_csv(tmp_path / "cohort" / "rejected.csv")
    assert rejected.select("kind", "id", "reason").rows() == [("image", gone, "no such file")]
    assert whole["counts"]["images"] == cohort.meta["counts"]["images"] + 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("patientId,x\na,1\n", "has no column y, width, height, Target"),
        (HEAD + "a,,,,,maybe\n", "patient a has the Target 'maybe'; it must be 0 or 1"),
        (HEAD + "a,,,,,0\n", "names 1 patients, too few to split"),
        (HEAD + "".join(f"n{i},,,,,0\n" for i in range(9)), "rsna/stage_2_train_images: no such folder"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "rsna").mkdir()
    (tmp_path / "rsna" / LABEL_FILE).write_text("\ufeff" + text)
    with pytest.raises(MedstError, match=sentence):
        prepare("rsna", tmp_path / "rsna", tmp_path / "cohort", workers=1)


def test_incomplete_rows_are_named(tree: Path, tmp_path: Path) -> None:
    with (tree / LABEL_FILE).open("a") as file:
        file.write(",1.0,2.0,3.0,4.0,1\nlast,1.0,,,,1\n")
    pixels = np.random.default_rng(1).integers(0, 4096, (50, 40)).astype(np.uint16)
    (tree / "stage_2_train_images" / "last.dcm").write_bytes(dicom(pixels))
    meta = prepare("rsna", tree, tmp_path / "cohort", workers=1, max_rejected=0.1)
    rejected = pl.read_csv(tmp_path / "cohort" / "rejected.csv").select("id", "reason").fill_null("")
    assert rejected.rows() == [("", "no patientId"), ("last", "kept; Target 1 without a complete box")]
    assert meta["counts"]["rejected_rows"] == 1
