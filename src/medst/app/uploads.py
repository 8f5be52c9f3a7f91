"""A visitor's files: read by the guarded reader of `medst prepare`, then forgotten."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import cv2

from medst.app.studies import limited
from medst.cohort.images import guarded, read_grey_and_date
from medst.errors import MedstError
from medst.use import Picture, Study, read_picture

MOST_DATE, MOST_REPORT = 40, 10_000
"""Characters."""
SHOWN_SIDE = 768
"""Longer side of a picture on the page, in pixels."""


def study_of_upload(date: str, frontal: str | None, lateral: str | None, report: str, *, number: int) -> Study:
    """One of a visitor's own studies.

    Args:
        date: YYYY-MM-DD, with or without a time; if empty, the date in the frontal view's DICOM file, if there is one.
        frontal: file.
        lateral: file, or None.
        report: its text, may be empty.
        number: the study's number in messages.

    Raises:
        MedstError: there is no frontal view, a file can't be used, the report is too long, or the date can't be read.
    """
    limited(report, MOST_REPORT, "the report")
    limited(date, MOST_DATE, "the date")
    if frontal is None:
        raise MedstError("choose a frontal view first.")
    time = None
    if date := date.strip():
        try:
            time = datetime.fromisoformat(date).replace(tzinfo=None)
        except ValueError:
            raise MedstError(f"'{date[:20]}' is not a date; write it as YYYY-MM-DD.") from None
    frontal_picture, date_in_file = read_upload(frontal, f"the frontal view of study {number}")
    lateral_picture = None if lateral is None else read_upload(lateral, f"the lateral view of study {number}")[0]
    return Study(frontal_picture, lateral_picture, time or date_in_file, " ".join(report.split()))


def read_upload(file: str | Path, name: str) -> tuple[Picture, datetime | None]:
    """Parse a visitor's file in a guarded child process.

    Args:
        file: temporary file.
        name: what messages call it, because the file's own name may be a patient's.

    Returns:
        The picture, no larger than it is shown, and the date in a DICOM file.

    Raises:
        MedstError: it can't be read or used.
    """
    try:
        grey, date = guarded(read_grey_and_date, Path(file).absolute())
        picture = read_picture(grey)
    except (MedstError, OSError) as error:
        raise MedstError(f"{name}: {str(error).rstrip('.')}.") from None
    return shrink(picture, SHOWN_SIDE), datetime.fromisoformat(date) if date else None


def shrink(picture: Picture, longest: int) -> Picture:
    """Reduce the original to a longer side of `longest` pixels; the model sees the same as before."""
    small = picture.geometry.at(longest)
    if small == picture.geometry:
        return picture
    original = cv2.resize(picture.original, (small.width, small.height), interpolation=cv2.INTER_AREA)
    return replace(picture, original=original)
