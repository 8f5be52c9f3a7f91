from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from medst.cohort.images import read_grey
from medst.cohort.mimic_cxr import CHEXPERT, METADATA, SPLIT, read_metadata
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.resize import resize
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError

Rejections = Callable[[Path], list[tuple[str, str, str]]]


def cohort_of(tree: Any, max_rejected: float = 1.0) -> Cohort:
    raw = tree.folder if tree.folder.exists() else tree.write()
    path = raw.parent / "cohort"
    prepare("mimic-cxr", raw, path, workers=1, max_rejected=max_rejected)
    return open_cohort(path)


def images_of(cohort: Cohort) -> list[tuple[str, str | None]]:
    """Ids of the frontal and lateral image of each pair, in the table's order."""
    ids = cohort.image_table["image_id"].to_list()
    assert cohort.pairs is not None
    rows = cohort.pairs.select("frontal", "lateral").rows()
    return [(ids[frontal], None if lateral is None else ids[lateral]) for frontal, lateral in rows]


def test_each_frontal_is_a_pair_with_the_first_lateral_of_its_study(tree: Any) -> None:
    study = tree.add(50000001, views=("LATERAL", "AP", "LL", "PA", "SWIMMERS", ""))
    alone = tree.add(50000002, date="21500201", views=("PA",))
    tree.add(50000003, date="21500301", views=("LATERAL",))
    cohort = cohort_of(tree)
    assert images_of(cohort) == [
        (study.image_id(1), study.image_id(0)),
        (study.image_id(3), study.image_id(0)),
        (alone.image_id(0), None),
    ]
    assert cohort.image_table.select("view", "view_position").rows() == [
        ("frontal", "AP"),
        ("frontal", "PA"),
        ("lateral", "LATERAL"),
        ("frontal", "PA"),
    ]
    counts = cohort.meta["counts"]
    assert (counts["studies"], counts["pairs"], counts["laterals"], counts["images"]) == (2, 3, 2, 4)


def test_first_is_the_order_of_the_metadata_not_of_the_ids(tree: Any) -> None:
    study = tree.add(50000001, views=("PA", "LL", "LATERAL"))
    tree.write()
    tree.replace(METADATA, tree.table(METADATA).reverse())
    assert images_of(cohort_of(tree)) == [(study.image_id(0), study.image_id(2))]


def test_an_image_keeps_its_time_and_whether_it_is_portable(tree: Any) -> None:
    tree.add(50000001, date="21500101", views=("AP", "PA", "LATERAL", "LL"))
    tree.write()
    said = ["CHEST (PORTABLE AP)", None, "CHEST (PA AND LAT)", None]
    table = tree.table(METADATA).drop(
        "PerformedProcedureStepDescription", "ProcedureCodeSequence_CodeMeaning", strict=False
    )
    tree.replace(METADATA, table)
    assert read_metadata(tree.folder)["portable"].to_list() == [None] * 4
    coded = [None, "Portable chest", "CHEST", None]
    tree.replace(
        METADATA,
        table.with_columns(
            pl.Series("PerformedProcedureStepDescription", said), pl.Series("ProcedureCodeSequence_CodeMeaning", coded)
        ),
    )
    assert read_metadata(tree.folder)["portable"].to_list() == [True, True, False, None]
    images = cohort_of(tree).image_table
    assert images.select("view_position", "portable").rows() == [("AP", True), ("PA", True), ("LATERAL", False)]
    assert images["time"].dt.date().unique().to_list() == [date(2150, 1, 1)]


def test_rows_are_the_pictures_of_their_paths_in_the_order_of_time(tree: Any) -> None:
    tree.add_many(12)
    cohort = cohort_of(tree)
    assert cohort.pairs is not None
    for row, path, height, width in cohort.image_table.select("row", "path", "height", "width").rows():
        image = read_grey(tree.folder / path)
        assert image.shape == (height, width)
        np.testing.assert_array_equal(cohort.images[row], resize(image))
    assert cohort.pairs.equals(cohort.pairs.sort("patient_id", "time", "study_id", "frontal"))
    assert cohort.pairs["frontal"].is_sorted()
    assert set(cohort.pairs["split"]) == {"train", "valid", "test"}
    study_of = cohort.image_table["path"].str.extract(r"(p\d+/s\d+)/").to_list()
    for patient, study, frontal, lateral in cohort.pairs.select("patient_id", "study_id", "frontal", "lateral").rows():
        assert study_of[frontal] == f"{patient}/{study}"
        assert lateral is None or study_of[lateral] == f"{patient}/{study}"


