"""No row is lost silently: each row of a table is in the cohort, or in rejected.csv with a reason, never both."""

import csv
import tempfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cohort.conftest import jpeg, picture
from tests.cohort.dicoms import dicom, ramp

from medst.cohort.chexpert_plus import COLUMNS, TABLE
from medst.cohort.mimic_cxr import CHEXPERT, LABELS, METADATA, METADATA_COLUMNS, SPLIT
from medst.cohort.ms_cxr_t import FINDINGS, IMAGE_FILE, SENTENCE_FILE
from medst.cohort.options import Options
from medst.cohort.prepare import prepare
from medst.cohort.rejections import Rejections
from medst.cohort.store import Cohort, open_cohort
from medst.errors import MedstError

Rows = dict[str, str | None]
"""Number of every row -> id of the image that it brings, if it has one."""
Draw = Callable[[st.SearchStrategy[Any]], Any]
WHOLE, BROKEN, DICOM = jpeg(picture(1)), b"not a picture", dicom(ramp(side=20))
TEXT = "The lungs are clear."


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def write_table(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    text = StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def some(draw: Draw, usual: dict[str, str], most: int = 7, **values: str) -> list[dict[str, str]]:
    """A complete row and some with random cells; in `values` each word is a cell, and `_` a blank one."""
    cells = {
        name: st.sampled_from([word.strip("_").replace("+", " ") for word in words.split()])
        for name, words in values.items()
    }
    return [usual, *(usual | row for row in draw(st.lists(st.fixed_dictionaries(cells), max_size=most)))]


def mimic_cxr(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    usual = {"dicom_id": "d0", "subject_id": "10000001", "study_id": "50000001", "ViewPosition": "PA"}
    usual |= {"StudyDate": "21500101", "StudyTime": "120000.5"}
    rows = some(
        draw,
        usual,
        dicom_id="d1 d2 d3 d4 d5 broken gone _",
        subject_id="10000001 10000002 _",
        study_id="50000001 50000002 50000003 _",
        ViewPosition="PA AP LATERAL LL AXIAL _",
        StudyDate="21500101 21500102 2150 _",
        StudyTime="50571 120000.5 x _",
    )
    write_table(raw / METADATA.removesuffix(".gz"), METADATA_COLUMNS, rows)
    splits = some(draw, {"dicom_id": "d0", "split": "train"}, dicom_id="d1 d2 broken gone _", split="train test x _")
    write_table(raw / SPLIT.removesuffix(".gz"), ("dicom_id", "split"), splits)
    labels = some(draw, {"study_id": "50000001"}, 3, study_id="50000001 50000002 _", Edema="1.0 0.0 _")
    write_table(raw / CHEXPERT.removesuffix(".gz"), ("subject_id", "study_id", *LABELS), labels)
    for row in rows:
        folder = raw / f"files/p10/p{row['subject_id']}"
        study = folder / f"s{row['study_id']}"
        if row["dicom_id"] != "gone":
            write(study / f"{row['dicom_id']}.jpg", BROKEN if row["dicom_id"] == "broken" else WHOLE)
        if row["study_id"] != "50000003":
            write(folder / f"s{row['study_id']}.txt", f"\n FINDINGS: {TEXT}\n")
    frontal = draw(st.sampled_from(["all", "one-per-study"]))
    return Options(frontal=frontal), {str(i): row["dicom_id"] for i, row in enumerate(rows, 1)}


def ms_cxr_t(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    mimic_cxr(draw, raw / "images")
    usual = {"dicom_id": "d0", "previous_dicom_id": "d0", "subject_id": "10000001", "study_id": "50000001"}
    usual |= {"edema_progression": "stable"}
    ids = "d0 d1 broken gone _"
    values = {"dicom_id": ids, "previous_dicom_id": ids, "study_id": "50000001 _", "edema_progression": "stable _"}
    rows = some(draw, usual, **values)
    write_table(raw / IMAGE_FILE, (*usual, *(f"{name}_progression" for name in FINDINGS if name != "edema")), rows)
    write(raw / SENTENCE_FILE, "sentence_1,sentence_2,category,subset_name\nNo edema.,Edema.,contradiction,swaps\n")
    return Options(images=raw / "images"), {str(i): row["dicom_id"] for i, row in enumerate(rows, 1)}


def chexpert_plus(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    usual = {
        "path_to_image": "train/p1/s1/v0.jpg",
        "frontal_lateral": "Frontal",
        "ap_pa": "AP",
        "deid_patient_id": "p1",
    }
    usual |= {"patient_report_date_order": "1", "section_findings": TEXT, "split": "train"}
    rows = some(
        draw,
        usual,
        path_to_image="train/p1/s1/v1.jpg train/p1/s1/v2.jpg train/p1/s2/v1.jpg train/p2/s1/broken.jpg train/gone.jpg x _",
        frontal_lateral="Frontal Lateral Oblique _",
        deid_patient_id="p1 p2 _",
        patient_report_date_order="1 2 9999999999999 x _",
        section_findings=f"{TEXT.replace(' ', '+')} Nothing.+Else.+Said. _",
        split="train valid x _",
    )
    write_table(raw / TABLE, COLUMNS, rows)
    for row in rows:
        if "." in row["path_to_image"] and "gone" not in row["path_to_image"]:
            name = row["path_to_image"].replace(".jpg", ".png")
            write(raw / "PNG" / name, BROKEN if "broken" in name else WHOLE)
    return Options(), {str(i): row["path_to_image"].removesuffix(".jpg") for i, row in enumerate(rows, 1)}


def open_i(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    image = st.sampled_from(["1_IM-1-1", "2_IM-2-1", "2_IM-2-2", "3_IM-3-1", "9_IM-9-9", "x", ""])
    reports = [("1", ["1_IM-1-1"], TEXT)]
    reports += draw(
        st.lists(
            st.tuples(st.sampled_from("123"), st.lists(image, max_size=4), st.sampled_from([TEXT, ""])), max_size=4
        )
    )
    for number, (name, images, text) in enumerate(reports):
        parents = "".join(f'<parentImage id="{image}"/>' if image else "<parentImage/>" for image in images)
        abstract = f'<AbstractText Label="FINDINGS">{text}</AbstractText>'
        write(raw / f"{number}.xml", f'<e><uId id="CXR{name}"/>{abstract}{parents}</e>')
    for name in ("1_IM-1-1", "2_IM-2-1", "2_IM-2-2", "3_IM-3-1"):
        write(raw / f"{name}.png", BROKEN if name.startswith("3") else WHOLE)
    write(
        raw / "indiana_projections.csv", "filename,projection\n1_IM-1-1,Frontal\n2_IM-2-1,Frontal\n2_IM-2-2,Lateral\n"
    )
    named = [image for _, images, _ in reports for image in images]
    return Options(views=draw(st.sampled_from(["given", "order"]))), {str(i): name for i, name in enumerate(named, 1)}


def rsna(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    box = dict.fromkeys(("x", "y", "width", "height"), "1.0")
    rows = [{"patientId": f"whole{i}", "Target": "0"} for i in range(4)]
    rows += some(draw, {"patientId": "a", "Target": "1"} | box, patientId="a b broken gone _", Target="0 1", x="1.0 _")
    write_table(raw / "stage_2_train_labels.csv", ("patientId", *box, "Target"), rows)
    for row in rows:
        if row["patientId"] != "gone":
            write(
                raw / f"stage_2_train_images/{row['patientId']}.dcm", BROKEN if row["patientId"] == "broken" else DICOM
            )
    return Options(), {str(i): row["patientId"] for i, row in enumerate(rows, 1)}


def covidx(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    image = st.sampled_from(["a.png", "b c.png", "d.png", "broken.png", "gone.png"])
    line = st.tuples(
        st.sampled_from("12"), image, st.sampled_from(["normal", "COVID-19", "flu", "pneumonia rsna"])
    ).map(" ".join)
    found: Rows = {}
    for part, whole in (("train", [f"p{i} w{i}.png normal" for i in range(5)]), ("test", ["q t.png pneumonia"])):
        lines = whole + draw(st.lists(st.one_of(line, st.just("hello"), st.just("")), max_size=5))
        write(raw / f"{part}.txt", "\n".join(lines) + "\n")
        for number, text in enumerate((text for text in lines if text), 1):
            name = " ".join(word for word in text.split()[1:] if "." in word or word == "b")
            found[f"{part}:{number}"] = f"{part}/{name}"
            if name and "gone" not in name:
                write(raw / part / name, BROKEN if "broken" in name else WHOLE)
    return Options(split=draw(st.sampled_from(["released", "by-patient"]))), found


def table(draw: Draw, raw: Path) -> tuple[Options, Rows]:
    usual = {"patient": "a", "study": "1", "time": "2150-01-01", "frontal": "f0.jpg", "report": TEXT}
    rows = some(
        draw,
        usual,
        patient="a b _",
        study="1 2 3 _",
        time="2150-01-02 2150-01-02+05:05:71 noon _",
        frontal="f1.jpg f2.jpg f3.jpg f4.jpg broken.jpg gone.jpg _",
        lateral="l1.jpg f1.jpg broken.jpg _",
        report=f"{TEXT.replace(' ', '+')} Nothing+else+is+said. Short. _",
        Edema="1 0 -1 _",
    )
    blank = draw(st.sampled_from([[], [{}]]))
    write_table(raw / "table.csv", (*usual, "lateral", "Edema"), rows + blank)
    for row in rows:
        for name in (row["frontal"], row.get("lateral", "")):
            if name and "gone" not in name:
                write(raw / name, BROKEN if "broken" in name else WHOLE)
    return Options(), {str(i): row.get("frontal") for i, row in enumerate(rows + blank, 1)}


def left_out(cohort: Cohort) -> list[str]:
    """Numbers of the rows that rejected.csv names."""
    lines = pl.read_csv(cohort.path / "rejected.csv", infer_schema=False).fill_null("")
    assert (lines["reason"] != "").all()
    assert set(lines["kind"]) <= {"image", "report", "text", "row", "study", "unused"}
    gone = lines.filter(~pl.col("reason").str.starts_with("kept"))
    return [number for numbers in gone["rows"] for number in numbers.split()]


BUILD = pytest.mark.parametrize("build", [mimic_cxr, ms_cxr_t, chexpert_plus, open_i, rsna, covidx, table])


@BUILD
@given(st.data())
@settings(deadline=None, max_examples=12)
def test_rows_in_are_rows_kept_and_rows_rejected(build: Any, data: st.DataObject) -> None:
    account(build, data)


@pytest.mark.slow
@BUILD
@given(st.data())
@settings(deadline=None, max_examples=300)
def test_rows_in_are_rows_kept_and_rows_rejected_of_2100_trees(build: Any, data: st.DataObject) -> None:
    account(build, data)


def account(build: Any, data: st.DataObject) -> None:
    """Prepare the tree that `build` draws, and find every row once."""
    with tempfile.TemporaryDirectory() as folder:
        raw, path = Path(folder) / "raw", Path(folder) / "cohort"
        options, rows = build(data.draw, raw)
        name = build.__name__.replace("_", "-")
        given_path = raw / "table.csv" if name == "table" else raw
        meta = prepare(name, given_path, path, options, workers=1, max_rejected=1)
        cohort = open_cohort(path)
        gone = left_out(cohort)
        assert len(gone) == len(set(gone))
        assert set(gone) <= set(rows)
        assert meta["rows"] == {"read": len(rows), "kept": len(rows) - len(gone), "left_out": len(gone)}
        read = set(cohort.image_table.filter(status="ok")["image_id"])
        assert {rows[number] for number in rows.keys() - set(gone)} <= read
        kept = [rows[number] for number in rows.keys() - set(gone)]
        if name not in ("rsna", "ms-cxr-t"):  # where several rows bring one image
            assert len(kept) == len(set(kept))
            laterals = len(read - set(kept)) if name == "table" else 0
            assert len(kept) == len(read) - laterals


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"image_id": ["a", "b", "c"], "path": "x"} | columns)


def test_a_predicate_that_is_null_drops_no_row() -> None:
    rejections = Rejections()
    images = rejections.number_rows(frame(wrong=[True, None, False]))
    stay = rejections.reject_where(images, "row", (pl.col("wrong"), "wrong"))
    assert stay["image_id"].to_list() == ["b", "c"]
    assert rejections.lines()["id"].to_list() == ["a"]
    assert rejections.check_all_rows(stay["rows"]) == 1


def test_a_row_that_is_neither_kept_nor_named_stops_the_preparation() -> None:
    rejections = Rejections()
    images = rejections.number_rows(frame())
    with pytest.raises(MedstError, match=r"neither kept nor left out, or both \(2\); please report"):
        rejections.check_all_rows(images.filter(pl.col("image_id") != "b")["rows"])
    rejections.reject_where(images, "row", (pl.col("image_id") == "c", "no use"))
    with pytest.raises(MedstError, match=r"or both \(3\)"):
        rejections.check_all_rows(images["rows"])
