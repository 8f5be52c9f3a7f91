import gzip
import os
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medst.cohort import mimic_reports
from medst.cohort.mimic_reports import find_reports, read_reports
from medst.errors import MedstError
from medst.jobs import Workers

ALONE = Workers(workers=1)
STUDIES = pl.DataFrame({"patient_id": ["p10000001"], "study_id": ["s50000001"]})


@pytest.fixture
def split_up(tree: Any) -> Path:
    """A tree without its reports, which are in `unpacked` beside it."""
    study = tree.add(50000001)
    raw = tree.write()
    target = raw.parent / "unpacked" / study.report_path
    target.parent.mkdir(parents=True)
    shutil.move(raw / study.report_path, target)
    return raw


@pytest.mark.parametrize(
    "place",
    ["mimic-cxr-jpg", "mimic-cxr-reports", "mimic-cxr", "mimic-cxr-jpg/mimic-cxr-reports", "mimic-cxr-jpg/reports"],
)
def test_reports_are_found_where_people_unpack_them(split_up: Path, place: str) -> None:
    root = split_up.parent / place
    shutil.copytree(split_up.parent / "unpacked", root, dirs_exist_ok=True)
    assert find_reports(split_up, None, STUDIES) == root
    assert read_reports(root, STUDIES, ALONE)["report"].null_count() == 0


def test_a_given_folder_is_taken_with_or_without_files(split_up: Path) -> None:
    unpacked = split_up.parent / "unpacked"
    for given in (unpacked, unpacked / "files"):
        assert find_reports(split_up, given, STUDIES) == unpacked


def test_reports_beside_a_relative_folder_are_found(split_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (split_up.parent / "unpacked").rename(split_up.parent / "mimic-cxr-reports")
    monkeypatch.chdir(split_up)
    assert find_reports(Path("."), None, STUDIES) == split_up.parent / "mimic-cxr-reports"


def test_missing_reports_are_an_error_that_says_where_to_get_them(split_up: Path) -> None:
    with pytest.raises(MedstError) as caught:
        find_reports(split_up, None, STUDIES)
    said = str(caught.value)
    assert "files/p10/p10000001/s50000001.txt" in said
    assert "mimic-cxr-reports.zip of the MIMIC-CXR project on PhysioNet" in said
    assert "--reports" in said
    assert str(split_up) in said


def test_a_given_folder_without_reports_is_not_replaced_by_another(split_up: Path) -> None:
    (split_up.parent / "unpacked").rename(split_up.parent / "mimic-cxr-reports")
    with pytest.raises(MedstError, match=r"No report found .* below .*elsewhere"):
        find_reports(split_up, split_up.parent / "elsewhere", STUDIES)


def test_blocks_and_workers_change_no_text(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(raw.glob("files/p10/p*/s*.txt"))
    studies = pl.DataFrame({"patient_id": [p.parent.name for p in paths], "study_id": [p.stem for p in paths]})
    whole = read_reports(raw, studies, ALONE)
    assert whole["report"].n_unique() == len(paths) > 20
    monkeypatch.setattr(mimic_reports, "BLOCK", 7)
    assert read_reports(raw, studies, Workers(workers=2)).equals(whole)


def test_a_folder_in_the_place_of_a_report_is_named(split_up: Path) -> None:
    (split_up / "files/p10/p10000001/s50000001.txt").mkdir()
    table = read_reports(split_up, STUDIES, ALONE)
    assert table.select("report", "reason").row(0) == (None, "a folder, not a regular file")


@pytest.fixture
def zipped(split_up: Path) -> Path:
    """mimic-cxr-reports.zip beside the tree, with the folder inside that PhysioNet's has."""
    unpacked = split_up.parent / "unpacked"
    with zipfile.ZipFile(split_up.parent / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(unpacked.rglob("*.txt")):
            archive.write(path, f"mimic-cxr-reports/{path.relative_to(unpacked)}")
    shutil.rmtree(unpacked)
    return split_up.parent / "mimic-cxr-reports.zip"


TWO = pl.concat([STUDIES, STUDIES.with_columns(study_id=pl.lit("s50000002"))])


def test_the_zip_file_is_read_unopened(split_up: Path, zipped: Path) -> None:
    expected = "no change since ___ the heart is of size 50000001 the lungs are clear"
    assert find_reports(split_up, None, STUDIES) == zipped
    table = read_reports(find_reports(split_up, zipped, STUDIES), TWO, ALONE)
    assert table.select("report", "reason", "kind").rows() == [
        (expected, "", "text"), (None, "no report in the zip file", "report")
    ]  # fmt: skip
    inside = split_up / zipped.name
    zipped.rename(inside)
    assert find_reports(split_up, None, STUDIES) == inside


def test_a_damaged_zip_file_is_refused_and_a_damaged_member_is_named(split_up: Path, zipped: Path) -> None:
    whole = zipped.read_bytes()
    start = whole.index(b"s50000001.txt") + len(b"s50000001.txt") + 5
    zipped.write_bytes(whole[:start] + bytes(byte ^ 255 for byte in whole[start : start + 20]) + whole[start + 20 :])
    (row,) = read_reports(zipped, STUDIES, ALONE).select("report", "reason", "kind").rows()
    assert row[0] is None
    assert row[1].startswith("damaged in the zip file")
    assert row[2] == "report"
    zipped.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MedstError, match=r"mimic-cxr-reports.zip is not a complete zip file.*download it again"):
        read_reports(zipped, STUDIES, ALONE)


def test_no_more_of_a_member_is_inflated_than_a_report_may_have(split_up: Path, zipped: Path) -> None:
    member = "mimic-cxr-reports/files/p10/p10000001/s50000001.txt"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, b" " * 50_000_000)
    assert zipped.stat().st_size < 100_000
    lying = zipped.read_bytes().replace(struct.pack("<I", 50_000_000), struct.pack("<I", 500))
    for content, reason in ((zipped.read_bytes(), "larger than the 1 MB"), (lying, "damaged in the zip file")):
        zipped.write_bytes(content)
        (row,) = read_reports(zipped, STUDIES, ALONE).select("report", "reason", "kind").rows()
        assert row[0] is None
        assert row[1].startswith(reason)
        assert row[2] == "report"


def test_things_that_are_not_files_in_place_of_a_report_are_named(split_up: Path) -> None:
    report = split_up / "files/p10/p10000001/s50000001.txt"
    report.parent.mkdir(parents=True, exist_ok=True)
    for make, reason in (
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "can't be read (too many levels of symbolic links)"),
        (lambda path: path.write_bytes(b"x" * 1_000_001), "larger than the 1 MB that are read"),
    ):
        report.unlink(missing_ok=True)
        make(report)
        assert read_reports(split_up, STUDIES, ALONE).select("report", "reason").row(0) == (None, reason)


