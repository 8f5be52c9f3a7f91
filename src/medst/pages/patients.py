"""A few held-out patients over time: what was seen, what was written, what the model makes of it.

Unusual here: patients are chosen by how much there is to see, never by how well the model did on them.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from medst.cohort.store import Cohort
from medst.encode import embed_pairs
from medst.objective.temporal import cycle
from medst.pages.inputs import Evidence
from medst.use import Model

MOST_STUDIES = 8
"""Studies of a patient that are shown; the later ones are left out."""
EXCERPT = 150
QUALITY = 86


@dataclass(frozen=True)
class Verdict:
    """What became of a finding since the study before; `predicted` is None where the model was not asked."""

    finding: str
    progression: str
    predicted: str | None


@dataclass(frozen=True)
class Visit:
    """One study as it is shown.

    Attributes:
        number: from 1.
        date: yyyy-mm-dd.
        since: time since the study before, in words; empty for the first.
        frontal: the image as a data URI.
        lateral: the same, or None.
        excerpt: the beginning of the report.
        report: all of it, where the excerpt is not.
        verdicts: by finding.
    """

    number: int
    date: str
    since: str
    frontal: str
    lateral: str | None
    excerpt: str
    report: str
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Timeline:
    """A patient's studies in time order, with the matrices of the temporal loss over all of them.

    Attributes:
        patient_id: as in the cohort.
        studies: all studies of the patient, those not shown included.
        visits: the studies that are shown.
        forward: of each study's image (down), its weights on the reports (across), float32 (study, study).
        reverse: beta, where each image lands on the way to the reports and back, float32 (study, study).
    """

    patient_id: str
    studies: int
    visits: list[Visit]
    forward: np.ndarray
    reverse: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """How often an image's own report has the largest weight, over all held-out sequences; `chance`: by guessing."""

    patients: int
    studies: int
    hits: float
    chance: float


def held_out(cohort: Cohort) -> pl.DataFrame:
    """The test split with one pair a study, its first, of patients with at least two studies; in time order."""
    assert cohort.pairs is not None
    pairs = cohort.pairs.filter(split="test").sort("patient_id", "time", "study_id", "frontal")
    pairs = pairs.unique(["patient_id", "study_id"], keep="first", maintain_order=True)
    return pairs.filter(pl.len().over("patient_id") >= 2)


def align(
    loaded: Model, image: Float[np.ndarray, "study dim"], report: Float[np.ndarray, "study dim"]
) -> tuple[Float[np.ndarray, "study study"], Float[np.ndarray, "study study"]]:
    """Forward mapping and reverse mapping of one sequence from its images to its reports, as in the temporal loss."""
    u, v = torch.from_numpy(image)[None], torch.from_numpy(report)[None]
    mask = torch.ones(u.shape[:2], dtype=torch.bool)
    logits, beta = cycle(u, v, mask, loaded.recipe.objective.temporal_temperature)
    return logits.softmax(-1)[0].numpy(), beta[0].numpy()


def timelines(evidence: Evidence, patients: int) -> tuple[list[Timeline], Alignment | None]:
    """The patients to show, and how well images and reports align over all held-out patients.

    Args:
        evidence: run, results and cohorts.
        patients: how many to show.

    Returns:
        The time lines, and None in place of the alignment where no held-out patient has two studies.
    """
    pairs = held_out(evidence.cohort)
    if pairs.is_empty():
        return [], None
    image, report = embed_pairs(evidence.loaded, evidence.cohort, pairs)
    verdicts = _verdicts(evidence)
    chosen = choose(pairs, verdicts, patients)
    shown: dict[str, Timeline] = {}
    right, chance = [], []
    for patient, studies in pairs.with_row_index("place").partition_by("patient_id", as_dict=True).items():
        rows = studies["place"].to_numpy()
        forward, reverse = align(evidence.loaded, image[rows], report[rows])
        right += (forward.argmax(1) == np.arange(len(rows))).tolist()
        chance += [1 / len(rows)] * len(rows)
        if patient[0] in chosen:
            visits = _visits(evidence.cohort, studies, verdicts)
            shown[patient[0]] = Timeline(patient[0], len(rows), visits, forward, reverse)
    alignment = Alignment(pairs["patient_id"].n_unique(), pairs.height, float(np.mean(right)), float(np.mean(chance)))
    return [shown[patient] for patient in chosen], alignment