def test_labels_and_texts_are_those_of_the_study(tree: Any) -> None:
    first, second = tree.add(50000001), tree.add(50000002, date="21500201")
    tree.write()
    tree.replace(CHEXPERT, tree.table(CHEXPERT).filter(pl.col("study_id") == str(second.study)))
    pairs = cohort_of(tree).pairs
    assert pairs is not None
    for study, report in zip((first, second), pairs["report"], strict=True):
        assert report == f"no change since ___ the heart is of size {study.study} the lungs are clear"
    assert pairs["labels"].is_null().to_list() == [True, False]
    labels = pairs["labels"][1]
    assert (labels["Edema"], labels["Pneumonia"], labels["Fracture"]) == (1.0, -1.0, None)


def test_two_studies_of_the_same_minute_stay_and_are_named(tree: Any, rejections: Rejections) -> None:
    tree.add(50000003, time="120059")
    tree.add(50000002, time="120059.0")
    tree.add(50000001, time="120059.5")
    tree.add(50000004, time="120100")
    tree.add(50000005, patient=10000002, time="120059")
    cohort = cohort_of(tree)
    assert cohort.pairs is not None
    assert cohort.pairs["study_id"].to_list() == [f"s5000000{n}" for n in (2, 3, 1, 4, 5)]
    reason = "kept; s50000002, s50000003, s50000001 have the same minute: ordered by second, then by study id"
    assert rejections(cohort.path) == [("study", f"s5000000{n}", reason) for n in (2, 3, 1)]
    assert cohort.meta["counts"]["same_minute_studies"] == 3


def test_clocks_that_do_not_exist_lose_no_image_and_keep_the_order(tree: Any, rejections: Rejections) -> None:
    for study, clock in enumerate(("50571.5", "50575", "50559", "250000", "50600", "235971"), 50000001):
        tree.add(study, date="21500301", time=clock)
    tree.add(50000007, date="21500302", time="0")
    cohort = cohort_of(tree, max_rejected=0)
    assert cohort.pairs is not None
    assert cohort.pairs["study_id"].to_list() == [f"s5000000{n}" for n in (3, 1, 2, 5, 6, 4, 7)]
    assert cohort.pairs["time"].dt.day().to_list() == [1, 1, 1, 1, 1, 1, 2]
    assert {row[0] for row in rejections(cohort.path)} == {"study"}  # of the same minute, as are 05:05:59 and 05:05:71


def test_two_frontals_of_one_study_are_not_two_studies_of_a_minute(tree: Any, rejections: Rejections) -> None:
    tree.add(50000001, views=("PA", "AP"))
    assert rejections(cohort_of(tree).path) == []


