"""What can be chosen about a preparation beyond the released rules; what is not chosen is as released."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from medst.errors import MedstError


@dataclass(frozen=True)
class Options:
    """How a raw data set becomes a cohort.

    Attributes:
        images: where the pictures are, if not in RAW; for ms-cxr-t a MIMIC-CXR-JPG folder or a mimic-cxr cohort.
        reports: for mimic-cxr: folder of the reports, mimic-cxr-reports.zip, or mimic_cxr_sectioned.csv.
        frontal: a pair for each frontal image of a study, as released, or for one: the first PA image, else the first AP.
        text: cleaned as released, or whole: decimals and one-word sentences stay, and reports with hand-made section rules
            or with a last paragraph only are used.
        decode: exact: to the pixel as released; fast: JPEGs are decoded at a fraction of their size.
        intensity: of DICOM pictures: divided by their maximum, as released, or by the window that the file names.
        split: of covidx: as released, or by patient, so that no patient's images are in training and in validation.
        views: of open-i: as a table or the DICOM header gives them, or by order: a report's first image is frontal, its
            second lateral.
        labels: of table: columns that are labels beyond the 14 CheXpert names: 1, 0, -1 (uncertain) or empty.
        separator: of table: between the fields of a CSV file; auto: the one that cuts its header into most columns.
        date_format: of table: how `time` writes a day, for instance %d/%m/%Y for 04/09/2023 in September; a time of day may
            follow it.
    """

    images: Path | None = None
    reports: Path | None = None
    frontal: Literal["all", "one-per-study"] = "all"
    text: Literal["released", "whole"] = "released"
    decode: Literal["exact", "fast"] = "exact"
    intensity: Literal["maximum", "window"] = "maximum"
    split: Literal["released", "by-patient"] = "released"
    views: Literal["given", "order"] = "given"
    labels: tuple[str, ...] = ()
    separator: Literal["auto", "comma", "semicolon", "tab", "pipe"] = "auto"
    date_format: str | None = None

    def check(self, dataset: str, usable: tuple[str, ...]) -> None:
        """Refuse what this data set has no use for.

        Raises:
            MedstError: an option is set that does nothing here.
        """
        idle = [field.name for field in fields(self) if field.name not in usable and self.differs(field.name)]
        if idle:
            flags = ", --".join(map(_flag, usable))
            raise MedstError(f"--{_flag(idle[0])} does nothing for {dataset}, which takes --{flags}; leave it out.")

    def differs(self, name: str) -> bool:
        """Whether an option was chosen."""
        return bool(getattr(self, name) != getattr(Options, name))

    def record(self, usable: tuple[str, ...]) -> dict[str, Any]:
        """What cohort.json keeps: no absolute path, so that the same input gives the same bytes."""
        found = {name: getattr(self, name) for name in usable}
        return {name: _recorded(value) for name, value in found.items()}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _recorded(value: Any) -> Any:
    return value.name if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


DEFAULTS = {field.name: _recorded(field.default) for field in fields(Options)}
"""For cohorts that were made before an option existed."""
