"""Write the tables of MS-CXR-T: progression labels of image pairs, and pairs of sentences; and one of its own.

**Comparisons** are chosen among all pairs of studies of a test patient so that neither the present nor the prior severity
tells worsening from improving (AUROC near 0.5 for each finding and for all), and all three progressions are equally
frequent. A new or resolved finding would tell its direction by being absent; these rows are in a table of their own, in the
same layout.

**Sentence pairs** come in squares: two wordings of one change and two of a change that contradicts it make two paraphrases
and two contradictions. Every sentence is in one of each, at the same place, so that nothing about one sentence tells the
category; and the four differ in one word of progression each, so that word overlap doesn't either.

docs/phantom.md has the figures.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from medst.files import write_bytes
from medst_phantom.findings import FINDINGS, Finding
from medst_phantom.mimic_files import PatientRecord
from medst_phantom.sentences import change_words, noun_phrase, pick, sentence, severity_word
from medst_phantom.trajectory import CLEAR_STEP, progression_between

IMAGE_FILE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
APART_FILE = "MS_CXR_T_new_and_resolved_v1.0.0.csv"
"""New findings as worsening, resolved ones as improving; MS-CXR-T itself mixes them with the others."""
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
_SQUARES = {"RadGraph": 50, "swaps": 40}  # four pairs each; 360 rows in all
_FEWEST = 5  # rows of a direction that stay in any case: so few can't be matched
# Of two groups that move in opposite directions, one must keep to the ends of the scale and the other to its middle for
# their ranks to agree, and all findings must do it alike. Large steps would need more room than the scale has.
_MIDDLE, _END, _NEAR, _LARGEST = 0.58, 0.15, 0.2, 0.3
_MOST_TELLING = 0.04  # how far the AUROC of one study's severity may be from 0.5

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
# Progressions that contradict each other, and how often each two are used.
_OPPOSITES = {
    ("improving", "worsening"): 0.5,
    ("resolved", "worsening"): 0.2,
    ("resolved", "stable"): 0.1,
    ("improving", "stable"): 0.1,
    ("stable", "worsening"): 0.1,
}
# Words of one stem are never in one pair: they would share word pieces.
_STEMS = ("creas", "improv", "diminish", "reduc", "wors", "progress", "resol", "persist")


@dataclass(frozen=True)
class Comparison:
    """Two studies of a patient and one finding, present in at least one of them.

    Attributes:
        patient: place of the patient among those given.
        prior, current: places of the studies among the patient's, prior < current.
        finding: one of `FINDINGS`.
        before, now: its severity in the prior and in the current study, 0 if absent.
        progression: as `progression_between` names it.
    """

    patient: int
    prior: int
    current: int
    finding: str
    before: float
    now: float
    progression: str


def comparisons(
    severities: Sequence[Sequence[dict[str, float]]], rng: np.random.Generator
) -> tuple[list[Comparison], list[Comparison]]:
    """Choose comparisons of patients.

    Args:
        severities: for each patient and study, in time order, the severity of each finding that is present.

    Returns:
        Matched comparisons of findings that are present in both studies; and, of consecutive studies, those in which a
        finding is new or resolved. Both are sorted by patient and study.
    """
    matched: dict[str, list[Comparison]] = {finding: [] for finding in FINDINGS}
    apart = []
    for patient, studies in enumerate(severities):
        for prior, current in combinations(range(len(studies)), 2):
            for finding in FINDINGS:
                before, now = studies[prior].get(finding, 0.0), studies[current].get(finding, 0.0)
                step = progression_between(before, now)
                one = Comparison(patient, prior, current, finding, before, now, step or "")
                if step in ("new", "resolved") and current == prior + 1:
                    apart.append(one)
                elif before and now and (step == "stable" or abs(now - before) >= CLEAR_STEP):
                    matched[finding].append(one)
    return sorted(_match(matched, rng), key=_place), sorted(apart, key=_place)


def _place(one: Comparison) -> tuple[int, int, int]:
    return one.patient, one.current, one.prior


def _match(candidates: dict[str, list[Comparison]], rng: np.random.Generator) -> list[Comparison]:
    """Thin out the changes of each finding, and of all together, and add as many stable comparisons of each."""
    changes = {finding: [one for one in own if _may_match(one)] for finding, own in candidates.items()}
    before = -1
    while sum(map(len, changes.values())) != before:
        before = sum(map(len, changes.values()))
        changes = {finding: _thinned(own) for finding, own in changes.items()}
        left = set(_thinned([one for own in changes.values() for one in own]))
        changes = {finding: [one for one in own if one in left] for finding, own in changes.items()}
    kept = []
    for finding, own in changes.items():
        stable = [one for one in candidates[finding] if one.progression == "stable"]
        some = rng.permutation(len(stable))[: len(own) // 2]
        kept += own + [stable[place] for place in sorted(some)]
    return kept


def _may_match(one: Comparison) -> bool:
    off_centre = abs((one.before + one.now) / 2 - _MIDDLE)
    fits = off_centre >= _END if one.progression == "worsening" else off_centre <= _NEAR
    return one.progression != "stable" and abs(one.now - one.before) <= _LARGEST and fits


def _thinned(changes: list[Comparison]) -> list[Comparison]:
    """Leave out changes until nothing about one study tells their direction.

    That is: the AUROCs of the present severity, of the prior severity and of the number of studies from one to the other are
    near 0.5. The next row to go is the one without which they are nearest, of the direction that has more rows.
    """
    up, down = ([one for one in changes if one.progression == name] for name in ("worsening", "improving"))
    if not up or not down:
        return []
    sides = [np.array([(one.now, one.before, one.current - one.prior) for one in side]) for side in (up, down)]
    # wins[a, b, q]: +1 where worsening row a has more: severity now, severity before, studies from prior to current.
    wins = np.sign(sides[0][:, None] - sides[1][None]).astype(np.int8)
    kept = [np.full(len(up), True), np.full(len(down), True)]
    sums = [wins.sum(1, dtype=np.int64), wins.sum(0, dtype=np.int64)]
    total = sums[0].sum(0)
    while min(map(np.sum, kept)) > _FEWEST:
        if np.abs(total / (2 * kept[0].sum() * kept[1].sum())).max() <= _MOST_TELLING:
            break
        side = int(kept[1].sum() > kept[0].sum())
        telling = np.square(total - sums[side]).sum(1).astype(np.float64)
        telling[~kept[side]] = np.inf
        gone = int(telling.argmin())
        kept[side][gone] = False
        total = total - sums[side][gone]
        sums[1 - side] = sums[1 - side] - (wins[:, gone] if side else wins[gone])
    return [
        one for side, keep in zip((up, down), kept, strict=True) for one, stays in zip(side, keep, strict=True) if stays
    ]


def image_rows(patients: Sequence[PatientRecord], chosen: Iterable[Comparison]) -> list[tuple]:
    """One row per two studies that are compared, with the progression of each finding or ''."""
    labels: dict[tuple[int, int, int], dict[str, str]] = {}
    for one in chosen:
        labels.setdefault(_place(one), {})[one.finding] = CLASS_OF[one.progression]
    rows = []
    for (patient, current, prior), found in labels.items():
        now, before = patients[patient].studies[current], patients[patient].studies[prior]
        ids = (now.frontal, before.frontal, now.study_id, before.study_id, patients[patient].subject_id)
        rows.append((*ids, *(found.get(finding, "") for finding in FINDINGS)))
    return rows


def severities_of(patient: PatientRecord) -> list[dict[str, float]]:
    """The severity of each present finding in each study."""
    return [
        {one["finding"]: one["severity"] for one in study.truth if one["severity"] > 0} for study in patient.studies
    ]


def sentence_rows(rng: np.random.Generator, times: int = 1) -> list[tuple[str, str, str, str]]:
    """Make `times` times 360 different pairs of sentences: (sentence 1, sentence 2, category, subset).

    'RadGraph': two sentences on one finding, in different words. 'swaps': one sentence with one word replaced.
    """
    rows = []
    for subset, squares in _SQUARES.items():
        seen: set[tuple[str, str]] = set()
        while len(seen) < 4 * squares * times:
            one, against = _square(subset, rng)
            pairs = {(first, second) for first in (one[0], against[0]) for second in (one[1], against[1])}
            if len(pairs) < 4 or pairs & seen:
                continue
            seen |= pairs
            for mine, other in ((one, against), (against, one)):
                rows.append((mine[0], mine[1], "paraphrase", subset))
                rows.append((mine[0], other[1], "contradiction", subset))
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


def _square(subset: str, rng: np.random.Generator) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two wordings of one change, and two of a change that contradicts it, in the same two frames."""
    finding = _sample_finding(rng)
    noun = noun_phrase(finding, rng)
    shared = {
        "np": noun.bare,
        "size": severity_word(finding.name, finding.severity, rng),
        "has": "have" if noun.plural else "has",
        "is": "are" if noun.plural else "is",
        "appears": "appear" if noun.plural else "appears",
    }
    pairs = list(_OPPOSITES)
    said = pairs[int(rng.choice(len(pairs), p=list(_OPPOSITES.values())))]
    while True:
        kinds = [str(rng.choice(list(_FRAMES))) for _ in range(2)]
        frames = [pick(_FRAMES[kind], rng) for kind in kinds]
        if subset == "swaps":
            kinds[1], frames[1] = kinds[0], frames[0]
        elif frames[0] == frames[1]:
            continue
        choices = [[change_words(finding.name, change, kind) for kind in kinds] for change in said]
        if not all(words for pair in choices for words in pair):  # not every change has a word of every kind
            continue
        words = [[pick(options, rng) for options in pair] for pair in choices]
        apart = {_stem(pair[0]) for pair in words}.isdisjoint(_stem(pair[1]) for pair in words)
        if apart and _are_even([[len(word) for word in pair] for pair in words]):
            break
    one, against = (
        tuple(sentence(frame.format(word=word, **shared)) for frame, word in zip(frames, pair, strict=True))
        for pair in words
    )
    return (one[0], one[1]), (against[0], against[1])


def _are_even(lengths: list[list[int]]) -> bool:
    """Whether two words of one change differ in length as much as two words of contradicting ones."""
    (one, same), (other, against) = lengths
    alike = sorted((abs(one - same), abs(other - against)))
    return alike == sorted((abs(one - against), abs(other - same)))


def _stem(word: str) -> str:
    return next((stem for stem in _STEMS if stem in word), word)


def _sample_finding(rng: np.random.Generator) -> Finding:
    name = pick(FINDINGS, rng)
    side = pick(("right", "left"), rng)
    zone = {"edema": "mid", "pleural_effusion": "lower", "pneumothorax": "upper"}.get(name)
    if name == "edema" or (name == "pleural_effusion" and rng.random() < 0.3):
        side = "bilateral"
    return Finding(name, side, zone or pick(("upper", "mid", "lower"), rng), float(rng.uniform(0.2, 1.0)), 0)
