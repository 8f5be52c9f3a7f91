"""`medst prepare`."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from medst.cli.arguments import CohortPath, Raw
from medst.cli.counts import count_phrase
from medst.cohort.options import Options
from medst.cohort.registry import DATASETS

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = literal_type_from_choices(DATASETS)

AS_RELEASED = Options()
OPTIONS_OF = "; ".join(f"{name} takes {dataset.flags}" for name, dataset in DATASETS.items())


def prepare(
    dataset: Annotated[Positional[DatasetName], arg(help=f"data set in RAW. {OPTIONS_OF}.")],
    raw: Raw,
    cohort: CohortPath,
    /,
    options: Annotated[Options, arg(name="")] = AS_RELEASED,
    workers: int = 0,
    cluster: str | None = None,
    max_rejected: float = 0.01,
) -> None:
    """Turn a raw data set into a cohort.

    Args:
        raw: folder of the data set, as downloaded; for table, the CSV or Parquet file.
        cohort: folder to write; a stopped preparation resumes.
        options: departures from the released preprocessing.
        workers: processes; 0 means one per core.
        cluster: read the images on a cluster instead: dask:ADDRESS, ray or ray:ADDRESS.
        max_rejected: largest share of images, reports and rows that may be unreadable or contradictory.
    """
    from medst.cohort.prepare import prepare as run
    from medst.progress import Display

    with Display(["prepare"]) as display:
        meta = run(
            dataset,
            raw,
            cohort,
            options,
            workers=workers,
            cluster=cluster,
            max_rejected=max_rejected,
            progress=display.stage("prepare"),
        )
    print(f"{cohort}: " + count_phrase(meta["counts"]))
    for remark in _remarks(meta):
        print(remark)
    rows, columns = meta.get("rows", {}), meta.get("columns", {})  # cohorts of earlier versions have neither
    if rows:
        print("Rows: " + count_phrase(rows))
    if columns.get("unused"):
        print("Unused columns: " + ", ".join(name or "(no name)" for name in columns["unused"]))
    if columns.get("like_labels"):
        names = " ".join(shlex.quote(name) for name in columns["like_labels"])
        print(f"Some columns hold only 1, 0, -1 and blanks. To keep them as labels: another cohort, --labels {names}")
    if rows.get("left_out") or any(n for name, n in meta["counts"].items() if name.startswith("rejected")):
        print(f"Rejected rows and reasons: {cohort / 'rejected.csv'}")


def _remarks(meta: dict[str, Any]) -> Iterator[str]:
    """Warnings about a cohort."""
    counts = meta["counts"]
    if losing := counts.get("reports_losing_letters"):
        yield (
            f"{losing} of {meta['seen']['report']} reports lose letters: the released cleaning drops letters that are not "
            "ASCII, and the integer part of decimals. To keep them, prepare another cohort with --text whole."
        )
    if meta["dataset"] == "table" and meta.get("time") == "order":
        yield "The times are integers: they give the order of each patient's studies, not dates."
    if counts.get("train_pairs") == 0:
        yield "No training pairs: pretrain needs some; add a split column or more patients."
    if counts.get("valid_pairs") == 0:
        yield "No validation pairs: pretrain can't choose the best epoch; add a split column or more patients."
