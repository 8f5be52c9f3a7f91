"""What the page is about: a patient's studies, encoded once. Knows the model and the cohort, and nothing of the page."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import polars as pl

from medst.app.search import Indexing
from medst.cohort.guarded_decode import guarded
from medst.cohort.images import read_grey_and_date
from medst.cohort.store import Cohort
from medst.errors import MedstError
from medst.use import Grounding, ImageEmbeddings, Model, Picture, Progression, Study, read_picture, stored_picture
from medst.use.geometry import Geometry
from medst.use.model import time_order

SHOWN = 768
"""Longer side of a picture on the page, in pixels."""
MOST_STUDIES = 24
"""Of one visit; a patient's latest ones are kept."""
RECENT = 32
"""Patients whose embeddings are kept."""
PHRASE, NAME = 300, 100
"""Characters of a phrase or a finding, and of a patient's id, that are taken."""
LISTED = 200
"""Patients in the list; every other one of the cohort opens by its id."""


@dataclass(frozen=True, eq=False)
class Visit:
    """Studies on the page, in time order.

    Attributes:
        patient: its id in the cohort; empty for a visitor's own pictures.
        studies: their pictures as they are shown.
        images: their embeddings.
        rows: of the studies in the cohort's table of pairs; empty for a visitor's own pictures.
        left_out: earlier studies that are not shown.
    """

    patient: str
    studies: tuple[Study, ...] = field(repr=False)
    images: ImageEmbeddings = field(repr=False)
    rows: tuple[int, ...] = ()
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.studies)

    def name(self, number: int) -> str:
        """What a study is called, from its place in time."""
        time = self.studies[number].time
        return f"Study {number + 1}" + ("" if time is None else f", {time:%Y-%m-%d}")


@dataclass(frozen=True, eq=False)
class Hit:
    """A similar study: its cosine, patient, study, date, report and frontal picture."""

    similarity: float
    patient: str
    study: str
    time: datetime | None
    report: str = field(repr=False)
    picture: Picture = field(repr=False)


