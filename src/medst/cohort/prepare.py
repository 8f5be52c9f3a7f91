"""Prepare a raw data set: the steps that all data sets share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medst.cohort.images import Reading
from medst.cohort.options import Options
from medst.cohort.registry import DATASETS
from medst.cohort.rejections import TOLERATED
from medst.cohort.writer import Writer
from medst.errors import MedstError
from medst.files import claim, is_full, part_of
from medst.jobs import Workers


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
    """Turn a raw data set into a cohort, or resume a preparation that was stopped.

    A finished cohort is left as it is if it was made from the same tables with the same options.

    Args:
        dataset: a name in `medst.cohort.registry.DATASETS`.
        raw: the data set's folder; for table the CSV or Parquet file.
        cohort: folder to write. Until it is complete, it is called `<cohort>.part`.
        options: differences from the released preprocessing.
        workers: processes; 0: one per core. The result does not depend on it.
        cluster: where to read the pictures instead, see `medst.jobs`.
        max_rejected: largest share of images, reports and rows that may be rejected as unreadable or contradictory.
        progress: called with (images done, all images).

    Returns:
        The content of cohort.json.

    Raises:
        MedstError: something is missing or wrong, the disk is full, the folder holds another cohort, or another process
            writes it; or the cohort is complete, but more than `max_rejected` of its images, reports or rows were rejected.
    """
    # A cohort given as "." is renamed into place in the end, and "." has no name.
    raw, cohort, options = Path(raw), Path(os.path.abspath(cohort)), options or Options()
    if dataset not in DATASETS:
        raise MedstError(f"'{dataset}' is not a data set that medst prepares; it prepares {', '.join(DATASETS)}.")
    if workers < 0 or not 0 <= max_rejected <= 1:
        raise MedstError("--workers must be 0 or more, and --max-rejected between 0 and 1.")
    useless = [name for name in options.changed() if name not in DATASETS[dataset].options]
    if useless:
        flag = useless[0].replace("_", "-")
        raise MedstError(f"--{flag} does nothing for {dataset}, which takes {DATASETS[dataset].flags}; leave it out.")
    try:
        meta = _write(dataset, raw, cohort, options, Workers(workers, cluster, progress))
    except OSError as error:
        if not is_full(error):
            raise
        raise MedstError(
            f"The disk of {part_of(cohort)} is full; make room and run the same command again to resume."
        ) from error
    _check_rejected(meta, cohort, max_rejected)
    return dict(meta)


def _write(dataset: str, raw: Path, cohort: Path, options: Options, workers: Workers) -> dict[str, Any]:
    reader, recorded = DATASETS[dataset].reader(), options.to_json()
    used = {name: recorded[name] for name in DATASETS[dataset].options}
    header = {"dataset": dataset, "dataset_version": "unknown", "options": used, **reader.describe(raw, options)}
    if raw.is_dir() and cohort.resolve().is_relative_to(raw.resolve()):
        raise MedstError(
            f"{cohort} is in {raw}, which holds the raw data and is never written to; give another folder."
        )
    drawn = any((place / "phantom.json").is_file() for place in (raw, raw.parent))
    writer = Writer(cohort, header, workers, Reading(options.decode, options.intensity), synthetic=drawn)
    with claim(cohort):
        meta = writer.start()
        if meta is None:
            try:
                meta = reader.write_cohort(writer, raw, options)
            except MedstError:
                writer.remove_if_unused()
                raise
    return meta


def _check_rejected(meta: dict[str, Any], cohort: Path, max_rejected: float) -> None:
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
