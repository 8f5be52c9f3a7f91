"""Write phantom patients in the layout of CheXpert Plus: a table of reports and paths, PNG and DICOM images, labels."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medst.files import write_bytes
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.dicom import Style, deepen, write_dicom
from medst_phantom.mimic_files import LATERAL
from medst_phantom.radiograph import render_study, sample_acquisition
from medst_phantom.reports import CHEXPERT_LABELS, Report, write_report
from medst_phantom.rsna import write_csv
from medst_phantom.trajectory import sample_trajectory

TABLE = "df_chexpert_plus_240401.csv"
COLUMNS = (
    *("path_to_image", "path_to_dcm", "frontal_lateral", "ap_pa", "deid_patient_id", "patient_report_date_order"),
    *("report", "section_narrative", "section_clinical_history", "section_history", "section_comparison"),
    *("section_technique", "section_procedure_comments", "section_findings", "section_impression"),
    *("section_end_of_impression", "section_summary", "section_accession_number", "age", "sex", "race", "ethnicity"),
    *("interpreter_needed", "insurance_type", "recent_bmi", "deceased", "split"),
)
VALID_SHARE = 0.1


def write_patient(root: Path, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write a patient's images; return rows of the table, and the labels of each report."""
    patient = f"patient{index + 1:05d}"
    split = "valid" if rng.random() < VALID_SHARE else "train"
    anatomy = sample_anatomy(rng)
    background = sample_background(rng, anatomy)
    usual = {
        "deid_patient_id": patient,
        "age": f"{rng.integers(18, 91)}.0",
        "sex": "Male" if background.sex == "man" else "Female",
        "split": split,
    }
    rows, labels = [], []
    report: Report | None = None
    for order, study in enumerate(sample_trajectory(rng), start=1):
        report = write_report(study, background, rng, report)
        acquisitions = [sample_acquisition(view, rng) for view in study.views]
        pictures = render_study(anatomy, study.present, acquisitions, study.devices)
        sections = usual | {"patient_report_date_order": str(order)} | _sections(report)
        for number, (view, picture) in enumerate(zip(study.views, pictures, strict=True), start=1):
            lateral = view in LATERAL
            stem = f"{split}/{patient}/study{order}/view{number}_{'lateral' if lateral else 'frontal'}"
            _write_both(root, stem, picture, index * 100 + order * 10 + number, view, rng)
            rows.append(
                sections
                | {"path_to_image": f"{stem}.jpg", "path_to_dcm": f"{stem}.dcm"}
                | {"frontal_lateral": "Lateral" if lateral else "Frontal", "ap_pa": "" if lateral else view}
            )
            labels.append(
                {"path_to_image": f"{stem}.jpg"} | {name: report.labels.get(name) for name in CHEXPERT_LABELS}
            )
    return {"rows": rows, "labels": labels, "split": split, "studies": order}


def _sections(report: Report) -> dict[str, str]:
    # De-identified as the original, lines broken where it has them.
    return {
        "report": report.text.strip(),
        "section_findings": report.findings.replace(".  ", ".\n", 1),
        "section_impression": f"\n1. {report.impression}" if report.impression else "",
        "section_narrative": "Radiographic examination of the chest",
    }


def _write_both(root: Path, stem: str, picture: np.ndarray, number: int, view: str, rng: np.random.Generator) -> None:
    png, dcm = root / "PNG" / f"{stem}.png", root / "DICOM" / f"{stem}.dcm"
    for path in (png, dcm):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(png, cv2.imencode(".png", picture)[1].tobytes())
    style = Style()
    write_dicom(dcm, deepen(picture, style.bits, rng), style, number=number, view=view)


def write_tables(root: Path, records: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, int]:
    """Write the table and the labels; return counts."""
    rows = [row for record in records for row in record["rows"]]
    write_csv(root / TABLE, COLUMNS, [tuple(row.get(name, "") for name in COLUMNS) for row in rows])
    lines = "".join(json.dumps(label) + "\n" for record in records for label in record["labels"])
    (root / "chexbert_labels").mkdir(exist_ok=True)
    for section in ("report", "findings", "impression"):
        write_bytes(root / "chexbert_labels" / f"{section}_fixed.json", lines.encode())
    return {
        "patients": len(records),
        "valid_patients": sum(record["split"] == "valid" for record in records),
        "studies": sum(record["studies"] for record in records),
        "images": len(rows),
    }
