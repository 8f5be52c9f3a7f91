"""`medst prepare`: which data set is read by what, and what all of them share."""

import errno
from pathlib import Path
from typing import Any

from medst.cohort import mimic_cxr, ms_cxr_t
from medst.cohort.store import Progress, part_path
from medst.cohort.writer import Writer
from medst.errors import MedstError

DATASETS = ("mimic-cxr", "ms-cxr-t")
FULL = (errno.ENOSPC, errno.EDQUOT)


def prepare(
    dataset: str,
    raw: Path,
    cohort: Path,
    *,
    images: Path | None = None,
    reports: Path | None = None,
    workers: int = 0,
    max_rejected: float = 0.01,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Turn a raw data set into a cohort, or go on where that was stopped.

    A cohort that is finished is left as it is, if it was made from the same tables with the same options.

    Args:
        dataset: one of `DATASETS`.
        raw: the data set's folder.
        cohort: folder to write. While it grows it is called `<cohort>.part`.
        images: for ms-cxr-t, the MIMIC-CXR-JPG folder or a mimic-cxr cohort.
        reports: for mimic-cxr, the folder of the reports where they are neither in nor beside `raw`.
        workers: processes; 0: one a core. The result does not depend on it.
        max_rejected: largest share of images that may be left out.
        progress: called with (images done, all images).

    Returns:
        The content of cohort.json.

    Raises:
        MedstError: something is missing or wrong, the disk is full, the folder holds another cohort; or, after the cohort
            is written, more than `max_rejected` of its images were left out.
    """
    raw, cohort = Path(raw), Path(cohort)
    if dataset not in DATASETS:
        raise MedstError(f"'{dataset}' is no data set that medst prepares; these are: {', '.join(DATASETS)}.")
    if workers < 0 or not 0 <= max_rejected <= 1:
        raise MedstError("--workers must be 0 or more, and --max-rejected between 0 and 1.")
    try:
        meta = _prepare(dataset, raw, cohort, images, reports, workers, progress)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise MedstError(
            f"The disk of {part_path(cohort)} is full; make room and run the same command again, it goes on from there."
        ) from error
    rejected, kept = meta["counts"]["rejected_images"], meta["counts"]["images"]
    if rejected > max_rejected * (rejected + kept):
        raise MedstError(
            f"{cohort} is written, but {rejected} of {rejected + kept} images were left out (see rejected.csv), more than "
            f"the share of {max_rejected:g} that --max-rejected allows."
        )
    return meta


def _prepare(
    dataset: str,
    raw: Path,
    cohort: Path,
    images: Path | None,
    reports: Path | None,
    workers: int,
    progress: Progress | None,
) -> dict[str, Any]:
    if dataset == "mimic-cxr":
        if images is not None:
            raise MedstError("--images is for ms-cxr-t; the images of mimic-cxr are in RAW.")
        writer = Writer(cohort, mimic_cxr.describe(raw, reports))
        return writer.start() or mimic_cxr.prepare(writer, raw, reports=reports, workers=workers, progress=progress)
    if reports is not None:
        raise MedstError("--reports is for mimic-cxr; ms-cxr-t has none.")
    if images is None:
        raise MedstError(
            "ms-cxr-t holds no pictures: give the MIMIC-CXR-JPG folder, or a mimic-cxr cohort, with --images."
        )
    writer = Writer(cohort, ms_cxr_t.describe(raw, images))
    return writer.start() or ms_cxr_t.prepare(writer, raw, images=images, workers=workers, progress=progress)
