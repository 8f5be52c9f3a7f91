import csv
import errno
import gzip
import json
import os
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from medst.errors import MedstError
from medst_phantom import mimic, mimic_files
from medst_phantom.findings import FINDINGS
from medst_phantom.mimic import write_phantom
from medst_phantom.mimic_files import CHEXPERT_COLUMNS, METADATA_COLUMNS, SPLIT_COLUMNS
from medst_phantom.ms_cxr_t import APART_FILE, IMAGE_COLUMNS, IMAGE_FILE, SENTENCE_COLUMNS, SENTENCE_FILE

PATIENTS = 4


def tree(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def table(out: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(out / "mimic-cxr-jpg" / f"mimic-cxr-2.0.0-{name}.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, dict]:
    """A small cohort with rendered images."""
    out = tmp_path_factory.mktemp("phantom") / "out"
    return out, write_phantom(out, patients=PATIENTS, seed=3, workers=1, test_share=0.5, valid_share=0.25)


@pytest.fixture
def quick(monkeypatch) -> None:
    """Flat images, for tests that do not depend on them."""

    def flat(anatomy, findings, acquisitions, devices):
        return [np.full((40, 48), 100 + 10 * len(findings), np.uint8) for _ in acquisitions]

    monkeypatch.setattr(mimic, "render_study", flat)


def test_the_number_of_workers_makes_no_difference(drawn, tmp_path):
    write_phantom(tmp_path / "two", patients=PATIENTS, seed=3, workers=2, test_share=0.5, valid_share=0.25)
    assert tree(tmp_path / "two") == tree(drawn[0])


def test_the_tree_is_that_of_the_originals(drawn):
    out, counts = drawn
    metadata, splits, chexpert = (table(out, name) for name in ("metadata", "split", "chexpert"))
    assert tuple(metadata[0]) == METADATA_COLUMNS
    assert tuple(splits[0]) == SPLIT_COLUMNS
    assert tuple(chexpert[0]) == CHEXPERT_COLUMNS
    assert [row["dicom_id"] for row in metadata] == [row["dicom_id"] for row in splits]
    assert counts["studies"] == len(chexpert) == len({row["study_id"] for row in metadata})
    images = counts["frontal_images"] + counts["lateral_images"] + counts["other_images"]
    assert images == len(metadata) == len({row["dicom_id"] for row in metadata})
    found = {str(path.relative_to(out / "mimic-cxr-jpg")) for path in (out / "mimic-cxr-jpg" / "files").rglob("*.*")}
    expected = set()
    for row in metadata:
        subject, study = row["subject_id"], row["study_id"]
        assert len(subject) == len(study) == 8
        assert (subject[0], study[0]) == ("1", "5")
        assert row["StudyTime"] == f"{float(row['StudyTime']):.3f}"
        folder = f"files/p{subject[:2]}/p{subject}/s{study}"
        expected |= {f"{folder}/{row['dicom_id']}.jpg", f"{folder}.txt"}
        pixels = cv2.imread(str(out / "mimic-cxr-jpg" / folder / f"{row['dicom_id']}.jpg"), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (int(row["Rows"]), int(row["Columns"]))
        assert pixels.std() > 10
    assert found == expected
    assert not list(out.rglob("*.part"))
    assert not (out / ".parts").exists()
    assert json.loads((out / "phantom.json").read_text())["counts"] == counts


def test_labels_of_pairs_follow_the_ground_truth(drawn):
    out, counts = drawn
    truth = pl.read_parquet(out / "ground_truth.parquet")
    assert truth.schema == mimic._TRUTH_SCHEMA
    assert len(truth) == counts["findings"]
    assert set(truth["progression"].drop_nulls()) <= {"new", "improving", "stable", "worsening", "resolved"}
    steps = {(row["study_id"], row["finding"]): row for row in truth.to_dicts()}
    frontal = {row["dicom_id"] for row in table(out, "metadata") if row["ViewPosition"] in ("PA", "AP")}
    merged = {"new": "worsening", "resolved": "improving"}
    labelled = 0
    with (out / "ms-cxr-t" / APART_FILE).open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert pairs
    assert tuple(pairs[0]) == IMAGE_COLUMNS
    for row in pairs:
        assert {row["dicom_id"], row["previous_dicom_id"]} <= frontal
        for column in IMAGE_COLUMNS[5:]:
            step = steps.get((row["study_id"], column.removesuffix("_progression")), {"progression": None})
            assert row[column] == merged.get(step["progression"], "")
            labelled += bool(row[column])
    tested = truth.filter(pl.col("split") == "test")
    expected = tested.filter(pl.col("progression").is_in(["new", "resolved"]), pl.col("finding").is_in(FINDINGS))
    assert labelled == expected.height == counts["new_and_resolved"]
    assert {row["subject_id"] for row in pairs} <= set(tested["patient_id"])
    with (out / "ms-cxr-t" / IMAGE_FILE).open(newline="") as file:
        assert tuple(next(csv.reader(file))) == IMAGE_COLUMNS
    with (out / "ms-cxr-t" / SENTENCE_FILE).open(newline="") as file:
        assert tuple(next(csv.reader(file))) == SENTENCE_COLUMNS


def test_splits_are_by_patient_and_exact(quick, tmp_path):
    counts = write_phantom(tmp_path / "out", patients=30, workers=1)
    assert (counts["test_patients"], counts["validate_patients"], counts["train_patients"]) == (6, 3, 21)
    by_patient: dict[str, set] = {}
    for row in table(tmp_path / "out", "split"):
        by_patient.setdefault(row["subject_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_patient.values())
    subjects = [row["subject_id"] for row in table(tmp_path / "out", "metadata")]
    assert subjects == sorted(subjects)


def test_no_two_studies_at_the_same_minute_and_few_odd_views(quick, tmp_path):
    write_phantom(tmp_path / "out", patients=150, workers=1)
    rows = table(tmp_path / "out", "metadata")
    times = {row["study_id"]: (row["subject_id"], row["StudyDate"], row["StudyTime"].zfill(10)[:4]) for row in rows}
    assert len(set(times.values())) == len(times)
    odd = [row for row in rows if row["ViewPosition"] not in ("PA", "AP", "LATERAL", "LL")]
    assert 0 < len(odd) < 0.03 * len(rows)
    views = [row["ViewPosition"] for row in rows if row["study_id"] == rows[0]["study_id"]]
    assert {"PA", "AP"} & set(views)
    firsts = {row["study_id"]: row["ViewPosition"] for row in reversed(rows)}
    assert any(view in ("LATERAL", "LL") for view in firsts.values())


def test_an_interrupted_run_resumes_to_the_same_bytes(quick, tmp_path):
    write_phantom(tmp_path / "whole", patients=12, workers=1)

    def interrupt(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        write_phantom(out, patients=12, workers=1, progress=interrupt)
    parts = sorted((out / ".parts").glob("0*.json"))
    assert 5 <= len(parts) < 12
    # A kill may come while a patient is written: some files are there, one is half written, the record is not.
    record = mimic_files.PatientRecord.from_json(parts[1].read_bytes())
    report = next(out.rglob(f"s{record.studies[-1].study_id}.txt"))
    report.with_name(f"{report.name}.7.part").write_bytes(b"half")
    report.unlink()
    parts[1].write_bytes(b"")
    reports: list[tuple[int, int]] = []
    write_phantom(out, patients=12, workers=1, progress=lambda done, total: reports.append((done, total)))
    assert tree(out) == tree(tmp_path / "whole")
    assert reports[0] == (len(parts) - 1, 12)
    assert reports[-1] == (12, 12)


def test_only_patients_without_a_record_are_redone(quick, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as broken:
        broken.setattr(mimic, "_finish", lambda out, options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_phantom(out, patients=6, workers=1)
    (out / ".parts" / "0000002.json").unlink()
    redone: list[int] = []
    once = mimic._write_patient
    monkeypatch.setattr(mimic, "_write_patient", lambda *args: redone.append(args[2]) or once(*args))
    write_phantom(out, patients=6, workers=1)
    assert redone == [2]
    write_phantom(tmp_path / "whole", patients=6, workers=1)
    assert tree(out) == tree(tmp_path / "whole")


def test_a_complete_cohort_is_left_alone(drawn):
    out, counts = drawn
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = write_phantom(out, patients=PATIENTS, seed=3, workers=1, test_share=0.5, valid_share=0.25)
    assert again == counts
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_options_are_refused_and_named(drawn):
    with pytest.raises(MedstError, match=r"seed 3 there and 4 here"):
        write_phantom(drawn[0], patients=PATIENTS, seed=4, workers=1, test_share=0.5, valid_share=0.25)


def test_a_begun_cohort_refuses_other_options(quick, tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path, patients=3, workers=1, progress=interrupt)
    with pytest.raises(MedstError, match=r"patients 3 there and 5 here"):
        write_phantom(tmp_path, patients=5, workers=1)


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(MedstError, match="not empty"):
        write_phantom(tmp_path, patients=2, workers=1)
    with pytest.raises(MedstError, match="is a file"):
        write_phantom(tmp_path / "thesis.txt", patients=2, workers=1)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["thesis.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"patients": 0}, {"seed": -1}, {"workers": -1}, {"test_share": 0.8, "valid_share": 0.3}, {"test_share": -0.1}],
)
def test_impossible_options_are_refused(tmp_path, wrong):
    with pytest.raises(MedstError):
        write_phantom(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_sentence_and_can_be_resumed(quick, tmp_path, monkeypatch):
    written = 0
    real = os.replace

    def full(source, target):
        nonlocal written
        written += 1
        if written > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        with pytest.raises(MedstError, match="disk is full"):
            write_phantom(tmp_path / "out", patients=8, workers=1)
    write_phantom(tmp_path / "out", patients=8, workers=1)
    write_phantom(tmp_path / "whole", patients=8, workers=1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_damaged_record_of_the_run_is_named(tmp_path):
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(MedstError, match=r"phantom\.json is damaged"):
        write_phantom(tmp_path, patients=2, workers=1)