def choose(pairs: pl.DataFrame, verdicts: Mapping[str, list[Verdict]], patients: int) -> list[str]:
    """Patients with the most to see, one after the other: each is to bring findings and progressions not yet seen.

    Among equals, those with more labelled findings, with laterals and with up to `MOST_STUDIES` studies come first, then
    the smaller id.
    """
    richness: list[tuple[set[tuple[str, str]], tuple[int, int, int], str]] = []
    for patient, studies in pairs.partition_by("patient_id", as_dict=True).items():
        shown = studies.head(MOST_STUDIES)
        told = [verdict for study in shown["study_id"] for verdict in verdicts.get(study, [])]
        kinds = {(verdict.finding, verdict.progression) for verdict in told}
        laterals = shown.height - shown["lateral"].null_count()
        order = (-len(told), -min(2, laterals), -shown.height)
        richness.append((kinds, order, str(patient[0])))
    seen: set[tuple[str, str]] = set()
    chosen: list[str] = []
    while richness and len(chosen) < patients:
        best = min(richness, key=lambda entry: (-len(entry[0] - seen), entry[1], entry[2]))
        richness.remove(best)
        seen |= best[0]
        chosen.append(best[2])
    return chosen


def _verdicts(evidence: Evidence) -> dict[str, list[Verdict]]:
    """What is known of each study, by finding; predictions where there are, else the labels alone."""
    by_key: dict[tuple[str, str], Verdict] = {}
    labels = evidence.comparisons.comparisons if evidence.comparisons is not None else None
    rows: list[Mapping[str, Any]] = [*(labels.iter_rows(named=True) if labels is not None else [])]
    for row in [*evidence.progressions["predictions"], *rows]:
        key = (row["study_id"], row["finding"])
        by_key.setdefault(key, Verdict(row["finding"], row["progression"], row.get("predicted")))
    found: dict[str, list[Verdict]] = {}
    for study, finding in sorted(by_key):
        found.setdefault(study, []).append(by_key[study, finding])
    return found


def _visits(cohort: Cohort, studies: pl.DataFrame, verdicts: Mapping[str, list[Verdict]]) -> list[Visit]:
    visits: list[Visit] = []
    before: datetime | None = None
    for number, study in enumerate(studies.head(MOST_STUDIES).iter_rows(named=True), 1):
        words = study["report"]
        excerpt = words if len(words) <= EXCERPT else words[: words.rfind(" ", 0, EXCERPT)] + " …"
        lateral = None if study["lateral"] is None else data_uri(cohort.images[study["lateral"]])
        visits.append(
            Visit(
                number=number,
                date=f"{study['time']:%Y-%m-%d}",
                since="" if before is None else interval((study["time"] - before).total_seconds()),
                frontal=data_uri(cohort.images[study["frontal"]]),
                lateral=lateral,
                excerpt=excerpt,
                report=words if excerpt != words else "",
                verdicts=verdicts.get(study["study_id"], []),
            )
        )
        before = study["time"]
    return visits


def interval(seconds: float) -> str:
    """A span of time in words, at the precision that matters to a reader.

    >>> interval(600), interval(7 * 3600), interval(26 * 3600), interval(90 * 86400), interval(900 * 86400)
    ('10 minutes', '7 hours', '1 day', '3 months', '2.5 years')
    """
    days = seconds / 86400
    if seconds < 5400:
        count, unit = f"{seconds / 60:.0f}", "minute"
    elif days < 1:
        count, unit = f"{seconds / 3600:.0f}", "hour"
    elif days < 60:
        count, unit = f"{days:.0f}", "day"
    elif days < 700:
        count, unit = f"{days / 30.44:.0f}", "month"
    else:
        count, unit = f"{days / 365.25:.1f}", "year"
    return f"{count} {unit}{'' if count == '1' else 's'}"


def data_uri(picture: UInt8[np.ndarray, "height width"]) -> str:
    """A grey picture as a JPEG inside a URI; black rows and columns that were padded around it are cut off."""
    seen = picture > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if len(rows):
        picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
