"""Write phantom images in the layout of the RSNA Pneumonia Detection Challenge: DICOM files and a table of boxes.

A box is where the pneumonia changes the image: the same body is drawn with and without it, and the two are compared.
"""

import csv
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medst.files import write_bytes
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.dicom import deepen, style_of, write_dicom
from medst_phantom.findings import Finding
from medst_phantom.radiograph import render_study, sample_acquisition
from medst_phantom.trajectory import sample_trajectory

IMAGES, LABELS, DETAILS = "stage_2_train_images", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
SHARE = 0.3  # of patients with pneumonia, about that of the challenge
SMALLEST = 24  # pixels: shorter side of a box, and size of a lesion
CHANGE = 8  # grey levels that are seen


def write_patient(root: Path, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write a patient's image; return its entries for the tables."""
    name = "-".join(rng.bytes(size).hex() for size in (4, 2, 2, 2, 6))
    anatomy = sample_anatomy(rng)
    view = "AP" if rng.random() < 0.45 else "PA"
    acquisition = sample_acquisition(view, rng)
    others = [
        finding for finding in sample_trajectory(rng)[0].present if finding.name not in ("pneumonia", "consolidation")
    ]
    ill = bool(rng.random() < SHARE)
    (without,) = render_study(anatomy, others, [acquisition])
    even = len(without) // 2 * 2
    picture, boxes = without, []
    if ill:
        side = ("right", "left", "bilateral")[int(rng.choice(3, p=[0.45, 0.35, 0.2]))]
        zone = ("upper", "mid", "lower")[int(rng.choice(3, p=[0.2, 0.3, 0.5]))]
        lesion = Finding("pneumonia", side, zone, float(rng.uniform(0.45, 0.95)), int(rng.integers(2**31)))
        (picture,) = render_study(anatomy, [*others, lesion], [acquisition])
        boxes = find_boxes(without[:even], picture[:even])
    (root / IMAGES).mkdir(parents=True, exist_ok=True)
    style = style_of(index)
    pixels = deepen(picture[:even], style.bits, rng)
    write_dicom(root / IMAGES / f"{name}.dcm", pixels, style, number=index + 1, view=view)
    kind = "Lung Opacity" if boxes else "No Lung Opacity / Not Normal" if others else "Normal"
    return {"patientId": name, "boxes": boxes, "class": kind}


def find_boxes(without: np.ndarray, picture: np.ndarray) -> list[list[float]]:
    """Find where two images of a body differ: x, y, width and height in pixels of at most two places, the larger first."""
    changed = cv2.GaussianBlur(cv2.absdiff(picture, without), (0, 0), 3) >= CHANGE
    _, _, found, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
    places = sorted((tuple(int(value) for value in row) for row in found[1:]), key=lambda place: -place[4])
    return [
        [float(x), float(y), float(width), float(height)]
        for x, y, width, height, _ in places[:2]
        if min(width, height) >= SMALLEST
    ]


def write_tables(root: Path, records: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, int]:
    """Write the tables, unordered as in the challenge; return counts."""
    labels: list[tuple[Any, ...]] = []
    details: list[tuple[Any, ...]] = []
    for place in rng.permutation(len(records)):
        record = records[place]
        name, boxes = record["patientId"], record["boxes"]
        labels += [(name, *box, 1) for box in boxes] or [(name, "", "", "", "", 0)]
        details += [(name, record["class"])] * max(1, len(boxes))
    write_csv(root / LABELS, ("patientId", "x", "y", "width", "height", "Target"), labels)
    write_csv(root / DETAILS, ("patientId", "class"), details)
    ill = sum(bool(record["boxes"]) for record in records)
    return {"patients": len(records), "pneumonia": ill, "boxes": sum(len(record["boxes"]) for record in records)}


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Write a table whose bytes depend only on its rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
