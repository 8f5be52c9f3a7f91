from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import guarded
from tests.cohort.conftest import jpeg, picture

from medst.cli import main
from medst.cohort import raw_tables
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.store import Cohort, open_cohort
from medst.cohort.table import pair_text, read_time
from medst.errors import MedstError
from medst.pages.cohort_summary import summarise

Row = dict[str, Any]
Rejections = Callable[[Path], list[tuple[str, str, str]]]


class Hospital:
    """A table and its images."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, []  # type: tuple[Path, list[Row]]
        (folder / "images").mkdir()

    def image(self, name: str) -> str:
        (self.folder / "images" / name).write_bytes(jpeg(picture(len(name) * 1000 + sum(name.encode()))))
        return f"images/{name}"

    def add(self, patient: str = "a", study: str = "1", **fields: Any) -> None:
        n = len(self.rows)
        row = {"patient": patient, "study": study, "time": f"2150-01-{n + 1:02d}", "frontal": self.image(f"f{n}.jpg")}
        self.rows.append(row | {"report": f"The heart is of size {n} now."} | fields)

    def write(self, name: str = "table.csv") -> Path:
        table = pl.DataFrame(self.rows, infer_schema_length=None)
        if name.endswith("csv"):
            (self.folder / name).write_bytes(b"\xef\xbb\xbf" + table.write_csv().encode())
        else:
            table.write_parquet(self.folder / name)
        return self.folder / name

    def cohort(self, name: str = "table.csv", options: Options | None = None, max_rejected: float = 1.0) -> Cohort:
        path = self.folder / f"cohort-{name}"
        prepare("table", self.write(name), path, options, workers=1, max_rejected=max_rejected)
        return open_cohort(path)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_table_becomes_pairs(hospital: Hospital, name: str) -> None:
    lateral = hospital.image("side.jpg")
    hospital.add(study="1", lateral=lateral, split="train", Edema="1.0")
    hospital.add(study="2", lateral=None, split="train", Edema=None)
    hospital.add("b", study="3", lateral=None, split="val", Edema="-1.0")
    cohort = hospital.cohort(name, max_rejected=0)
    assert cohort.pairs is not None
    ids = cohort.image_table["image_id"].to_list()
    rows = cohort.pairs.select("patient_id", "study_id", "time", "split", "report").rows()
    assert rows == [
        ("a", "1", datetime(2150, 1, 1), "train", "the heart is of size 0 now"),
        ("a", "2", datetime(2150, 1, 2), "train", "the heart is of size 1 now"),
        ("b", "3", datetime(2150, 1, 3), "valid", "the heart is of size 2 now"),
    ]
    assert [ids[row] for row in cohort.pairs["frontal"]] == ["images/f0.jpg", "images/f1.jpg", "images/f2.jpg"]
    assert [None if row is None else ids[row] for row in cohort.pairs["lateral"]] == [lateral, None, None]
    assert [row["Edema"] for row in cohort.pairs["labels"]] == [1.0, None, -1.0]
    assert cohort.meta["time"] == "timestamps"
    assert cohort.meta["counts"]["laterals"] == 1


def test_two_frontals_of_a_study_share_lateral_and_report(hospital: Hospital) -> None:
    lateral = hospital.image("side.jpg")
    hospital.add(lateral=lateral)
    hospital.add(report=None, lateral=None)
    cohort = hospital.cohort()
    assert cohort.pairs is not None
    assert cohort.pairs["lateral"].to_list() == [cohort.pairs["lateral"][0]] * 2
    assert cohort.pairs["report"].n_unique() == 1
    assert (
        cohort.pairs.schema["labels"]
        == pl.read_parquet(hospital.folder / "cohort-table.csv" / "pairs.parquet").schema["labels"]
    )


def test_numbers_order_studies_and_are_not_times(hospital: Hospital) -> None:
    for study, place in (("1", "10"), ("2", "9")):
        hospital.add(study=study, time=place)
    cohort = hospital.cohort()
    assert cohort.pairs is not None
    assert cohort.pairs["study_id"].to_list() == ["2", "1"]
    assert cohort.meta["time"] == "order"
    assert "same_minute_studies" not in cohort.meta["counts"]


TIMES = [
    ("2150-03-04", datetime(2150, 3, 4)),
    ("21500304", datetime(2150, 3, 4)),
    ("2150-03-04 05:06", datetime(2150, 3, 4, 5, 6)),
    ("2150-03-04T05:06:07", datetime(2150, 3, 4, 5, 6, 7)),
    ("2150-03-04 05:06:07.25", datetime(2150, 3, 4, 5, 6, 7, 250000)),
    ("2150-03-04T05:06:07Z", datetime(2150, 3, 4, 5, 6, 7)),
    ("yesterday", None),
    ("2150-13-01", None),
]


def test_times_as_people_write_them() -> None:
    found = read_time(pl.DataFrame({"time": [text for text, _ in TIMES]}))
    assert found.to_list() == [time for _, time in TIMES]


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))
def test_any_iso_time_is_read(time: datetime) -> None:
    assert read_time(pl.DataFrame({"time": [time.isoformat()]})).to_list() == [time]
    assert read_time(pl.DataFrame({"time": [str(time)]})).to_list() == [time]


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("The lungs are clear. No change.", "the lungs are clear no change"),
        ("FINDINGS: The lungs are clear.\nIMPRESSION: No change.", "no change the lungs are clear"),
        ("HISTORY: Cough.\r\nIMPRESSION:\r\nNo change at all.", "no change at all"),
        ("Clear.", None),
        ("", None),
    ],
)
def test_reports_with_and_without_headers(report: str, text: str | None) -> None:
    assert pair_text(report, "", "", False)[0] == text


def test_columns_of_sections_are_preferred_to_the_report(hospital: Hospital) -> None:
    hospital.rows.append(
        {"patient": "a", "study": "1", "time": "21500101", "frontal": hospital.image("x.jpg")}
        | {"findings": "The lungs are clear.", "impression": "No change."}
    )
    pairs = hospital.cohort().pairs
    assert pairs is not None
    assert pairs["report"].to_list() == ["no change the lungs are clear"]


def test_rows_that_contradict_are_named(hospital: Hospital, rejections: Rejections) -> None:
    for study in ("1", "2", "3", "4", "5", "6", "7"):
        hospital.add(study=study)
    first, again, stranger, late, other, nobody, blind = hospital.rows
    again["frontal"] = first["frontal"]
    stranger |= {"study": "1", "patient": "b"}
    late["time"] = "noon"
    other |= {"study": "1", "report": "Something else is said."}
    nobody["patient"] = " "
    blind["frontal"] = None
    cohort = hospital.cohort()
    assert cohort.pairs is not None
    assert cohort.pairs["study_id"].to_list() == ["1"]
    assert [row[2] for row in rejections(cohort.path)] == [
        "no patient or no study",
        "no frontal image",
        "time is neither ISO 8601, yyyymmdd nor a whole number",
        "frontal image of an earlier row, which counts",
        "its study belongs to another patient in an earlier row",
        "its study has another report in an earlier row",
    ]
    assert cohort.meta["counts"]["rejected_rows"] == 6
    with pytest.raises(MedstError, match="6 of 7 rows were left out"):
        hospital.cohort(max_rejected=0.5)


def test_a_missing_picture_is_named(hospital: Hospital, rejections: Rejections) -> None:
    hospital.add(study="1")
    hospital.add(study="2", frontal="images/gone.jpg", lateral="images/also.jpg")
    hospital.add(study="3", lateral="images/f2.jpg")
    cohort = hospital.cohort()
    assert rejections(cohort.path) == [
        ("row", "images/f2.jpg", "kept; both lateral and frontal, and used as frontal"),
        ("image", "images/gone.jpg", "no such file"),
        ("image", "images/also.jpg", "no such file"),
    ]
    assert cohort.meta["counts"]["rejected_rows"] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: [row.pop("time") for row in rows], "has no column time; it has patient, study, frontal, report"),
        (lambda rows: [row.pop("report") for row in rows], r"has no column report \(or findings and impression\)"),
        (lambda rows: rows[0].update(Edema="perhaps"), "'perhaps' is not a value of Edema"),
        (
            lambda rows: [row.update(split=n) for row, n in zip(rows, ("train", "test"), strict=True)],
            "for instance a; put all",
        ),
        (
            lambda rows: [row.update(report=None) for row in rows],
            "No study has both a frontal image in .* and a usable report",
        ),
        (lambda rows: [row.update(REPORT="x") for row in rows], "has the column report more than once"),
    ],
)
def test_a_file_that_is_not_such_a_table_is_refused(
    hospital: Hospital, change: Callable[[list[Row]], Any], sentence: str
) -> None:
    hospital.add(study="1")
    hospital.add(study="2")
    change(hospital.rows)
    with pytest.raises(MedstError, match=sentence):
        hospital.cohort()


def test_folders_missing_files_and_rubbish_are_refused(hospital: Hospital) -> None:
    for name, sentence in (
        (".", "is a folder; give the CSV"),
        ("x.csv", "no such file"),
        ("x.parquet", "no such file"),
    ):
        with pytest.raises(MedstError, match=sentence):
            prepare("table", hospital.folder / name, hospital.folder / "cohort")
    (hospital.folder / "x.parquet").write_bytes(b"PAR0")
    with pytest.raises(MedstError, match="can't be read as a Parquet file"):
        prepare("table", hospital.folder / "x.parquet", hospital.folder / "cohort")


def test_images_may_lie_elsewhere(hospital: Hospital, tmp_path: Path) -> None:
    hospital.add()
    hospital.rows[0]["frontal"] = "f0.jpg"
    cohort = hospital.cohort(options=Options(images=hospital.folder / "images"), max_rejected=0)
    assert cohort.meta["counts"]["images"] == 1


def test_text_and_labels_come_from_any_row_of_a_study(hospital: Hospital, rejections: Rejections) -> None:
    """A study whose first row has neither keeps both rows and its text."""
    hospital.add(study="1", report=None, Edema=None, Pneumonia="1")
    hospital.add(study="1", report="The lungs are clear now.", Edema="-1", Pneumonia="0")
    hospital.add(study="1", report=" ", Edema=None, Pneumonia=None)
    cohort = hospital.cohort(max_rejected=0)
    assert cohort.pairs is not None
    assert cohort.pairs["report"].to_list() == ["the lungs are clear now"] * 3
    labels = cohort.pairs["labels"].to_list()
    assert [(row["Edema"], row["Pneumonia"]) for row in labels] == [(-1.0, 1.0)] * 3
    assert rejections(cohort.path) == [
        ("row", "1", "kept; an earlier row of its study has another Pneumonia, which counts")
    ]
    assert cohort.meta["rows"] == {"read": 3, "kept": 3, "left_out": 0}


def test_columns_that_are_not_used_are_named_and_labels_suggested(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    for study, nodule in (("1", "1"), ("2", ""), ("3", "-1.0")):
        hospital.add(
            study=study, Nodule=nodule, **{"Old scar": " 0"}, age=str(60 + int(study)), Laterl="x.jpg", empty=""
        )
    arguments = ["prepare", "table", str(hospital.write()), str(hospital.folder / "cohort")]
    for _ in range(2):  # the second time the cohort is there
        main(arguments)
        said = capsys.readouterr().out
        assert "Rows: 3 read, 3 kept, 0 left out" in said
        assert "Unused columns: Nodule, Old scar, age, Laterl, empty\n" in said
        assert "--labels Nodule 'Old scar'\n" in said
    arguments[3] += "-2"
    main([*arguments, "--labels", "nodule", "Old scar", "Nodule", "edema"])
    assert "Unused columns: age, Laterl, empty\n" in capsys.readouterr().out
    pairs = open_cohort(hospital.folder / "cohort-2").pairs
    assert pairs is not None
    assert [(row["nodule"], row["Old scar"]) for row in pairs["labels"]] == [(1.0, 0.0), (None, 0.0), (-1.0, 0.0)]
    found = summarise(open_cohort(hospital.folder / "cohort-2"))["labels"]
    assert sum(row["present"] for row in found if row["label"] == "nodule") == 1


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (("Nodul",), "has no column Nodul"),
        (("age",), "'61' is not a value of age"),
        (("Split",), "--labels Split: a label cannot have the name of another column"),
        (("patient_id",), "--labels patient_id: a label cannot"),
        (("Path",), "--labels Path: a label cannot"),
    ],
)
def test_columns_that_are_not_labels_are_refused(hospital: Hospital, labels: tuple[str, ...], sentence: str) -> None:
    hospital.add(age="61", split="train")
    with pytest.raises(MedstError, match=sentence):
        hospital.cohort(options=Options(labels=labels))


@pytest.mark.parametrize(
    ("separator", "encoding", "end"),
    [
        (";", "utf-8", "\r\n"),
        ("\t", "utf-16", "\n"),
        ("|", "utf-8-sig", "\r"),
        (",", "utf-8", "\r\n"),
    ],
)
def test_separators_encodings_and_line_ends_change_nothing(
    hospital: Hospital, separator: str, encoding: str, end: str
) -> None:
    images = [hospital.image(f"f{n}.jpg") for n in range(2)]
    text = 'Größe 5" ' + separator + " klar."
    rows = [
        ["Patient", " STUDY", "time", "Frontal", "Report", "Pleural effusion"],
        ["00123", "007", "2150-01-01", images[0], '"' + text.replace('"', '""') + end + 'Zweite; Zeile, hier."', "1"],
        ["00123", "7", "2150-01-02", images[1], 'Kein 5" Befund heute.', ""],
    ]
    path = hospital.folder / "table.csv"
    path.write_bytes((end.join(separator.join(row) for row in rows) + end).encode(encoding))
    prepare("table", path, hospital.folder / "cohort", Options(text="whole"), workers=1, max_rejected=0)
    pairs = open_cohort(hospital.folder / "cohort").pairs
    assert pairs is not None
    assert pairs.select("patient_id", "study_id", "report").rows() == [
        ("00123", "007", "größe 5 klar zweite zeile hier"),
        ("00123", "7", "kein 5 befund heute"),
    ]
    assert pairs["labels"][0]["Pleural Effusion"] == 1.0


def test_a_separator_that_is_given_is_not_sniffed(hospital: Hospital) -> None:
    hospital.add()
    with pytest.raises(MedstError, match="has no column patient, study, time, frontal"):
        hospital.cohort(options=Options(separator="tab"))
    with pytest.raises(MedstError, match=r"--separator does nothing for .*table.parquet"):
        hospital.cohort("table.parquet", Options(separator="tab"))


def test_a_table_in_latin_1_is_refused_with_a_remedy(hospital: Hospital) -> None:
    hospital.add(report="Größe")
    path = hospital.write()
    path.write_bytes(path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode().encode("latin-1"))
    with pytest.raises(
        MedstError,
        match=r"table.csv can't be read as a CSV file \(not UTF-8 text: byte 0xf6 in line 2\); save it as CSV",
    ):
        prepare("table", path, hospital.folder / "cohort")


def test_blank_rows_are_counted_and_left_out(hospital: Hospital, rejections: Rejections) -> None:
    hospital.add()
    path = hospital.write()
    path.write_bytes(path.read_bytes() + b"\n,,,,\n , ,,,\n")
    meta = prepare("table", path, hospital.folder / "cohort", workers=1, max_rejected=0)
    assert meta["rows"] == {"read": 4, "kept": 1, "left_out": 3}
    lines = pl.read_csv(hospital.folder / "cohort" / "rejected.csv", infer_schema=False)
    assert lines.select("kind", "reason", "rows").rows() == [("unused", "the row is blank", n) for n in "234"]


@pytest.mark.parametrize(
    ("form", "times", "expected"),
    [
        ("%d/%m/%Y", ["04/09/2023", "4/9/2023 05:06"], [datetime(2023, 9, 4), datetime(2023, 9, 4, 5, 6)]),
        ("%m/%d/%Y", ["04/09/2023", "12/31/2023"], [datetime(2023, 4, 9), datetime(2023, 12, 31)]),
        ("%d.%m.%y", ["04.09.23", "2023-09-04"], [datetime(2023, 9, 4), None]),
        (
            "%d-%m-%Y",
            ["04-09-2023", "04-09-2023T05:06:07+02:00"],
            [datetime(2023, 9, 4), datetime(2023, 9, 4, 5, 6, 7)],
        ),
        ("%d %b %Y", ["4 OCT 2023", "4 Oct 2023 05:06"], [datetime(2023, 10, 4), datetime(2023, 10, 4, 5, 6)]),
        ("%d/%m/%Y %H:%M", ["04/09/2023 05:06", "04/09/2023"], [datetime(2023, 9, 4, 5, 6), None]),
        ("%Y%m", ["202309", "202301"], [datetime(2023, 9, 1), datetime(2023, 1, 1)]),
    ],
)
def test_dates_in_other_forms(form: str, times: list[str], expected: list[datetime | None]) -> None:
    assert read_time(pl.DataFrame({"time": times}), form).to_list() == expected


def test_an_ambiguous_date_is_refused(hospital: Hospital, rejections: Rejections) -> None:
    for study, time in (("1", "04/09/2023"), ("2", "05/09/2023"), ("3", "31/13/2023")):
        hospital.add(study=study, time=time)
    with pytest.raises(MedstError, match=r"'04/09/2023' can be read in two ways; say which with --date-format"):
        hospital.cohort()
    cohort = hospital.cohort(options=Options(date_format="%d/%m/%Y"))
    assert cohort.pairs is not None
    assert cohort.pairs["time"].to_list() == [datetime(2023, 9, 4), datetime(2023, 9, 5)]
    assert rejections(cohort.path) == [("row", "images/f2.jpg", "time is not of the form %d/%m/%Y")]


@pytest.mark.parametrize("form", ["dd/mm/yyyy", "%d/%m", "%Y", "%H:%M", "%", "%Q", ""])
def test_a_date_format_without_a_day_is_refused(hospital: Hospital, form: str) -> None:
    hospital.add()
    with pytest.raises(MedstError, match=r"--date-format .*does not give a day; write it like %d/%m/%Y"):
        hospital.cohort(options=Options(date_format=form))


def test_lists_in_a_parquet_column_are_refused_by_name_where_they_are_used(hospital: Hospital) -> None:
    hospital.add()
    table = pl.DataFrame(hospital.rows).with_columns(tags=pl.lit([1, 2], dtype=pl.List(pl.Int64)), raw=pl.lit(b"x"))
    path = hospital.folder / "table.parquet"
    table.write_parquet(path)
    meta = prepare("table", path, hospital.folder / "cohort", workers=1, max_rejected=0)
    assert meta["columns"] == {"unused": ["tags", "raw"], "like_labels": []}
    for odd, kind in ((pl.struct("report"), "Struct"), (pl.concat_list("report"), "List"), (pl.lit(b"x"), "Binary")):
        table.with_columns(report=odd).write_parquet(path)
        with pytest.raises(MedstError, match=rf"table.parquet: column report holds {kind}.*, not texts or numbers"):
            prepare("table", path, hospital.folder / "another")


def test_a_parquet_file_that_aborts_polars_is_one_sentence(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some damage makes polars request exabytes, which ends the process."""
    hospital.add()
    path = hospital.write("table.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(raw_tables, "parquet_rows", guarded.abort)
        with pytest.raises(MedstError, match=r"table.parquet can't be read as a Parquet file \(its decoder crashed"):
            prepare("table", path, hospital.folder / "cohort")
    monkeypatch.setattr(raw_tables, "MOST_ROWS", 0)
    with pytest.raises(MedstError, match="has 1 rows; at most 0 are read"):
        raw_tables.parquet_rows(path)


def test_a_lateral_that_two_studies_share_is_named(hospital: Hospital, rejections: Rejections) -> None:
    side = hospital.image("side.jpg")
    for study in "12":
        hospital.add(study=study, lateral=side)
    cohort = hospital.cohort()
    reason = "kept without its lateral image, which another study has in an earlier row"
    assert rejections(cohort.path) == [("row", side, reason)]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_a_report_above_the_limit_is_left_out_by_name_and_a_long_one_is_not(
    hospital: Hospital, rejections: Rejections, name: str
) -> None:
    hospital.add(study="1", report="The lungs are clear. " * 45_000)
    hospital.add(study="2", report="The lungs are clear. " * 50_000)
    cohort = hospital.cohort(name)
    assert cohort.meta["counts"]["pairs"] == 1
    assert rejections(cohort.path) == [("report", "2", "larger than the 1 MB that are read")]


def test_an_id_that_is_not_a_number_is_blank(hospital: Hospital, rejections: Rejections) -> None:
    hospital.add(study="1")
    hospital.add(study="2")
    path = hospital.folder / "table.parquet"
    studies = pl.Series("study", [1.0, float("nan")])
    pl.DataFrame(hospital.rows).with_columns(studies, Edema=pl.lit(float("nan"))).write_parquet(path)
    prepare("table", path, hospital.folder / "cohort", workers=1, max_rejected=1)
    assert rejections(hospital.folder / "cohort") == [("row", "images/f1.jpg", "no patient or no study")]


def test_letters_that_the_released_cleaning_drops_are_counted(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    hospital.add(study="1", report="Das Herz ist größer als 3,5 cm.")
    hospital.add(study="2", report="The temperature is 37° and nothing is lost.")
    hospital.add(study="3", report="HISTORY: Müller.\nIMPRESSION: Nothing is lost.")
    arguments = ["prepare", "table", str(hospital.write()), str(hospital.folder / "cohort")]
    main(arguments)
    assert "1 of 3 reports lose letters: the released cleaning" in capsys.readouterr().out
    arguments[3] += "-whole"
    main([*arguments, "--text", "whole"])
    assert "lose letters" not in capsys.readouterr().out
    assert "reports_losing_letters" not in open_cohort(hospital.folder / "cohort-whole").meta["counts"]


@pytest.mark.parametrize(
    ("time", "forms"),
    [
        ("04.09.2023", "%d.%m.%Y if the day comes first or %m.%d.%Y"),
        ("4-9-23 05:06", "%d-%m-%y if the day comes first or %m-%d-%y"),
        ("4 9 2023", "'%d %m %Y' if the day comes first or '%m %d %Y'"),
    ],
)
def test_a_form_is_suggested_in_the_separators_of_the_date(hospital: Hospital, time: str, forms: str) -> None:
    hospital.add(time=time)
    with pytest.raises(MedstError, match=forms):
        hospital.cohort()


@pytest.mark.parametrize(("form", "wrong"), [(None, "neither ISO 8601"), ("%d.%m.%Y", "not of the form %d.%m.%Y")])
def test_a_table_without_a_readable_time_is_refused(hospital: Hospital, form: str | None, wrong: str) -> None:
    hospital.add(study="1", time="Sept 4th")
    hospital.add(study="2", time=None)
    with pytest.raises(MedstError, match=f"no time can be read; the first, 'Sept 4th', is {wrong}"):
        hospital.cohort(options=Options(date_format=form))


def test_the_command_reports_remarks_about_the_cohort(hospital: Hospital, capsys: pytest.CaptureFixture[str]) -> None:
    hospital.add(time="1", split="test")
    main(["prepare", "table", str(hospital.write()), str(hospital.folder / "cohort")])
    said = capsys.readouterr().out
    for words in ("they give the order of each patient's studies", "No training pairs", "No validation pairs"):
        assert words in said
    hospital.rows[0] |= {"time": "2150-01-01", "split": "train"}
    hospital.add("b", study="2", split="valid")
    main(["prepare", "table", str(hospital.write("other.csv")), str(hospital.folder / "other")])
    said = capsys.readouterr().out
    assert not any(words in said for words in ("give the order", "No training", "No validation"))