def test_an_unreadable_frontal_drops_its_pair_and_an_unreadable_lateral_only_itself(
    tree: Any, rejections: Rejections
) -> None:
    broken, halved, whole = (tree.add(50000001 + n, date=f"2150010{n + 1}") for n in range(3))
    gone = tree.add(50000004, date="21500104", views=("PA", "AP", "LL"))
    raw = tree.write()
    (raw / broken.image_path(0)).write_bytes(b"")
    content = (raw / halved.image_path(1)).read_bytes()
    (raw / halved.image_path(1)).write_bytes(content[: len(content) // 2])
    (raw / gone.image_path(1)).unlink()
    cohort = cohort_of(tree)
    assert images_of(cohort) == [
        (halved.image_id(0), None),
        (whole.image_id(0), whole.image_id(1)),
        (gone.image_id(0), gone.image_id(2)),
    ]
    rows = rejections(cohort.path)
    assert [row[:2] for row in rows] == [
        ("image", broken.image_id(0)), ("image", halved.image_id(1)), ("image", gone.image_id(1)),
    ]  # fmt: skip
    assert rows[0][2] == "the file is empty"
    assert rows[1][2].startswith("truncated or damaged (")
    assert rows[2][2] == "no such file"
    table = cohort.image_table
    bad = table.filter(status="rejected")
    assert bad["image_id"].to_list() == [row[1] for row in rows]
    assert bad["height"].null_count() == bad["width"].null_count() == 3
    assert not cohort.images[bad["row"].to_list()].any()
    assert cohort.meta["counts"]["rejected_images"] == 3


def test_reports_that_can_t_be_used_are_named(tree: Any, rejections: Rejections) -> None:
    good = tree.add(50000001)
    for number, report in enumerate(
        [
            b"",
            b"x\n HISTORY:  Cough.\n",
            b"x\n IMPRESSION:  Normal.\n",
            None,
            "x\n IMPRESSION:  \u00fc".encode("utf-16"),
            "x\n IMPRESSION:  Caf\u00e9 au lait.\n".encode("latin-1"),
            b"x\n IMPRESSION:\0  No change.\n",
        ]
    ):
        tree.add(50000002 + number, report=report, date=f"2150010{number + 2}")
    tree.add(50913680, date="21500110")  # one of the hand-made rules
    cohort = cohort_of(tree)
    assert images_of(cohort) == [(good.image_id(0), good.image_id(1))]
    assert rejections(cohort.path) == [
        ("report", "s50000002", "the report is empty"),
        ("report", "s50000005", "no such file"),
        ("report", "s50000006", "not UTF-8 text (byte 0 is 0xff)"),
        ("report", "s50000007", "not UTF-8 text (byte 19 is 0xe9)"),
        ("report", "s50000008", "not UTF-8 text (it holds zero bytes)"),
        ("text", "s50000003", "the report has neither findings nor an impression"),
        ("text", "s50000004", "fewer than 3 words are left of the report"),
        ("text", "s50913680", "its text is selected by a hand-made rule, which the released table lacks"),
    ]
    counts = cohort.meta["counts"]
    assert (counts["rejected_reports"], counts["rejected_texts"]) == (5, 3)
    with pytest.raises(MedstError, match="5 of 9 reports were left out"):
        cohort_of(tree, max_rejected=0.5)


def test_non_ascii_letters_and_other_line_ends_do_not_lose_a_report(tree: Any, rejections: Rejections) -> None:
    tree.add(50000001, report="\ufeffx\n IMPRESSION:  Caf\u00e9 au lait.\n".encode())
    tree.add(50000002, date="21500102", report="x\n IMPRESSION:  Caf\u00e9 au lait\ufffd\ufffdspots.\n")
    tree.add(50000003, date="21500103", report=b"x\r\n HISTORY:  Cough.\r\n \r\n IMPRESSION:  Lungs are\r\n clear.\r\n")
    cohort = cohort_of(tree)
    assert cohort.pairs is not None
    assert cohort.pairs["report"].to_list() == ["caf au lait", "caf au lait spots", "lungs are clear"]
    assert rejections(cohort.path) == []
    assert cohort.meta["counts"]["rejected_reports"] == 0


def test_unusable_rows_are_rejected_by_name(tree: Any, rejections: Rejections) -> None:
    study = tree.add(50000001, views=("PA", "AP", "PA", "AP", "PA"))
    tree.write()
    ids = [study.image_id(n) for n in range(5)]
    metadata = tree.table(METADATA).with_columns(
        StudyTime=pl.when(pl.col("dicom_id") == ids[1]).then(pl.lit("noon")).otherwise("StudyTime")
    )
    nameless = metadata.head(1).with_columns(dicom_id=pl.lit(None, dtype=pl.String))
    tree.replace(METADATA, pl.concat([metadata, metadata.head(1), nameless]))
    split = tree.table(SPLIT).filter(pl.col("dicom_id") != ids[2])
    odd = pl.when(pl.col("dicom_id") == ids[3]).then(pl.lit("holdout")).otherwise("split")
    stranger = split.head(1).with_columns(dicom_id=pl.lit("stranger"))
    tree.replace(SPLIT, pl.concat([split.with_columns(split=odd), stranger, split.head(1)]))
    cohort = cohort_of(tree)
    assert images_of(cohort) == [(ids[0], None), (ids[4], None)]
    assert rejections(cohort.path) == [
        ("row", "stranger", "in the split table, but not in the metadata"),
        ("row", ids[0], "more than once in the split table; its first row counts"),
        ("row", "", "an id is missing in the metadata"),
        ("row", ids[0], "more than once in the metadata; its first row counts"),
        ("row", ids[2], "not in the split table"),
        ("row", ids[3], "its split is not train, validate or test"),
        ("row", ids[1], "StudyDate and StudyTime are not a valid time"),
    ]


@pytest.mark.parametrize(
    ("name", "column"),
    [(METADATA, "StudyTime"), (METADATA, "ViewPosition"), (SPLIT, "split"), (CHEXPERT, "Pleural Effusion")],
)
def test_a_table_without_a_column_is_named_with_it(tree: Any, name: str, column: str) -> None:
    tree.add(50000001)
    tree.write()
    tree.replace(name, tree.table(name).drop(column))
    with pytest.raises(MedstError, match=f"{name} has no column {column}; it has "):
        cohort_of(tree)


@pytest.mark.parametrize("name", [METADATA, SPLIT, CHEXPERT])
def test_a_missing_table_is_named(tree: Any, name: str) -> None:
    tree.add(50000001)
    (tree.write() / name).unlink()
    with pytest.raises(MedstError, match=f"{name}: no such file; it is part of the data set"):
        cohort_of(tree)


def test_an_invalid_label_is_refused(tree: Any) -> None:
    tree.add(50000001)
    tree.write()
    tree.replace(CHEXPERT, tree.table(CHEXPERT).with_columns(Edema=pl.lit("maybe")))
    with pytest.raises(MedstError, match=r"'maybe' is not a value of Edema; a label is 1\.0, 0\.0, -1\.0 or empty"):
        cohort_of(tree)


def test_tables_without_a_usable_image_are_refused(tree: Any) -> None:
    tree.add(50000001, views=("LATERAL", "SWIMMERS"))
    with pytest.raises(MedstError, match="the tables name no frontal image"):
        cohort_of(tree)


def test_no_usable_report_at_all_is_refused(tree: Any) -> None:
    tree.add(50000001, report="x")
    with pytest.raises(MedstError, match=r"No study has both a frontal image in .* and a usable report"):
        cohort_of(tree)


@pytest.mark.parametrize(
    ("folder", "version"), [("2.1.0", "2.1.0"), ("mimic-cxr-jpg-2.0.0", "2.0.0"), ("jpg", "unknown")]
)
def test_the_version_comes_from_the_folder(tree: Any, folder: str, version: str) -> None:
    tree.add(50000001)
    tree.folder = tree.folder.with_name(folder)
    assert cohort_of(tree).meta["dataset_version"] == version
    (tree.folder / "mimic-cxr-2.1.0-test-set-labeled.csv").touch()
    prepare("mimic-cxr", tree.folder, tree.folder.with_name("second"), workers=1)
    assert open_cohort(tree.folder.with_name("second")).meta["dataset_version"] == "2.1.0"


def test_one_per_study_is_the_first_pa_image_or_else_the_first_ap_image(tree: Any) -> None:
    first = tree.add(50000001, views=("AP", "PA", "LL", "PA"))
    second = tree.add(50000002, date="21500201", views=("AP", "AP"))
    raw = tree.write()
    path = raw.parent / "cohort"
    meta = prepare("mimic-cxr", raw, path, Options(frontal="one-per-study"), workers=1)
    assert images_of(open_cohort(path)) == [(first.image_id(1), first.image_id(2)), (second.image_id(0), None)]
    assert meta["counts"]["images"] == 3
    assert meta["options"]["frontal"] == "one-per-study"


def test_whole_text_takes_the_reports_that_the_released_rules_leave_out(tree: Any) -> None:
    tree.add(50000001, report="x\n HISTORY:  Cough.\n \n Tube 3.5 cm above.\n")
    tree.add(50000002, date="21500201", report="x\n IMPRESSION:  Edema.\n")
    raw = tree.write()
    prepare("mimic-cxr", raw, raw.parent / "cohort", Options(text="whole"), workers=1)
    pairs = open_cohort(raw.parent / "cohort").pairs
    assert pairs is not None
    assert pairs["report"].to_list() == ["tube 3.5 cm above", "edema"]


def test_the_text_of_a_rejected_report_does_not_leak_into_the_next_study(tree: Any) -> None:
    tree.add(50000001, report="x\n IMPRESSION:  Leaky.\n")
    tree.add(50000002, date="21500201", report="x\n IMPRESSION:  The lungs are clear.\n")
    pairs = cohort_of(tree).pairs
    assert pairs is not None
    assert pairs["report"].to_list() == ["the lungs are clear"]


def test_fast_decoding_gives_another_cohort_of_the_same_pairs(tree: Any) -> None:
    tree.add(50000001)
    raw = tree.write()
    large = cv2.resize(read_grey(raw / tree.studies[0].image_path(0)), (1400, 1600), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(raw / tree.studies[0].image_path(0)), large)
    exact = prepare("mimic-cxr", raw, raw.parent / "exact", workers=1)
    fast = prepare("mimic-cxr", raw, raw.parent / "fast", Options(decode="fast"), workers=1)
    assert exact["counts"] == fast["counts"]
    assert exact["fingerprint"] != fast["fingerprint"]
    one, other = open_cohort(raw.parent / "exact"), open_cohort(raw.parent / "fast")
    assert one.image_table.equals(other.image_table)
    assert 0 < np.abs(one.images.astype(int) - other.images).mean() < 1
