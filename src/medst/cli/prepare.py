"""`medst prepare`."""

import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from medst.cli.arguments import CohortPath, Raw
from medst.cli.counts import count_phrase
from medst.cohort.options import Options

AS_RELEASED = Options()


def prepare(
    dataset: Positional[Literal["mimic-cxr", "chexpert-plus", "open-i", "table", "ms-cxr-t", "rsna", "covidx"]],
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
        dataset: which data set RAW holds.
        raw: its folder, as downloaded; for table the CSV or Parquet file.
        cohort: folder to write; a preparation that was stopped is resumed.
        options: what to do otherwise than released.
        workers: processes; 0: one a core.
        cluster: read the pictures on a cluster instead: dask:ADDRESS, ray or ray:ADDRESS.
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
        print("Columns that are not used: " + ", ".join(name or "(no name)" for name in columns["unused"]))
    if columns.get("like_labels"):
        names = " ".join(shlex.quote(name) for name in columns["like_labels"])
        print(
            f"Columns of only 1, 0, -1 and blanks; to keep them as labels, prepare another cohort with --labels {names}"
        )
    if rows.get("left_out") or any(n for name, n in meta["counts"].items() if name.startswith("rejected")):
        print(f"What was left out, and why: {cohort / 'rejected.csv'}")


def _remarks(meta: dict[str, Any]) -> Iterator[str]:
    """What to know of a cohort before it is used."""
    counts = meta["counts"]
    if losing := counts.get("reports_losing_letters"):
        yield (
            f"{losing} of {meta['seen']['report']} reports lose letters that are not ASCII (the released cleaning drops "
            "them, and the whole part of decimals); --text whole, into another cohort, keeps them."
        )
    if meta["dataset"] == "table" and meta.get("time") == "order":
        yield "The times are whole numbers: taken as an order of each patient's studies, not as dates."
    if counts.get("train_pairs") == 0:
        yield "No training pairs: pretrain has nothing to learn from; add a split column or more patients."
    if counts.get("valid_pairs") == 0:
        yield "No validation pairs: pretrain can't choose the best epoch; add a split column or more patients."
