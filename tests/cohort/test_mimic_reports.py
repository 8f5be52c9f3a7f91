import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medst.cohort import mimic_reports
from medst.cohort.crew import Crew
from medst.cohort.mimic_reports import find_reports, read_reports
from medst.errors import MedstError

ALONE = Crew(workers=1)
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


def test_missing_reports_say_what_they_are_and_where_they_come_from(split_up: Path) -> None:
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
    assert read_reports(raw, studies, Crew(workers=2)).equals(whole)


def test_a_folder_in_the_place_of_a_report_is_named(split_up: Path) -> None:
    (split_up / "files/p10/p10000001/s50000001.txt").mkdir()
    table = read_reports(split_up, STUDIES, ALONE)
    assert table.select("report", "reason").row(0) == (None, "a folder, not a file")
