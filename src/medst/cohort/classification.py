"""Write a benchmark cohort of images that have one class each; shared by the data sets of that kind."""

from pathlib import Path
from typing import Any

import polars as pl

from medst.cohort.writer import Writer
from medst.errors import MedstError

COLUMNS = ("patient_id", "image_id", "image", "split", "label")


def write_classification(writer: Writer, root: Path, table: pl.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Read the images and write the cohort; return the content of cohort.json.

    Args:
        writer: of the cohort; `classes` are added to its header.
        root: folder that the paths of images are relative to.
        table: image_id, path, patient_id, split, label (index into `classes`), rows (of the raw table, see
            `Rejections.number_rows`), and further columns to keep. The order stays, because the released subsets of a split
            are drawn by position.
        classes: their names.

    Raises:
        MedstError: the table is empty.
    """
    if table.is_empty():
        raise MedstError(
            f"{root}: no image is left that has a label and belongs to a split; check the data set's tables."
        )
    writer.header["classes"] = list(classes)
    writer.check_all_rows(table["rows"])
    view_position = pl.lit(None, dtype=pl.String)
    stored = writer.write_images(root, table.with_columns(view=pl.lit("frontal"), view_position=view_position))
    rows = stored.filter(status="ok").select("image_id", image="row")
    labelled = (
        table.join(rows, on="image_id", maintain_order="left")
        .with_columns(pl.col("label").cast(pl.Int64))
        .select(*COLUMNS, pl.all().exclude(*COLUMNS, "path", "rows"))
    )
    splits = labelled["split"].unique(maintain_order=True).to_list()
    shared = labelled.group_by("patient_id").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    counts = {
        "patients": labelled["patient_id"].n_unique(),
        "images": labelled.height,
        **{f"{split}_images": labelled.filter(split=split).height for split in splits},
        **{f"{name}_images": labelled.filter(label=i).height for i, name in enumerate(classes)},
        "patients_in_several_splits": shared.height,
    }
    kept = table.join(rows, on="image_id", how="semi")["rows"]
    return writer.finish(stored, {"labelled": labelled}, counts, kept)
