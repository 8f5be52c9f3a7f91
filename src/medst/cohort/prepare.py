"""`medst prepare`: which data set is read by what, and what all of them share."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from medst.cohort.images import Reading
from medst.cohort.options import Options
from medst.cohort.rejections import TOLERATED
from medst.cohort.store import part_path
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import claim, is_full
from medst.jobs import Workers

DATASETS = {
    "mimic-cxr": "mimic_cxr",
    "chexpert-plus": "chexpert_plus",
    "open-i": "open_i",
    "table": "table",
    "ms-cxr-t": "ms_cxr_t",
    "rsna": "rsna",
    "covidx": "covidx",
}
"""Name of a data set -> module here, which has OPTIONS (those it takes), describe(raw, options) and prepare(writer, raw,
options)."""


def prepare(
    dataset: str,
    raw: Path,
    cohort: Path,
    options: Options | None = None,
    *,
    workers: int = 0,
    cluster: str | None = None,
    max_rejected: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Turn a raw data set into a cohort, or resume one that was stopped.

    A cohort that is finished is left as it is, if it was made from the same tables with the same options.

    Args:
        dataset: one of `DATASETS`.
        raw: the data set's folder; for table the CSV or Parquet file.
        cohort: folder to write. While it grows it is called `<cohort>.part`.
        options: what to do otherwise than released.
        workers: processes; 0: one a core. The result does not depend on it.
        cluster: where to read the pictures instead, see `medst.jobs`.
        max_rejected: largest share of images, of reports and of rows that may be left out as unreadable or contradictory.
        progress: called with (images done, all images).

    Returns:
        The content of cohort.json.

    Raises:
        MedstError: something is missing or wrong, the disk is full, the folder holds another cohort, another process writes
            it; or, after the cohort is written, more than `max_rejected` of its images, reports or rows were left out.
    """
    # A cohort given as "." is renamed into place in the end, and "." has no name.
    raw, cohort, options = Path(raw), Path(os.path.abspath(cohort)), options or Options()
    if dataset not in DATASETS:
        raise MedstError(f"'{dataset}' is not a data set that medst prepares; it prepares {', '.join(DATASETS)}.")
    if workers < 0 or not 0 <= max_rejected <= 1:
        raise MedstError("--workers must be 0 or more, and --max-rejected between 0 and 1.")
    module: ModuleType = import_module(f"medst.cohort.{DATASETS[dataset]}")
    options.check(dataset, module.OPTIONS)
    try:
        header = module.describe(raw, options)
        # The folder of a table of one's own may hold anything.
        if dataset != "table" and cohort.resolve().is_relative_to(raw.resolve()):
            raise MedstError(
                f"{cohort} is in {raw}, which holds the raw data and is never written to; give another folder."
            )
        writer = Writer(cohort, header, Workers(workers, cluster, progress), Reading(options.decode, options.intensity))
        with claim(cohort):
            meta = writer.start()
            if meta is None:
                try:
                    meta = module.prepare(writer, raw, options)
                except MedstError:
                    writer.give_up()
                    raise
    except OSError as error:
        if not is_full(error):
            raise
        raise MedstError(
            f"The disk of {part_path(cohort)} is full; make room and run the same command again, it resumes from there."
        ) from error
    _refuse_many(meta, cohort, max_rejected)
    return dict(meta)


def _refuse_many(meta: dict[str, Any], cohort: Path, max_rejected: float) -> None:
    counts = meta["counts"]
    for kind in TOLERATED:
        rejected = counts.get(f"rejected_{kind}s", 0)
        # Cohorts of earlier versions counted images only.
        seen = meta["seen"].get(kind) if "seen" in meta else rejected + counts["images"] if kind == "image" else None
        if seen is not None and max_rejected < 1 and rejected > max_rejected * seen:
            raise MedstError(
                f"{cohort} is written, but {rejected} of {seen} {kind}s were left out (see rejected.csv), more than "
                f"the share of {max_rejected:g} that --max-rejected allows."
            )
