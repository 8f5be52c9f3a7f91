"""Held-out patients over time: images, reports and the model's predictions.

Patients are chosen by how much there is to see, never by how well the model did on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from medst.cohort.store import Cohort
from medst.encode import embed_pairs
from medst.objective.temporal import cycle
from medst.pages.html import picture_uri
from medst.pages.inputs import PatientInputs
from medst.pages.wording import time_span
from medst.use import Model, stored_picture

MOST_STUDIES = 8
"""Studies of a patient that are shown; later ones are left out."""


@dataclass(frozen=True)
class ShownChange:
    """A finding's change since the previous study; `predicted` is None if the model was not asked."""

    finding: str
    progression: str
    predicted: str | None


@dataclass(frozen=True)
class ShownStudy:
    """A study on the page.

    Attributes:
        date: yyyy-mm-dd.
        since: time since the previous study, in words; empty for the first.
        frontal: the image as a data URI.
        lateral: the same, or None.
        report: its text.
        changes: by finding.
    """

    date: str
    since: str
    frontal: str
    lateral: str | None
    report: str
    changes: list[ShownChange]


@dataclass(frozen=True)
class ShownPatient:
    """A patient's studies in time order, with the matrices of the temporal loss over all of them.

    Attributes:
        patient_id: as in the cohort.
        total: number of the patient's studies, including those that are not shown.
        studies: the studies that are shown.
        forward: the weights of each study's image (down) on the reports (across), float32 (study, study).
        reverse: beta, where each image lands on the way to the reports and back, float32 (study, study).
    """

    patient_id: str
    total: int
    studies: list[ShownStudy]
    forward: np.ndarray
    reverse: np.ndarray

    @property
    def hits(self) -> int:
        """How many images have their own report on top."""
        return int((self.forward.argmax(1) == np.arange(self.total)).sum())


@dataclass(frozen=True)
class Alignment:
    """How often an image's own report has the largest weight, over all held-out sequences.

    Attributes:
        patients: held-out patients with at least two studies.
        studies: of these patients.
        hits: share of images whose own report has the largest weight.
    """

    patients: int
    studies: int
    hits: float

    @property
    def chance(self) -> float:
        """The share that guessing would reach: on average one study of each patient."""
        return self.patients / self.studies


def held_out(cohort: Cohort) -> pl.DataFrame:
    """The first pair of each study in the test split, in time order, of patients with at least two studies."""
    pairs = cohort.require("pairs").filter(split="test").sort("patient_id", "time", "study_id", "frontal")
    pairs = pairs.unique(["patient_id", "study_id"], keep="first", maintain_order=True)
    return pairs.filter(pl.len().over("patient_id") >= 2)


def align(
    model: Model, image: Float[np.ndarray, "study dim"], report: Float[np.ndarray, "study dim"]
) -> tuple[Float[np.ndarray, "study study"], Float[np.ndarray, "study study"]]:
    """Forward and reverse mapping of one sequence, from its images to its reports, as in the temporal loss."""
    u, v = torch.from_numpy(image)[None], torch.from_numpy(report)[None]
    mask = torch.ones(u.shape[:2], dtype=torch.bool)
    logits, beta = cycle(u, v, mask, model.recipe.objective.temporal_temperature)
    return logits.softmax(-1)[0].numpy(), beta[0].numpy()


def read_patients(inputs: PatientInputs, count: int) -> tuple[list[ShownPatient], Alignment | None]:
    """At most `count` patients to show, and how well images and reports align over all held-out patients.

    The alignment is None if no held-out patient has two studies.
    """
    pairs = held_out(inputs.cohort)
    if pairs.is_empty():
        return [], None
    image, report = embed_pairs(inputs.model, inputs.cohort, pairs)
    changes = _changes(inputs, pairs)
    chosen = choose(pairs, changes, count)
    shown: dict[str, ShownPatient] = {}
    right = []
    for patient, studies in pairs.with_row_index("place").partition_by("patient_id", as_dict=True).items():
        rows = studies["place"].to_numpy()
        forward, reverse = align(inputs.model, image[rows], report[rows])
        right += (forward.argmax(1) == np.arange(len(rows))).tolist()
        if patient[0] in chosen:
            views = _studies(inputs.cohort, studies, changes)
            shown[patient[0]] = ShownPatient(patient[0], len(rows), views, forward, reverse)
    alignment = Alignment(pairs["patient_id"].n_unique(), pairs.height, float(np.mean(right)))
    return [shown[patient] for patient in chosen], alignment


