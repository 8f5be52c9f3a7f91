"""A small MIMIC-CXR-JPG tree with images of noise, whose tables and files a test can damage."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest

from medst.cohort.mimic_cxr import CHEXPERT, LABELS, METADATA, SPLIT

REPORT = (
    "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n"
    " FINDINGS:  The heart is of size {number}; the lungs are clear.\n \n IMPRESSION:  No change since ___.\n"
)


@dataclass
class Study:
    patient: int
    study: int
    date: str = "21500101"
    time: str = "120000.0"
    split: str = "train"
    views: tuple[str, ...] = ("PA", "LATERAL")
    report: str | bytes | None = field(default=REPORT)

    @property
    def folder(self) -> str:
        return f"files/p{str(self.patient)[:2]}/p{self.patient}/s{self.study}"

    @property
    def report_path(self) -> str:
        return f"{self.folder}.txt"

    def image_id(self, number: int) -> str:
        return f"{self.study:08x}-{number:08x}-00000000-00000000-00000000"

    def row(self, number: int, view: str) -> dict[str, str]:
        """Row of an image in the tables."""
        ids = {"dicom_id": self.image_id(number), "subject_id": str(self.patient), "study_id": str(self.study)}
        return ids | {"ViewPosition": view, "StudyDate": self.date, "StudyTime": self.time, "split": self.split}

    def image_path(self, number: int) -> str:
        return f"{self.folder}/{self.image_id(number)}.jpg"


def picture(seed: int, height: int = 52, width: int = 44) -> np.ndarray:
    """Smooth noise, uint8 (height, width)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", image)[1])


@dataclass
class Tree:
    """A tree: add studies, write it, then damage tables and files."""

    folder: Path
    studies: list[Study] = field(default_factory=list)

    def add(self, study: int, patient: int = 10000001, **fields: Any) -> Study:
        self.studies.append(Study(patient, study, **fields))
        return self.studies[-1]

    def add_many(self, patients: int) -> None:
        """Patients of one to four studies, of all splits; every third study has no lateral, every fifth two frontals."""
        for patient in range(patients):
            split = "validate" if patient % 5 == 3 else "test" if patient % 5 == 4 else "train"
            for number in range(1 + patient % 4):
                study = 50000000 + len(self.studies)
                views = ("AP",) if study % 3 == 0 else ("PA", "AP", "LL") if study % 5 == 0 else ("PA", "LATERAL")
                date = f"21500{number + 1}01"
                self.add(study, 10000000 + patient, date=date, time="93015.25", split=split, views=views)

    def write(self) -> Path:
        images = []
        for study in self.studies:
            (self.folder / study.folder).mkdir(parents=True, exist_ok=True)
            if study.report is not None:
                text = study.report
                content = text if isinstance(text, bytes) else text.replace("{number}", str(study.study)).encode()
                (self.folder / study.report_path).write_bytes(content)
            for number, view in enumerate(study.views):
                seed = study.study * 10 + number
                image = picture(seed, 40 + seed % 23, 40 + seed % 17)
                (self.folder / study.image_path(number)).write_bytes(jpeg(image))
                images.append(study.row(number, view))
        table = pl.DataFrame(images)
        self.replace(METADATA, table.drop("split"))
        self.replace(SPLIT, table.select("dicom_id", "study_id", "subject_id", "split"))
        labels = {name: pl.lit(None, dtype=pl.String) for name in LABELS}
        labels |= {"Edema": pl.lit("1.0"), "Pneumonia": pl.lit("-1.0")}
        ids = table.select("subject_id", "study_id").unique(maintain_order=True)
        self.replace(CHEXPERT, ids.with_columns(**labels))
        return self.folder

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_csv(self.folder / name, infer_schema=False)

    def replace(self, name: str, table: pl.DataFrame) -> None:
        (self.folder / name).write_bytes(gzip.compress(table.write_csv().encode(), mtime=0))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "mimic-cxr-jpg")


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of 12 patients that tests must not change."""
    tree = Tree(tmp_path_factory.mktemp("raw") / "mimic-cxr-jpg")
    tree.add_many(12)
    return tree.write()


@pytest.fixture
def bytes_of() -> Callable[[Path], dict[str, str]]:
    """Digest of every file below a folder, by its path."""

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}

    return digests


@pytest.fixture
def rejections() -> Callable[[Path], list[tuple[str, str, str]]]:
    """Kind, id and reason of every line of a cohort's rejected.csv except those of kind `unused`."""

    def lines(cohort: Path) -> list[tuple[str, str, str]]:
        table = pl.read_csv(cohort / "rejected.csv", infer_schema=False)
        return table.filter(pl.col("kind") != "unused").select("kind", "id", "reason").fill_null("").rows()

    return lines


@pytest.fixture(scope="session")
def recorded() -> Path:
    """Folder of recorded inputs and outputs of the released preprocessing."""
    return Path(__file__).parents[1] / "data" / "cohort"
