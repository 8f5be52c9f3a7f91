"""`medst prepare`: which data set is read by what, and what all of them share."""

import errno
from pathlib import Path
from typing import Any

from medst.cohort import mimic_cxr, ms_cxr_t
from medst.cohort.store import Progress, Writer, part_path
from medst.errors import MedstError

DATASETS = ("mimic-cxr", "ms-cxr-t")


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
    if dataset not in DATASETS:
        raise MedstError(f"'{dataset}' is no data set that medst prepares; these are: {', '.join(DATASETS)}.")
    writer = Writer(cohort, {"dataset": dataset, "options": {}})
    meta = writer.start()
    if meta is None:
        try:
            if dataset == "mimic-cxr":
                meta = mimic_cxr.prepare(writer, raw, reports=reports, workers=workers, progress=progress)
            else:
                meta = ms_cxr_t.prepare(writer, raw, images=images, workers=workers, progress=progress)
        except OSError as error:
            if error.errno != errno.ENOSPC:
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
