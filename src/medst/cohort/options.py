"""Options of a preparation; the defaults follow the released code."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Options:
    """How a raw data set becomes a cohort. `medst.cohort.registry` lists which options apply to which data set.

    Attributes:
        images: folder of the pictures, if they are not in RAW. For ms-cxr-t a MIMIC-CXR-JPG folder or a mimic-cxr cohort.
        reports: folder of the reports, mimic-cxr-reports.zip or mimic_cxr_sectioned.csv.
        frontal: all: one pair per frontal image, as released; one-per-study: the study's first PA image, else its first AP.
        text: released: cleaned as released; whole: keep decimals and one-word sentences, and use reports that have
            hand-made section rules or only a last paragraph.
        decode: exact: the pixels of the released code; fast: decode JPEGs at a fraction of their size.
        intensity: of DICOM images. maximum: divide by the maximum, as released; window: apply the window in the file.
        split: released, or by-patient: no patient has images in both training and validation.
        views: given: from the table of views or the DICOM header; order: a report's first image is frontal, its second
            lateral.
        labels: columns that are labels besides the 14 CheXpert names: 1, 0, -1 (uncertain) or empty.
        separator: between the fields of a CSV file; auto: the one that splits the header into most columns.
        date_format: format of the day in `time`, for instance %d/%m/%Y for 04/09/2023 in September; a time of day may
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

    def changed(self) -> list[str]:
        """Names of the options that differ from the defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    def to_json(self) -> dict[str, Any]:
        """The options as cohort.json keeps them: without folders, so that the same input gives the same bytes."""
        folders = {name: path.name for name, path in (("images", self.images), ("reports", self.reports)) if path}
        return asdict(self) | {"labels": list(self.labels)} | folders
