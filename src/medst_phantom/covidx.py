"""Write phantom images in the layout of COVIDx: lists of patient, file, class and source, and PNG and JPEG files.

COVID-19 is drawn as consolidations on both sides, pneumonia as one on one side; this is a simplification.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from medst.files import write_bytes
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.findings import Finding
from medst_phantom.radiograph import render_study, sample_acquisition

CLASSES = ("normal", "pneumonia", "COVID-19")
TEST_SHARE = 0.2


def write_patient(root: Path, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """Write a patient's one to three images; return their lines for the lists."""
    kind = CLASSES[int(rng.choice(3, p=[0.35, 0.3, 0.35]))]
    part = "test" if rng.random() < TEST_SHARE else "train"
    anatomy, findings = sample_anatomy(rng), _findings(kind, rng)
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    acquisitions = [sample_acquisition("AP" if rng.random() < 0.6 else "PA", rng) for _ in range(count)]
    (root / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, picture in enumerate(render_study(anatomy, findings, acquisitions)):
        # File names of the many sources differ; some of them have blanks.
        stem = f"{kind} ({index}) {number}" if index % 17 == 3 else f"{index:05d}-{number}"
        name = f"{stem}.{'png' if rng.random() < 0.6 else 'jpg'}"
        pixels = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if rng.random() < 0.3 else picture
        write_bytes(root / part / name, cv2.imencode(Path(name).suffix, pixels)[1].tobytes())
        lines.append(f"p{index} {name} {kind} phantom")
    return {"part": part, "lines": lines, "class": kind}


def _findings(kind: str, rng: np.random.Generator) -> list[Finding]:
    def lesion(name: str, side: str, zone: str) -> Finding:
        return Finding(name, side, zone, float(rng.uniform(0.4, 0.95)), int(rng.integers(2**31)))

    if kind == "normal":
        return []
    if kind == "pneumonia":
        side = "right" if rng.random() < 0.5 else "left"
        return [lesion("pneumonia", side, str(rng.choice(["upper", "mid", "lower"])))]
    return [lesion("consolidation", "bilateral", zone) for zone in ("mid", "lower")]


def write_tables(root: Path, records: list[dict[str, Any]], rng: np.random.Generator) -> dict[str, int]:
    """Write both lists; return counts."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for record in records:
        lists[record["part"]] += record["lines"]
    for part, lines in lists.items():
        (root / part).mkdir(exist_ok=True)
        write_bytes(root / f"{part}.txt", "".join(f"{line}\n" for line in lines).encode())
    kinds = {f"{kind}_patients": sum(record["class"] == kind for record in records) for kind in CLASSES}
    return {"patients": len(records), **{f"{part}_images": len(lines) for part, lines in lists.items()}, **kinds}
