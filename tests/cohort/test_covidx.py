import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.covidx import read_list, split_train
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.resize import resize
from medst.cohort.store import open_cohort
from medst.cohort.writer import Writer
from medst.errors import MedstError

KINDS = ("normal", "pneumonia", "COVID-19")


def lines(names: list[tuple[str, str]]) -> str:
    return "".join(f"{patient} {name} {KINDS[i % 3]} src\n" for i, (patient, name) in enumerate(names))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Thirty training images of ten patients, one with spaces in its name, and six test images, one of patient 0."""
    folder = tmp_path / "covidx"
    train = [(f"p{i % 10}", f"image {i}.png" if i == 4 else f"image_{i}.png") for i in range(30)]
    test = [(f"t{i}" if i else "p0", f"image_{i}.png") for i in range(6)]
    for part, names in (("train", train), ("test", test)):
        (folder / part).mkdir(parents=True)
        (folder / f"{part}.txt").write_text(lines(names))
        for i, (_, name) in enumerate(names):
            picture = np.random.default_rng([i, len(part)]).integers(0, 256, (40, 30), dtype=np.uint8)
            cv2.imwrite(str(folder / part / name), picture)
    return folder


@pytest.fixture
def writer() -> Writer:
    return Writer(Path("x"), {})


def reasons(writer: Writer) -> list[tuple[str, str]]:
    return [row for table in writer.rejected for row in table.select("id", "reason").iter_rows()]


def test_the_split_and_the_labels_are_the_recorded_ones(recorded: Path, writer: Writer) -> None:
    train = split_train(read_list(writer, recorded / "covidx" / "train.txt"), by_patient=False)
    test = read_list(writer, recorded / "covidx" / "test.txt")
    for name, part in (("train", train.filter(split="train")), ("valid", train.filter(split="valid")), ("test", test)):
        with (recorded / "covidx" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert part["image_id"].to_list() == [row["filename"] for row in rows]
        assert part["label"].to_list() == [int(row["labels"]) for row in rows]
    assert reasons(writer) == []


def test_lines_with_and_without_a_source_and_with_blanks_in_the_name(tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "train.txt").write_text(
        "\ufeff1 a.png normal rsna\n2 b c.png pneumonia\n\n 3 d e f.png COVID-19 cohen \n4 g.png Positive x\n"
    )
    assert read_list(writer, tmp_path / "train.txt").drop("rows").rows() == [
        ("1", "a.png", 0), ("2", "b c.png", 1), ("3", "d e f.png", 2), ("4", "g.png", 2)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["a", "b c", "normal", "x.y", "COVID-19 (3)"]), min_size=1, max_size=8))
def test_any_name_comes_back(names: list[str]) -> None:
    files = [f"{name} {i}.png" for i, name in enumerate(names)]
    path = Path("/tmp") / "unused"
    text = lines([(f"p{i}", name) for i, name in enumerate(files)])

    class Text(type(path)):  # type: ignore[misc]
        def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
            return text

    assert read_list(Writer(path, {}), Text("list.txt"))["image_id"].to_list() == files


def test_an_unknown_class_is_rejected_and_not_taken_for_covid(tmp_path: Path, writer: Writer) -> None:
    (tmp_path / "train.txt").write_text("1 a.png normal rsna\n2 b.png flu rsna\nhello\n3 a.png COVID-19 x\n")
    assert read_list(writer, tmp_path / "train.txt").drop("rows").rows() == [("1", "a.png", 0)]
    assert reasons(writer) == [
        ("2 b.png flu rsna", "its class is not one of normal, pneumonia, COVID-19"),
        ("hello", "its class is not one of normal, pneumonia, COVID-19"),
        ("a.png", "more than once in train.txt; its first line counts"),
    ]
    assert writer.seen == {"row": 4}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"1 a.png positive x\n2 b.png negative x\n", "is a list of two classes; use one of three"),
        (b"<html>log in</html>\n", "is not a list of COVIDx"),
        (b"", "is not a list of COVIDx"),
        (b"\xff\xfe1\0", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_not_a_list_is_refused(tmp_path: Path, writer: Writer, content: bytes, sentence: str) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(MedstError, match=sentence):
        read_list(writer, tmp_path / "train.txt")


def test_the_cohort_keeps_the_released_order(
    tree: Path, tmp_path: Path, rejections: Callable[[Path], list[tuple[str, str, str]]]
) -> None:
    meta = prepare("covidx", tree, tmp_path / "cohort", workers=1)
    cohort = open_cohort(tmp_path / "cohort")
    assert cohort.labelled is not None
    assert meta["classes"] == list(KINDS)
    assert cohort.labelled["split"].to_list() == ["train"] * 24 + ["valid"] * 6 + ["test"] * 6
    assert cohort.labelled["image"].to_list() == list(range(36))
    assert meta["counts"]["patients_in_several_splits"] > 0
    for name, image in cohort.labelled.select("image_id", "image").iter_rows():
        expected = cv2.imread(str(tree / name), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(cohort.images[image], resize(expected))
    assert rejections(tmp_path / "cohort") == []


def test_by_patient_no_patient_is_in_two_splits(tree: Path, tmp_path: Path) -> None:
    meta = prepare("covidx", tree, tmp_path / "cohort", Options(split="by-patient"), workers=1)
    assert meta["counts"]["patients_in_several_splits"] == 0
    assert meta["counts"]["images"] == 30 + 6 - 3  # three images of the patient who is tested on
    rejected = pl.read_csv(tmp_path / "cohort" / "rejected.csv")
    assert rejected["reason"].unique().to_list() == ["left out of training because its patient is in the test list"]


def test_the_version_is_read_off_the_list_and_one_list_is_enough(tree: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tree / f"{part}.txt").rename(tree / f"{part}_COVIDx9A.txt")
    assert prepare("covidx", tree, tmp_path / "cohort", workers=1)["dataset_version"] == "9A"
    (tree / "train_COVIDx8A.txt").write_text("1 a.png normal x\n")
    with pytest.raises(MedstError, match=r"found: train_COVIDx8A.txt, train_COVIDx9A.txt"):
        prepare("covidx", tree, tmp_path / "second", workers=1)


def test_missing_lists_and_folders_are_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="nowhere: no such folder"):
        prepare("covidx", tmp_path / "nowhere", tmp_path / "cohort")
    (tree / "test").rename(tree / "tests")
    with pytest.raises(MedstError, match=r"covidx/test: no such folder.*--images"):
        prepare("covidx", tree, tmp_path / "cohort")
