"""How phantom reports compare with real ones: length, words, negations, hedges, sections and CheXpert labels.

    python benchmarks/phantom_reports.py [--patients 2000] [--open-i FOLDER]

Reports are drawn as text, without pictures. --open-i measures the XML reports of Open-i in a folder the same way; only
figures are kept. docs/phantom.md has them beside published ones.
"""

import argparse
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from machine import keep
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.reports import CHEXPERT_LABELS, Report, write_report
from medst_phantom.trajectory import sample_trajectory

WORD = r"[a-z]+(?:[-'][a-z]+)*"
NEGATION = r"\b(no|not|without)\b"
HEDGE = r"\b(may|possibl[ey]|probabl[ey]|likely|suspected|suspicious|cannot|could|suggest\w*|questionable|concerning)\b"


def phantom_reports(patients: int) -> tuple[list[Report], list[tuple[Report, Report]]]:
    """Reports of so many patients, and pairs of consecutive ones of a patient."""
    reports: list[Report] = []
    follow_ups = []
    for seed in range(patients):
        rng = np.random.default_rng(seed)
        background = sample_background(rng, sample_anatomy(rng))
        earlier = None
        for study in sample_trajectory(rng):
            report = write_report(study, background, rng, earlier)
            if earlier:
                follow_ups.append((earlier, report))
            reports.append(report)
            earlier = report
    return reports, follow_ups


def open_i_reports(folder: Path) -> list[tuple[str, str]]:
    """FINDINGS and IMPRESSION of the XML files, without reports that have neither."""
    texts = []
    for path in sorted(folder.rglob("*.xml")):
        sections = {part.get("Label"): part.text or "" for part in ElementTree.parse(path).iter("AbstractText")}
        texts.append((sections.get("FINDINGS", ""), sections.get("IMPRESSION", "")))
    return [text for text in texts if any(text)]


def sentences(text: str) -> list[str]:
    return [said.strip() for said in re.split(r"(?<!\d)\.(?:\s+|$)", text) if said.strip()]


def measure(texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Figures of (findings, impression) texts; vocabularies are of a random order."""
    lengths = [len(" ".join(text).split()) for text in texts]
    said = [one for text in texts for part in text for one in sentences(part)]
    shuffled = random.Random(0).sample(texts, len(texts))

    def distinct(count: int) -> int:
        return len({word for text in shuffled[:count] for word in re.findall(WORD, " ".join(text).lower())})

    def share(pattern: str) -> float:
        return round(float(np.mean([bool(re.search(pattern, one.lower())) for one in said])), 3)

    return {
        "reports": len(texts),
        "words, percentiles 5 50 95": [float(value) for value in np.percentile(lengths, [5, 50, 95])],
        "distinct words in 100, 300 and 1,000 reports": [distinct(count) for count in (100, 300, 1000)],
        "sentences per report": round(len(said) / len(texts), 2),
        "words per sentence": round(float(np.mean([len(one.split()) for one in said])), 2),
        "share of sentences with no, not or without": share(NEGATION),
        "share of sentences with a hedge": share(HEDGE),
        "distinct sentences": round(len({one.lower() for one in said}) / len(said), 3),
        "with findings": round(float(np.mean([bool(text[0].strip()) for text in texts])), 3),
        "with impression": round(float(np.mean([bool(text[1].strip()) for text in texts])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=2000)
    parser.add_argument("--open-i", type=Path)
    args = parser.parse_args()
    reports, follow_ups = phantom_reports(args.patients)
    counts = Counter((name, value) for report in reports for name, value in report.labels.items())
    both = [(set(sentences(a.findings)), sentences(b.findings)) for a, b in follow_ups if a.findings and b.findings]
    results: dict[str, Any] = {
        "phantom": measure([(report.findings, report.impression) for report in reports]),
        "labels, percent: positive, negative, uncertain": {
            name: [round(100 * counts[name, value] / len(reports), 1) for value in (1.0, 0.0, -1.0)]
            for name in CHEXPERT_LABELS
        },
        "follow-ups that repeat a sentence": round(float(np.mean([bool(old & set(new)) for old, new in both])), 3),
    }
    if args.open_i:
        results["Open-i"] = measure(open_i_reports(args.open_i))
    keep("phantom_reports", results)


if __name__ == "__main__":
    main()
