"""A visitor's files: read through the guarded reader of `medst prepare`, and forgotten."""

from datetime import datetime

from medst.app.studies import limited, read_upload
from medst.errors import MedstError
from medst.use import Study

DATE, REPORT = 40, 10_000
"""Characters that are taken."""


def study_of_upload(date: str, frontal: str | None, lateral: str | None, report: str, *, number: int) -> Study:
    """One study of a visitor's own.

    Args:
        date: YYYY-MM-DD, with or without a time; if empty, that of the frontal DICOM file, if it is one that has one.
        frontal: file.
        lateral: file, or None.
        report: its text, may be empty.
        number: what to call the study in a message.

    Raises:
        MedstError: there is no frontal view, a file can't be read or used, the report is too long, or the date is not one.
    """
    limited(report, REPORT, "the report")
    limited(date, DATE, "the date")
    if frontal is None:
        raise MedstError("choose a frontal view first.")
    time = _parse(date) if date.strip() else None
    front, made = read_upload(frontal, f"the frontal view of study {number}")
    beside = None if lateral is None else read_upload(lateral, f"the lateral view of study {number}")[0]
    return Study(front, beside, time or made, " ".join(report.split()))


def _parse(date: str) -> datetime:
    try:
        return datetime.fromisoformat(date.strip()).replace(tzinfo=None)
    except ValueError:
        raise MedstError(f"'{date.strip()[:20]}' is not a date; write it as YYYY-MM-DD.") from None
