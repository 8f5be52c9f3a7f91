"""Write phantom studies in the layout of Open-i: XML reports, PNG and DICOM images, and Kaggle's table of views."""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np

from medst.files import write_bytes
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.dicom import Style, deepen, write_dicom
from medst_phantom.mimic_files import LATERAL
from medst_phantom.radiograph import render_study, sample_acquisition
from medst_phantom.reports import write_report
from medst_phantom.rsna import write_csv
from medst_phantom.trajectory import sample_trajectory

REPORTS, PNG, DCM = Path("NLMCXR_reports") / "ecgen-radiology", "NLMCXR_png", "NLMCXR_dcm"


def write_patient(root: Path, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write a study's images and report; return the views of the images."""
    number = index + 1
    anatomy = sample_anatomy(rng)
    background = sample_background(rng, anatomy)
    study = sample_trajectory(rng)[0]
    report = write_report(study, background, rng)
    pictured = rng.random() >= 0.03
    views = list(study.views) if pictured else []
    if rng.random() < 0.3:
        views.reverse()  # nothing in a report says which of its images comes first
    serial = int(rng.integers(1, 3000))
    pictures = render_study(anatomy, study.present, [sample_acquisition(view, rng) for view in views], study.devices)
    names = []
    for place, (view, picture) in enumerate(zip(views, pictures, strict=True), start=1):
        name = f"{number}_IM-{serial:04d}-{place}001"
        png, dcm = root / PNG / f"CXR{name}.png", root / DCM / str(number) / f"{name}.dcm"
        for path in (png, dcm):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(png, cv2.imencode(".png", picture)[1].tobytes())
        style = Style(windows=0)
        position = "LL" if view in LATERAL else view
        write_dicom(dcm, deepen(picture, style.bits, rng), style, number=number * 10 + place, view=position)
        names.append(name)
    (root / REPORTS).mkdir(parents=True, exist_ok=True)
    text = _xml(number, report.findings, report.impression, [f"CXR{name}" for name in names])
    write_bytes(root / REPORTS / f"{number}.xml", text.encode())
    projections = ["Lateral" if view in LATERAL else "Frontal" for view in views]
    return {"uid": number, "images": [[f"{name}.dcm.png", view] for name, view in zip(names, projections, strict=True)]}


def _xml(number: int, findings: str, impression: str, images: list[str]) -> str:
    sections = {
        "COMPARISON": "None.",
        "INDICATION": "XXXX-year-old, XXXX",
        "FINDINGS": findings,
        "IMPRESSION": impression,
    }
    abstract = "\n".join(
        f'          <AbstractText Label="{name}">{escape(text.replace("___", "XXXX"))}</AbstractText>'
        for name, text in sections.items()
    )
    parents = "\n".join(
        f'  <parentImage id="{name}">\n    <figureId>F{place}</figureId>\n    <caption>PA and lateral chest</caption>\n'
        "  </parentImage>"
        for place, name in enumerate(images, start=1)
    )
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation>\n  <uId id="CXR{number}"/>\n  <MedlineCitation>\n'
        f"    <Article>\n      <Abstract>\n{abstract}\n      </Abstract>\n    </Article>\n  </MedlineCitation>\n"
        f"  <MeSH>\n    <major>phantom</major>\n  </MeSH>\n{parents}\n</eCitation>\n"
    )


def write_tables(root: Path, records: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, int]:
    """Write the table of views; return counts."""
    rows = [(record["uid"], name, view) for record in records for name, view in record["images"]]
    write_csv(root / "indiana_projections.csv", ("uid", "filename", "projection"), rows)
    return {
        "reports": len(records),
        "frontal_images": sum(view == "Frontal" for _, _, view in rows),
        "lateral_images": sum(view == "Lateral" for _, _, view in rows),
    }