@pytest.mark.parametrize("name", ["mimic_cxr_sectioned.csv", "mimic_cxr_sectioned.csv.gz"])
def test_the_sectioned_table_gives_the_same_text(split_up: Path, name: str) -> None:
    impression, findings = "\n No change since ___.\n", "The heart is of size 50000001; the\n lungs are clear."
    table = pl.DataFrame(
        {
            "study": ["s50000001", "s50000003"],
            "impression": [impression, None],
            "findings": [findings, None],
            "last_paragraph": [None, "Stable chest since then."],
            "comparison": [None, None],
        }
    )
    content = table.write_csv().encode()
    (split_up.parent / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    place = find_reports(split_up, None, STUDIES)
    assert place.name == name
    studies = pl.concat([TWO, STUDIES.with_columns(study_id=pl.lit("s50000003"))])
    found = read_reports(place, studies, ALONE)
    assert found["report"].to_list() == [
        "no change since ___ the heart is of size 50000001 the lungs are clear", None, None
    ]  # fmt: skip
    assert found["reason"].to_list() == ["", f"not in {name}", "the report has neither findings nor an impression"]
    assert found["kind"].to_list() == ["text", "report", "text"]
    assert read_reports(place, studies, ALONE, whole=True)["report"][2] == "stable chest since then"


def test_a_study_of_several_rows_loses_no_section(split_up: Path) -> None:
    place = split_up.parent / "mimic_cxr_sectioned.csv"
    place.write_text(
        "study,impression,findings\ns50000001, ,\n50000001,,The lungs are clear.\ns50000001,No change.,Other.\n"
    )
    assert read_reports(place, STUDIES, ALONE)["report"].to_list() == ["no change the lungs are clear"]


def test_a_folder_is_preferred_to_a_zip_file_and_that_to_a_table(split_up: Path, zipped: Path) -> None:
    (split_up.parent / "mimic_cxr_sectioned.csv").write_text("study,impression,findings\n")
    assert find_reports(split_up, None, STUDIES) == zipped
    target = split_up / "files/p10/p10000001/s50000001.txt"
    target.write_text("x\n IMPRESSION:  No change at all.\n")
    assert find_reports(split_up, None, STUDIES) == split_up


def test_a_text_file_that_is_not_a_table_is_refused(split_up: Path) -> None:
    (split_up.parent / "mimic_cxr_sectioned.csv").write_text("study,text\ns50000001,hello\n")
    with pytest.raises(MedstError, match="has no column impression, findings"):
        read_reports(find_reports(split_up, None, STUDIES), STUDIES, ALONE)
