"""The studies on the page and what can be asked about them. Knows model and cohort, and nothing of HTML."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from medst.app.search import SearchIndex, nearest
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.use import Grounding, ImageEmbeddings, Model, Progression, Study, stored_picture, time_order

MOST_STUDIES = 24
"""Studies on the page; of a patient with more, the latest."""
RECENT_PATIENTS = 32
"""Patients whose embeddings are kept."""
MOST_PHRASE, MOST_ID = 300, 100
"""Characters of a phrase or a finding, and of a patient's id."""
MOST_LISTED = 200
"""Patients in the list; every other patient of the cohort opens by id."""


@dataclass(frozen=True, eq=False)
class OpenStudies:
    """The studies on the page, in time order, of a patient or of a visitor's own files.

    Attributes:
        patient: its id in the cohort; empty for a visitor's own files.
        studies: with pictures as they are shown.
        images: their embeddings.
        left_out: number of earlier studies that are not shown.
    """

    patient: str
    studies: tuple[Study, ...] = field(repr=False)
    images: ImageEmbeddings = field(repr=False)
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.studies)

    def name(self, number: int) -> str:
        """The name of a study on the page, from its place in time order."""
        time = self.studies[number].time
        return f"Study {number + 1}" + ("" if time is None else f", {time:%Y-%m-%d}")

    def check_number(self, number: int) -> None:
        """Raise MedstError if this number, counted from 0, is out of range."""
        if not 0 <= number < len(self):
            raise MedstError(f"study {number + 1} is out of range; there are {len(self)} studies.")


@dataclass(frozen=True, eq=False)
class SimilarStudy:
    """A study of another patient, and its cosine with the one in question."""

    similarity: float
    patient: str
    study: Study = field(repr=False)


@dataclass
class Backend:
    """The model and the cohort behind the page.

    Attributes:
        model: encodes.
        cohort: with pairs; None if the page has only visitors' own pictures.
        embeddings: folder that `medst embed` wrote for both; None computes them at the first search.

    Raises:
        MedstError: the cohort has no pairs, or the embeddings belong to something else.
    """

    model: Model
    cohort: Cohort | None
    embeddings: Path | None = None

    def __post_init__(self) -> None:
        if self.cohort is not None:
            self.cohort.require("pairs", "give one with patients")
        if self.embeddings is not None:
            self.index.rows()

    @cached_property
    def patients(self) -> list[tuple[str, str]]:
        """(label, patient_id) of those with the most studies, at most `MOST_LISTED`, held-out patients first."""
        if self.cohort is None:
            return []
        return (
            self._pairs.group_by("patient_id")
            .agg(pl.len().alias("studies"), pl.col("split").first())
            .with_columns(held_out=pl.col("split") != "train")
            .sort(["held_out", "studies", "patient_id"], descending=[True, True, False])
            .head(MOST_LISTED)
            .select(pl.format("{}: {} studies, {}", "patient_id", "studies", "split").alias("label"), "patient_id")
            .rows()
        )

    @cached_property
    def index(self) -> SearchIndex:
        """Embeddings of the cohort to search in."""
        return SearchIndex(self.model, self._cohort, self.embeddings)

    @property
    def _cohort(self) -> Cohort:
        if self.cohort is None:
            raise MedstError("there is no cohort on this page; start it with `medst app MODEL COHORT`.")
        return self.cohort

    @property
    def _pairs(self) -> pl.DataFrame:
        return self._cohort.require("pairs")

    def open_patient(self, patient: str) -> OpenStudies:
        """A patient of the cohort.

        Raises:
            MedstError: there is no such patient, or no cohort.
        """
        return self._open_recent(limited(patient, MOST_ID, "the patient's id").strip())

    @cached_property
    def _open_recent(self) -> Callable[[str], OpenStudies]:
        return lru_cache(maxsize=RECENT_PATIENTS)(self._open)

    def _open(self, patient: str) -> OpenStudies:
        rows = self._pairs.with_row_index("pair").filter(patient_id=patient).sort("time", "pair")
        if not rows.height:
            raise MedstError(f"there is no patient '{patient[:40]}' in this cohort.")
        studies = tuple(self._study(row) for row in rows.tail(MOST_STUDIES).iter_rows(named=True))
        return OpenStudies(patient, studies, self.model.encode_image(studies), rows.height - len(studies))

    def _study(self, pair: dict[str, Any]) -> Study:
        """A row of the cohort's pairs as a study."""
        table, images = self._cohort.image_table, self._cohort.images
        frontal, lateral = (
            None if row is None else stored_picture(images[row], int(table["height"][row]), int(table["width"][row]))
            for row in (pair["frontal"], pair["lateral"])
        )
        assert frontal is not None
        return Study(frontal, lateral, pair["time"], pair["report"], pair["study_id"])

    def add_study(self, own: OpenStudies | None, study: Study) -> OpenStudies:
        """A visitor's own studies with one more, in time order if they have dates; only the new one is encoded.

        Raises:
            MedstError: there are too many, or some have a date and others don't.
        """
        if own is not None and len(own) >= MOST_STUDIES:
            raise MedstError(f"the page shows {MOST_STUDIES} studies; start over to add others.")
        studies = (study,) if own is None else (*own.studies, study)
        order = time_order(studies)
        images = self.model.encode_image(study)
        if own is not None:
            images = own.images.join(images)
        return OpenStudies("", tuple(studies[i] for i in order), images.select(order))

    def ground(self, opened: OpenStudies, phrase: str) -> list[Grounding]:
        """Heat maps of a phrase on every study.

        Raises:
            MedstError: the phrase is empty or too long.
        """
        return self.model.ground(opened.images, limited(phrase, MOST_PHRASE, "the phrase"))

    def compare(self, opened: OpenStudies, prior: int, current: int, finding: str) -> Progression:
        """The progression of a finding between two studies.

        Raises:
            MedstError: there are no such studies, or the finding is empty or too long.
        """
        for number in (prior, current):
            opened.check_number(number)
        limited(finding, MOST_PHRASE, "the finding")
        return self.model.compare(opened.images.select([prior]), opened.images.select([current]), finding)

    def similar(self, opened: OpenStudies, number: int, count: int = 6) -> list[SimilarStudy]:
        """The most similar studies of other patients.

        Raises:
            MedstError: there is no such study, or no cohort.
        """
        opened.check_number(number)
        own = self._pairs.with_row_index("pair").filter(patient_id=opened.patient)["pair"].to_numpy()
        found = nearest(self.index.rows(), opened.images.embedding[number].numpy(), count, without=own)
        pairs = [(self._pairs.row(row, named=True), similarity) for row, similarity in found]
        return [SimilarStudy(similarity, pair["patient_id"], self._study(pair)) for pair, similarity in pairs]


def limited(text: str, most: int, name: str) -> str:
    """The text itself.

    Raises:
        MedstError: it is not a string, or has more than `most` characters.
    """
    if not isinstance(text, str):
        raise MedstError(f"{name} must be a text.")
    if len(text) > most:
        raise MedstError(f"{name} has {len(text):,} characters; at most {most:,} are allowed.")
    return text