@dataclass
class Desk:
    """A model, and a cohort or none, behind the page.

    Attributes:
        model: encodes.
        cohort: with pairs, or None.
        embeddings: folder that `medst embed` wrote for both, or None to compute them at the first search.
    """

    model: Model
    cohort: Cohort | None
    embeddings: Path | None = None

    def __post_init__(self) -> None:
        if self.cohort is not None and self.cohort.pairs is None:
            raise MedstError(
                f"{self.cohort.path} has no pairs: it is a {self.cohort.meta['dataset']} cohort; give one with patients."
            )
        if self.embeddings is not None:
            self.indexing.get()

    @cached_property
    def patients(self) -> list[tuple[str, str]]:
        """(label, patient_id) of those with the most studies, at most `LISTED`, the held-out ones first."""
        if self.cohort is None:
            return []
        table = (
            self._pairs.group_by("patient_id")
            .agg(pl.len().alias("studies"), pl.col("split").first())
            .with_columns(held_out=pl.col("split") != "train")
            .sort(["held_out", "studies", "patient_id"], descending=[True, True, False])
            .head(LISTED)
        )
        return [
            (f"{row['patient_id']}: {row['studies']} studies, {row['split']}", row["patient_id"])
            for row in table.iter_rows(named=True)
        ]

    @cached_property
    def indexing(self) -> Indexing:
        """Embeddings of the cohort to search in."""
        return Indexing(self.model, self._cohort, self.embeddings)

    @property
    def _cohort(self) -> Cohort:
        if self.cohort is None:
            raise MedstError("there is no cohort on this page; start it with `medst app MODEL COHORT`.")
        return self.cohort

    @property
    def _pairs(self) -> pl.DataFrame:
        pairs = self._cohort.pairs
        assert pairs is not None
        return pairs

    def visit(self, patient: str) -> Visit:
        """A patient of the cohort.

        Raises:
            MedstError: there is no such patient, or no cohort.
        """
        return self._recent(limited(patient, NAME, "the patient's id").strip())

    @cached_property
    def _recent(self) -> Callable[[str], Visit]:
        return lru_cache(maxsize=RECENT)(self._visit)

    def _visit(self, patient: str) -> Visit:
        rows = self._pairs.with_row_index("pair").filter(patient_id=patient).sort("time", "pair")
        if not rows.height:
            raise MedstError(f"there is no patient '{patient[:40]}' in this cohort.")
        shown = rows.tail(MOST_STUDIES)
        studies = tuple(
            Study(
                self._picture(row["frontal"]),
                None if row["lateral"] is None else self._picture(row["lateral"]),
                row["time"],
                row["report"],
                row["study_id"],
            )
            for row in shown.iter_rows(named=True)
        )
        images = self.model.encode_image(studies)
        return Visit(patient, studies, images, tuple(shown["pair"]), rows.height - shown.height)

    def _picture(self, row: int) -> Picture:
        table = self._cohort.image_table
        return stored_picture(self._cohort.images[row], int(table["height"][row]), int(table["width"][row]))

    def add(self, own: Visit | None, study: Study) -> Visit:
        """A visitor's own studies with one more, in time order where each has a date; only the new one is encoded.

        Raises:
            MedstError: there are too many, or some have a date and others none.
        """
        if own is not None and len(own) >= MOST_STUDIES:
            raise MedstError(f"the page shows {MOST_STUDIES} studies; start over to add others.")
        studies = (study,) if own is None else (*own.studies, study)
        order = time_order(studies)
        images = self.model.encode_image(study)
        if own is not None:
            images = own.images.join(images)
        return Visit("", tuple(studies[i] for i in order), images.take(order))

    def ground(self, visit: Visit, phrase: str) -> list[Grounding]:
        """Heat maps of a phrase on every study.

        Raises:
            MedstError: the phrase is empty or too long.
        """
        return self.model.ground(visit.images, limited(phrase, PHRASE, "the phrase"))

    def compare(self, visit: Visit, prior: int, current: int, finding: str) -> Progression:
        """What became of a finding between two studies of a visit.

        Raises:
            MedstError: there are no such studies, or no finding.
        """
        for number in (prior, current):
            _check_number(visit, number)
        limited(finding, PHRASE, "the finding")
        return self.model.compare(visit.images.take([prior]), visit.images.take([current]), finding)

    def similar(self, visit: Visit, number: int, count: int = 6) -> list[Hit]:
        """The studies of other patients that the model finds most alike.

        Raises:
            MedstError: there is no such study, or no cohort.
        """
        _check_number(visit, number)
        pairs = self._pairs
        own = pairs.with_row_index("pair").filter(patient_id=visit.patient)["pair"].to_numpy()
        found = self.indexing.get().nearest(visit.images.embedding[number].numpy(), count, without=own)
        hits = []
        for row, similarity in found:
            pair = pairs.row(row, named=True)
            hits.append(
                Hit(
                    similarity,
                    pair["patient_id"],
                    pair["study_id"],
                    pair["time"],
                    pair["report"],
                    self._picture(pair["frontal"]),
                )
            )
        return hits


def limited(text: str, most: int, name: str) -> str:
    """The text, if it is one of at most so many characters.

    Raises:
        MedstError: it isn't.
    """
    if not isinstance(text, str):
        raise MedstError(f"{name} must be a text.")
    if len(text) > most:
        raise MedstError(f"{name} has {len(text):,} characters; at most {most:,} are taken.")
    return text


def _check_number(visit: Visit, number: int) -> None:
    if not 0 <= number < len(visit):
        raise MedstError(f"there is no study {number + 1} of {len(visit)}.")


def read_upload(file: str | Path, name: str) -> tuple[Picture, datetime | None]:
    """A visitor's picture, kept no larger than it is shown, and a DICOM file's date; parsed in a guarded child process.

    Args:
        file: on the disk for now.
        name: what to call it in a message; a file's own name may be a patient's.

    Raises:
        MedstError: it can't be read or used.
    """
    try:
        grey, date = guarded(read_grey_and_date, Path(file).absolute())
        picture = read_picture(grey)
    except (MedstError, OSError) as error:
        raise MedstError(f"{name}: {str(error).rstrip('.')}.") from None
    return shrunk(picture, SHOWN), datetime.fromisoformat(date) if date else None


def shrunk(picture: Picture, longest: int) -> Picture:
    """The same to the model, with its original no larger than this."""
    small = picture.geometry.at(longest)
    if small == picture.geometry:
        return picture
    original = cv2.resize(picture.original, (small.width, small.height), interpolation=cv2.INTER_AREA)
    return replace(picture, original=original, geometry=Geometry(small.height, small.width))
