"""Write studies in the layout of MIMIC-CXR-JPG: folders, JPEG files, report files and three gzipped tables.

The tables are not collected in memory. Each patient leaves a small record, and the tables are written from the records at
the end, in one pass and in the patients' order.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from medst.files import atomic, write_bytes
from medst_phantom.reports import CHEXPERT_LABELS, Report
from medst_phantom.trajectory import StudyTruth

METADATA_COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
CHEXPERT_COLUMNS = ("subject_id", "study_id", *CHEXPERT_LABELS)
FRONTAL = ("PA", "AP")
LATERAL = ("LATERAL", "LL")

_JPEG_QUALITY = 90
_VIEW_CODES = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral", "LL": "left lateral"}


@dataclass(frozen=True)
class ImageRecord:
    """One row of the metadata table: dicom id, view position as recorded, size in pixels, orientation."""

    dicom_id: str
    view_position: str
    height: int
    width: int
    orientation: str


@dataclass(frozen=True)
class StudyRecord:
    """Everything that the tables hold about a study.

    Attributes:
        study_id: eight digits starting with 5.
        time: ISO 8601 with milliseconds.
        procedure: description of the examination.
        images: in the order of the metadata table.
        labels: the CheXpert row, by label.
        truth: one entry per present or just-resolved finding: finding, side, zone, severity, progression.
    """

    study_id: int
    time: str
    procedure: str
    images: tuple[ImageRecord, ...]
    labels: dict[str, float]
    truth: tuple[dict, ...]

    @property
    def when(self) -> datetime:
        return datetime.fromisoformat(self.time)

    @property
    def frontal(self) -> str:
        """The dicom id of the study's first frontal image."""
        return next(image.dicom_id for image in self.images if image.view_position in FRONTAL)


@dataclass(frozen=True)
class PatientRecord:
    """One patient's studies in time order."""

    subject_id: int
    studies: tuple[StudyRecord, ...]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "PatientRecord":
        raw = json.loads(data)
        studies = [
            StudyRecord(**{**study, "images": tuple(ImageRecord(**image) for image in study["images"])})
            for study in raw["studies"]
        ]
        return cls(raw["subject_id"], tuple(studies))


def write_study(
    root: Path,
    subject_id: int,
    study_id: int,
    study: StudyTruth,
    report: Report,
    images: list[tuple[str, np.ndarray]],
    rng: np.random.Generator,
) -> StudyRecord:
    """Write one study's JPEG files and report under `root`/files and return its record.

    Args:
        root: the mimic-cxr-jpg folder.
        images: (view position as recorded, uint8 array (height, width)), in the order they were taken.
        rng: draws the dicom ids; the study's rows are sorted by them, as in the original.

    Raises:
        OSError: a file cannot be written.
    """
    patient = root / "files" / f"p{subject_id // 1_000_000}" / f"p{subject_id}"
    folder = patient / f"s{study_id}"
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    upright = "Erect" if not study.portable else ("Recumbent" if rng.random() < 0.6 else "")
    for position, pixels in images:
        dicom_id = "-".join(rng.bytes(4).hex() for _ in range(5))
        _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        write_bytes(folder / f"{dicom_id}.jpg", jpeg.tobytes())
        height, width = pixels.shape
        records.append(ImageRecord(dicom_id, position, height, width, upright))
    write_bytes(patient / f"s{study_id}.txt", report.text.encode())
    lateral = any(position in LATERAL for position, _ in images)
    return StudyRecord(
        study_id=study_id,
        time=study.time.isoformat(timespec="milliseconds"),
        procedure="CHEST (PORTABLE AP)" if study.portable else f"CHEST ({'PA AND LAT' if lateral else 'SINGLE VIEW'})",
        images=tuple(sorted(records, key=lambda record: record.dicom_id)),
        labels=report.labels,
        truth=tuple(
            {
                "finding": state.finding.name,
                "side": state.finding.side,
                "zone": state.finding.zone,
                "severity": state.finding.severity,
                "progression": state.progression,
            }
            for state in study.findings
        ),
    )


def write_tables(root: Path, patients: Callable[[], Iterator[tuple[PatientRecord, str]]]) -> None:
    """Write the metadata, split and CheXpert tables from (patient, split) in patient order.

    Args:
        patients: starts a new pass over all patients; called once per table.
    """
    tables = (
        ("metadata", METADATA_COLUMNS, _metadata_rows),
        ("split", SPLIT_COLUMNS, _split_rows),
        ("chexpert", CHEXPERT_COLUMNS, _chexpert_rows),
    )
    for name, columns, rows in tables:
        lines = (row for patient, split in patients() for row in rows(patient, split))
        write_csv_gz(root / f"mimic-cxr-2.0.0-{name}.csv.gz", columns, lines)


def write_csv_gz(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a gzipped CSV file whose bytes depend only on its rows."""
    with (
        atomic(path) as part,
        part.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _by_study(patient: PatientRecord) -> list[StudyRecord]:
    # The original tables are sorted by study id, which says nothing about time; readers must cope.
    return sorted(patient.studies, key=lambda study: study.study_id)


def _metadata_rows(patient: PatientRecord, split: str) -> Iterator[tuple]:
    for study in _by_study(patient):
        time = study.when
        # A number, as in the original: three past eight in the morning is 80300.0, without a leading zero.
        clock = f"{time.hour * 10000 + time.minute * 100 + time.second}.{time.microsecond // 1000:03d}"
        for image in study.images:
            yield (
                image.dicom_id,
                patient.subject_id,
                study.study_id,
                study.procedure,
                image.view_position,
                image.height,
                image.width,
                time.strftime("%Y%m%d"),
                clock,
                study.procedure,
                _VIEW_CODES.get(image.view_position, ""),
                image.orientation,
            )


def _split_rows(patient: PatientRecord, split: str) -> Iterator[tuple]:
    for study in _by_study(patient):
        for image in study.images:
            yield image.dicom_id, study.study_id, patient.subject_id, split


def _chexpert_rows(patient: PatientRecord, split: str) -> Iterator[tuple]:
    for study in _by_study(patient):
        yield patient.subject_id, study.study_id, *(study.labels.get(label, "") for label in CHEXPERT_LABELS)