def choose(pairs: pl.DataFrame, changes: Mapping[str, list[ShownChange]], count: int) -> list[str]:
    """Choose patients one by one, each for the findings and progressions that it adds to those chosen before.

    Ties go to the patient with more labelled findings, then with laterals, then with more studies (up to
    `MOST_STUDIES`), then with the smaller id.
    """
    known: dict[str, set[tuple[str, str]]] = {}
    order: dict[str, tuple[int, int, int, str]] = {}
    for (patient,), studies in pairs.partition_by("patient_id", as_dict=True).items():
        shown = studies.head(MOST_STUDIES)
        kinds = [(one.finding, one.progression) for study in shown["study_id"] for one in changes.get(study, [])]
        laterals = shown.height - shown["lateral"].null_count()
        known[patient], order[patient] = set(kinds), (-len(kinds), -min(2, laterals), -shown.height, patient)
    seen: set[tuple[str, str]] = set()
    chosen: list[str] = []
    while known and len(chosen) < count:
        chosen.append(min(known, key=lambda patient: (-len(known[patient] - seen), order[patient])))
        seen |= known.pop(chosen[-1])
    return chosen


def _changes(inputs: PatientInputs, pairs: pl.DataFrame) -> dict[str, list[ShownChange]]:
    """The known changes of each study since the one before it, by finding; with predictions where there are any."""
    labels = None if inputs.comparisons is None else inputs.comparisons.comparisons
    rows: list[Mapping[str, Any]] = [*inputs.predictions, *([] if labels is None else labels.iter_rows(named=True))]
    follows = _follows(inputs, pairs)
    by_key: dict[tuple[str, str], ShownChange] = {}
    for row in rows:
        if follows(row["study_id"], row["previous"]):
            change = ShownChange(row["finding"], row["progression"], row.get("predicted"))
            by_key.setdefault((row["study_id"], row["finding"]), change)
    found: dict[str, list[ShownChange]] = {}
    for study, finding in sorted(by_key):
        found.setdefault(study, []).append(by_key[study, finding])
    return found


def _follows(inputs: PatientInputs, pairs: pl.DataFrame) -> Callable[[str, int], bool]:
    """Tells whether a study directly follows the one of an image of the comparisons; True where nobody can tell."""
    if inputs.comparisons is None:
        return lambda study, image: True
    ids = inputs.cohort.image_table["image_id"].to_list()
    studies = inputs.cohort.require("pairs").select("study_id", "frontal").iter_rows()
    study_of = {ids[frontal]: study for study, frontal in studies}
    before = dict(pairs.select("study_id", before=pl.col("study_id").shift().over("patient_id")).iter_rows())
    compared = inputs.comparisons.image_table["image_id"].to_list()
    return lambda study, image: compared[image] not in study_of or study_of[compared[image]] == before.get(study)


def _studies(cohort: Cohort, pairs: pl.DataFrame, changes: Mapping[str, list[ShownChange]]) -> list[ShownStudy]:
    rows = pairs.head(MOST_STUDIES).to_dicts()
    times = [row["time"] for row in rows]
    return [
        ShownStudy(
            date=f"{row['time']:%Y-%m-%d}",
            since="" if before is None else time_span((row["time"] - before).total_seconds()),
            frontal=_view(cohort, row["frontal"]),
            lateral=None if row["lateral"] is None else _view(cohort, row["lateral"]),
            report=row["report"],
            changes=changes.get(row["study_id"], []),
        )
        for row, before in zip(rows, [None, *times[:-1]], strict=True)
    ]


def _view(cohort: Cohort, row: int) -> str:
    """The image as a data URI, without the padding around it."""
    height, width = cohort.image_table.select("height", "width").row(row)
    return picture_uri(stored_picture(cohort.images[row], height, width).original)
