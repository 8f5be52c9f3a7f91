"""Write the two tables of MS-CXR-T: progression labels of image pairs, and pairs of sentences.

The sentence pairs come in twins: a paraphrase and a contradiction share their first sentence, and their second sentences
differ only in one word of progression. So neither word overlap nor length distinguishes them, and a bag of untrained words
is at chance by construction.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from medst.files import write_bytes
from medst_phantom.findings import FINDINGS, Finding
from medst_phantom.mimic_files import PatientRecord
from medst_phantom.sentences import change_words, noun_phrase, pick, sentence, severity_word
from medst_phantom.trajectory import progression_between

IMAGE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
SENTENCE_FILE = "MS_CXR_T_temporal_sentence_similarity_v1.0.0.csv"
IMAGE_COLUMNS = (
    "dicom_id",
    "previous_dicom_id",
    "study_id",
    "previous_study_id",
    "subject_id",
    *(f"{finding}_progression" for finding in FINDINGS),
)
SENTENCE_COLUMNS = ("sentence_1", "sentence_2", "category", "subset_name")
# The data set has three classes: a new finding is worsening, a resolved one improving.
CLASS_OF = {
    "new": "worsening",
    "worsening": "worsening",
    "stable": "stable",
    "improving": "improving",
    "resolved": "improving",
}
_TWINS = {"RadGraph": 100, "swaps": 80}  # pairs of pairs; 360 rows in all

# The frames by the kind of word they take; a word and its opposite both fit.
_FRAMES = {
    "verb": (
        "the {np} {has} {word} since the prior study",
        "compared to the prior radiograph, the {np} {has} {word}",
        "the {np} {has} {word} in the interval",
        "{size} {np} {has} {word} compared to ___",
        "as compared to the previous radiograph, the {np} {has} {word}",
    ),
    "comparative": (
        "the {np} {is} {word} compared to the prior radiograph",
        "the {np} {appears} {word} on the current study",
        "the {np} {is} {word} compared to ___",
        "in comparison with the study of ___, the {np} {is} {word}",
        "{size} {np} {appears} {word} compared to the previous examination",
    ),
    "changing": (
        "{word} {np}",
        "{word} {size} {np}",
        "{word} {np} compared to the prior study",
        "{word} {np} {is} seen on the current radiograph",
    ),
    "change": (
        "interval {word} of the {np}",
        "interval {word} of {size} {np} since the prior study",
        "there has been interval {word} of the {np}",
    ),
}
# Contradicting progressions, and how often each is used.
_OPPOSITES = {"improving": "worsening", "worsening": "improving", "resolved": "worsening"}
_STABLE_SHARE = 0.15
# Words of one stem are never set against each other as paraphrases: they would share word pieces.
_STEMS = ("decreas", "improv", "diminish", "reduc", "increas", "wors", "progress", "resol")


def image_rows(patient: PatientRecord) -> Iterator[tuple]:
    """One row for every two consecutive studies with a finding in either of them."""
    for before, now in pairwise(patient.studies):
        severities = {entry["finding"]: entry["severity"] for entry in now.truth}
        earlier = {entry["finding"]: entry["severity"] for entry in before.truth}
        labels = []
        for name in FINDINGS:
            step = progression_between(earlier.get(name, 0.0), severities.get(name, 0.0))
            labels.append(CLASS_OF[step] if step else "")
        if any(labels):
            yield (
                now.frontal,
                before.frontal,
                now.study_id,
                before.study_id,
                patient.subject_id,
                *labels,
            )


def sentence_rows(rng: np.random.Generator) -> list[tuple[str, str, str, str]]:
    """Make 360 different pairs of sentences: (sentence 1, sentence 2, category, subset).

    'RadGraph': two sentences on one finding, in different words. 'swaps': one sentence with one word replaced.
    """
    rows = []
    for subset, twins in _TWINS.items():
        seen: set[tuple[str, str]] = set()
        while len(seen) < 2 * twins:
            first, same, opposite = _twin(subset, rng)
            if (first, same) in seen or (first, opposite) in seen:
                continue
            seen |= {(first, same), (first, opposite)}
            rows += [(first, same, "paraphrase", subset), (first, opposite, "contradiction", subset)]
    order = rng.permutation(len(rows))
    return [rows[i] for i in order]


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> int:
    """Write a CSV file and return its number of rows, without the header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    write_bytes(path, text.getvalue().encode())
    return count


def _twin(subset: str, rng: np.random.Generator) -> tuple[str, str, str]:
    finding = _sample_finding(rng)
    noun = noun_phrase(finding, rng)
    shared = {
        "np": noun.bare,
        "size": severity_word(finding.name, finding.severity, rng),
        "has": "have" if noun.plural else "has",
        "is": "are" if noun.plural else "is",
        "appears": "appear" if noun.plural else "appears",
    }
    said, opposite = _sample_classes(rng)
    while True:
        kind, other_kind = (str(rng.choice(list(_FRAMES))) for _ in range(2))
        if subset == "swaps":
            other_kind = kind
        frame, other_frame = pick(_FRAMES[kind], rng), pick(_FRAMES[other_kind], rng)
        firsts = change_words(finding.name, said, kind)
        sames = change_words(finding.name, said, other_kind)
        opposites = change_words(finding.name, opposite, other_kind)
        if subset == "swaps":
            other_frame = frame
        elif frame == other_frame:
            continue
        # Not every class has a word of every kind.
        if firsts and sames and opposites:
            first, same, against = pick(firsts, rng), pick(sames, rng), pick(opposites, rng)
            if _stem(first) != _stem(same):
                break
    return (
        sentence(frame.format(word=first, **shared)),
        sentence(other_frame.format(word=same, **shared)),
        sentence(other_frame.format(word=against, **shared)),
    )


def _stem(word: str) -> str:
    return next((stem for stem in _STEMS if word.startswith(stem)), word)


def _sample_finding(rng: np.random.Generator) -> Finding:
    name = pick(FINDINGS, rng)
    side = pick(("right", "left"), rng)
    zone = {"edema": "mid", "pleural_effusion": "lower", "pneumothorax": "upper"}.get(name)
    if name == "edema" or (name == "pleural_effusion" and rng.random() < 0.3):
        side = "bilateral"
    return Finding(name, side, zone or pick(("upper", "mid", "lower"), rng), float(rng.uniform(0.2, 1.0)), 0)


def _sample_classes(rng: np.random.Generator) -> tuple[str, str]:
    """Progression of the first sentence, and one that contradicts it."""
    if rng.random() < _STABLE_SHARE:
        change = pick(("improving", "worsening"), rng)
        return ("stable", change) if rng.random() < 0.5 else (change, "stable")
    said = str(rng.choice(list(_OPPOSITES), p=[0.37, 0.43, 0.2]))
    return said, _OPPOSITES[said]
